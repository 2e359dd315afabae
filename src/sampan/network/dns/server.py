"""The process: 127.0.0.11 of every container on a user-defined network, and the ports that are published on ::1 (relay.py).

It outlives the daemon, which hands it sockets that were made inside containers' namespaces, and tells it who is called
what.  It runs as nobody, without capabilities: what a container sends can reach nothing through it (row 83).

    control (SEQPACKET, JSON):  hello -> have   put, drop: places   open, close, watch: containers
                                relay, unrelay: published ports   quit
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from sampan.network.dns import message as m
from sampan.network.dns.forward import Asking
from sampan.network.dns.loop import READ, Loop
from sampan.network.dns.table import Names, place
from sampan.network.dns.upstream import Upstreams
from sampan.network.relay import Relay

LISTENER, CONTROL = 3, 4
NOBODY = 65534
AT_ONCE = 32  # datagrams of one container before the others have their turn
ASKING = 64  # questions of one container that are on their way, and
ASKING_ALL = 1024  # of all
STREAMS = 8  # TCP connections of one container
STREAM_IDLE = 10.0  # seconds
_PEER = struct.Struct("3i")


class Stream:
    """A TCP connection of a container: questions with their length before them, answered in the same way."""

    def __init__(self, server: Server, box: Box, connection: socket.socket) -> None:
        self._server, self._box, self._connection = server, box, connection
        self._in = b""
        connection.setblocking(False)
        server.loop.watch(connection.fileno(), READ, self._readable)
        self._timer = server.loop.after(STREAM_IDLE, self.close)

    def close(self) -> None:
        self._timer.cancel()
        if self._connection.fileno() >= 0:
            self._server.loop.forget(self._connection.fileno())
            self._connection.close()
        self._box.streams.discard(self)

    def _readable(self) -> None:
        try:
            heard = self._connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self.close()
            return
        self._in += heard
        while len(self._in) > 1:
            (size,) = struct.unpack_from(">H", self._in)
            if len(self._in) < size + 2:
                return
            asked, self._in = self._in[2 : size + 2], self._in[size + 2 :]
            self._server.resolve(self._box, asked, self._answer, tcp=True)

    def _answer(self, answer: bytes) -> None:
        if self._connection.fileno() < 0:
            return
        try:
            data = struct.pack(">H", len(answer)) + answer
            if self._connection.send(data) != len(data):
                self.close()  # one that does not read
        except OSError:
            self.close()


class Box:
    """A container: its two sockets, and the questions it has on their way."""

    def __init__(self, identity: str, servers: list[str], udp: socket.socket, tcp: socket.socket) -> None:
        self.id, self.servers, self.udp, self.tcp = identity, servers, udp, tcp
        self.asking: set[Asking] = set()
        self.streams: set[Stream] = set()


class Server:
    """Everything of the process."""

    def __init__(self, listener: socket.socket) -> None:
        self.loop = Loop()
        self.names = Names()
        self.upstreams = Upstreams()
        self.boxes: dict[str, Box] = {}
        self.relays: dict[str, Relay] = {}
        self._pidfds: dict[str, int] = {}
        self._asking = 0
        self._control: socket.socket | None = None
        listener.setblocking(False)
        self._listener = listener
        self.loop.watch(listener.fileno(), READ, self._accept)

    # Questions.

    def resolve(self, box: Box, raw: bytes, reply: Callable[[bytes], None], *, tcp: bool) -> None:
        """Answer from the table, or pass on, or say that it cannot be."""
        try:
            question = m.Question(raw)
        except m.Malformed as error:
            if error.code >= 0:
                reply(m.refusal(raw, error.code))
            return
        records = self.names.lookup(box.id, question)
        if records is not None:
            reply(m.answer(question, records, limit=65535 if tcp else question.limit))
        elif not self.names.forwards(box.id):
            reply(m.answer(question, [], m.SERVFAIL if "." in question.name else m.NXDOMAIN))
        else:
            self._forward(box, question, reply, tcp=tcp)

    def _forward(self, box: Box, question: m.Question, reply: Callable[[bytes], None], *, tcp: bool) -> None:
        servers = self.upstreams.servers(box.servers)
        if not servers or len(box.asking) >= ASKING or self._asking >= ASKING_ALL:
            reply(m.answer(question, [], m.SERVFAIL))
            return

        def done(answer: bytes) -> None:
            if asking in box.asking:
                box.asking.discard(asking)
                self._asking -= 1
                reply(answer)

        asking = Asking(self.loop, question, servers, done, tcp=tcp)
        box.asking.add(asking)
        self._asking += 1
        asking.go_on()

    def _datagrams(self, box: Box) -> None:
        for _ in range(AT_ONCE):
            try:
                raw, peer = box.udp.recvfrom(4096)
            except BlockingIOError:
                return
            except OSError:
                continue
            self.resolve(box, raw, _sender(box.udp, peer), tcp=False)

    def _connection(self, box: Box) -> None:
        try:
            made, _ = box.tcp.accept()
        except OSError:
            return
        if len(box.streams) >= STREAMS:
            made.close()
        else:
            box.streams.add(Stream(self, box, made))

    # Containers.

    def open(self, identity: str, servers: list[str], fds: list[int]) -> None:
        self.close(identity)
        udp, tcp = (socket.socket(fileno=fd) for fd in fds)
        for one in (udp, tcp):
            one.setblocking(False)
        box = self.boxes[identity] = Box(identity, servers, udp, tcp)
        self.loop.watch(udp.fileno(), READ, lambda: self._datagrams(box))
        self.loop.watch(tcp.fileno(), READ, lambda: self._connection(box))

    def watch(self, identity: str, pidfd: int) -> None:
        """Let go of a container when its first process ends: it may be that no daemon is there to say so."""
        if identity in self._pidfds or not self._serves(identity):
            os.close(pidfd)
            return
        self._pidfds[identity] = pidfd
        self.loop.watch(pidfd, READ, lambda: self._ended(identity))

    def _serves(self, identity: str) -> bool:
        return identity in self.boxes or any(one.container == identity for one in self.relays.values())

    def _ended(self, identity: str) -> None:
        self.unrelay([key for key, one in self.relays.items() if one.container == identity])
        self.close(identity)

    def close(self, identity: str) -> None:
        box = self.boxes.pop(identity, None)
        if box is not None:
            self._asking -= len(box.asking)
            for asking in list(box.asking):
                asking.close()
            box.asking.clear()
            for stream in list(box.streams):
                stream.close()
            for one in (box.udp, box.tcp):
                self.loop.forget(one.fileno())
                one.close()
        self._let_go(identity)

    def relay(self, key: str, wanted: dict[str, Any], fd: int) -> None:
        """Carry a published port; one that is carried already listens on the new socket."""
        if key not in self.relays:
            host, port = wanted["to"]
            self.relays[key] = Relay(self.loop, wanted["container"], wanted["proto"], (host, port))
        self.relays[key].hear(fd)

    def unrelay(self, keys: list[str]) -> None:
        for key in keys:
            found = self.relays.pop(key, None)
            if found is not None:
                found.close()
                self._let_go(found.container)

    def _let_go(self, identity: str) -> None:
        if identity in self._pidfds and not self._serves(identity):
            pidfd = self._pidfds.pop(identity)
            self.loop.forget(pidfd)
            os.close(pidfd)
        self._perhaps_end()

    def _perhaps_end(self) -> None:
        self.loop.over = self._control is None and not self.boxes and not self.relays

    # The daemon.

    def _accept(self) -> None:
        made, _ = self._listener.accept()
        if _PEER.unpack(made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1] != 0:
            made.close()
            return
        self.take(made)

    def take(self, control: socket.socket) -> None:
        """Listen to this daemon from now on, and to no other."""
        self._hang_up()
        self._control = control
        self.loop.watch(control.fileno(), READ, self._told)

    def _hang_up(self) -> None:
        if self._control is not None:
            self.loop.forget(self._control.fileno())
            self._control.close()
            self._control = None

    def _told(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            data, fds, _, _ = socket.recv_fds(control, 1 << 20, 4)
        except OSError:
            data, fds = b"", []
        if not data:
            self._hang_up()
            self._perhaps_end()
            return
        self._obey(json.loads(data), fds)

    def _obey(self, told: dict[str, Any], fds: list[int]) -> None:
        op = told["op"]
        if op == "put":
            for values in told["places"]:
                self.names.put(place(values))
        elif op == "drop":
            for key in told["places"]:
                self.names.drop(key)
        elif op == "open":
            self.open(told["container"], told["servers"], fds)
        elif op == "watch":
            self.watch(told["container"], fds[0])
        elif op == "close":
            self.close(told["container"])
        elif op == "relay":
            self.relay(told["key"], told, fds[0])
        elif op == "unrelay":
            self.unrelay(told["keys"])
            for fd in fds:  # by its end the daemon knows that the port is free again
                os.close(fd)
        elif op == "hello" and self._control is not None:
            have = {"containers": list(self.boxes), "places": self.names.keys(), "relays": list(self.relays)}
            self._control.send(json.dumps(have).encode())
        elif op == "quit":
            self.loop.over = True


def _sender(udp: socket.socket, peer: Any) -> Callable[[bytes], None]:
    def send(answer: bytes) -> None:
        try:
            udp.sendto(answer, peer)
        except OSError:
            pass  # it is gone, or does not read: UDP promises nothing

    return send


def main() -> None:
    """Serve until nobody is left to serve."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # with its group's: the daemon says when, or it goes when it is of no use
    os.setsid()
    with open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write("sampan-names")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.chdir("/")
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    server = Server(socket.socket(fileno=LISTENER))
    server.take(socket.socket(fileno=CONTROL))
    server.loop.run()
    sys.exit(0)
