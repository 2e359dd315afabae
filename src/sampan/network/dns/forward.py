"""Questions that are passed on: each from a socket of its own, so with a source port and an id that cannot be guessed."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

from sampan.network.dns import message as m
from sampan.network.dns.loop import READ, WRITE, Loop, Timer
from sampan.network.dns.upstream import family

PORT = 53
PATIENCE = 2.0  # seconds for one server
TCP_PATIENCE = 5.0
Reply = Callable[[bytes], None]


class Asking:
    """One question on its way through the servers, one after the other; `done` is called once, with the whole answer.

    tcp: as the asker came by TCP (a reply by UDP had been too long).
    """

    def __init__(self, loop: Loop, question: m.Question, servers: list[str], done: Reply, *, tcp: bool) -> None:
        self._loop = loop
        self._question = question
        self._servers = list(servers)
        self._done: Reply | None = done
        self._tcp = tcp
        self._socket: socket.socket | None = None
        self._timer = Timer(None)
        self._last = m.refusal(question.raw, m.SERVFAIL)
        self._id = b""
        self._out = self._in = b""

    def go_on(self) -> None:
        """Ask the next server; without one, answer with what was heard last."""
        self.close()
        while self._servers:
            server = self._servers.pop(0)
            try:
                self._ask(server)
            except OSError:
                self.close()
                continue
            return
        self._finish(self._last)

    def close(self) -> None:
        self._timer.cancel()
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _finish(self, answer: bytes) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(answer)

    def _ask(self, server: str) -> None:
        kind = socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM
        self._socket = made = socket.socket(family(server), kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._id = os.urandom(2)
        asked = self._id + self._question.raw[2:]
        self._timer = self._loop.after(TCP_PATIENCE if self._tcp else PATIENCE, self.go_on)
        if self._tcp:
            self._out, self._in = struct.pack(">H", len(asked)) + asked, b""
            try:
                made.connect((server, PORT))
            except BlockingIOError:
                pass
            self._loop.watch(made.fileno(), WRITE, self._writable)
        else:
            made.connect((server, PORT))
            self._loop.watch(made.fileno(), READ, self._datagram)
            made.send(asked)

    def _datagram(self) -> None:
        if self._socket is None:
            return
        try:
            heard = self._socket.recv(65535)
        except BlockingIOError:
            return
        except OSError:
            self.go_on()
            return
        if self._is_reply(heard):
            self._heard(heard)

    def _writable(self) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            return
        except OSError:
            self.go_on()
            return
        self._out = self._out[sent:]
        if not self._out:
            self._loop.change(self._socket.fileno(), READ, self._stream)

    def _stream(self) -> None:
        if self._socket is None:
            return
        try:
            heard = self._socket.recv(65537)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        self._in += heard
        size = struct.unpack_from(">H", self._in)[0] if len(self._in) > 1 else 65536
        if len(self._in) >= size + 2 and self._is_reply(self._in[2 : size + 2]):
            self._heard(self._in[2 : size + 2])
        elif not heard or len(self._in) >= size + 2:
            self.go_on()

    def _is_reply(self, heard: bytes) -> bool:
        """Whether it answers this question: its id, the reply bit, and the question said again."""
        q = self._question
        return (
            len(heard) >= 12
            and heard[:2] == self._id
            and bool(heard[2] & 0x80)
            and (heard[12 : q.end].lower() == q.raw[12 : q.end].lower() or heard[3] & 15 in (m.FORMERR, m.NOTIMP))
        )

    def _heard(self, heard: bytes) -> None:
        answer = self._question.raw[:2] + heard[2:]
        if heard[3] & 15 in (m.SERVFAIL, m.NOTIMP, m.REFUSED) and self._servers:
            self._last = answer
            self.go_on()
            return
        self.close()
        self._finish(answer)
