"""A process's stdio as the keeper carries it: output to the log and to attachments, input from attachments.

Lossless: output is read only while every attachment has room (1 MiB each), so the client that started the process slows it
down, as a terminal or a pipe does.  Who came later may do so for ten seconds, in which it must take a megabyte; else it gets
what waits for it, is told, and let go.  A client that has gone is dropped.  Framing: engine-api.md 2.2.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial

from sampan.errors import SampanError
from sampan.kernel.fds import Fd
from sampan.launch.logger import Link, Log
from sampan.launch.loop import GONE, READ, WRITE, Loop
from sampan.messages import Attachment

_CHUNK = 64 * 1024
_ROOM = 1 << 20
_PATIENCE = 10.0  # seconds
STDOUT, STDERR, SYSTEM = 1, 2, 3
_LET_GO = b"attach: this client was too slow: more than 1 MiB waited for it for 10 seconds; `logs` has the rest\n"
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Client:
    """One attachment.  late: it came after the process's start, and may not make it wait for long."""

    def __init__(self, fd: Fd, wanted: Attachment, late: bool) -> None:
        self.fd = fd
        self.late = late
        self.taken = 0  # bytes since it was last looked at
        self.watched = False
        self.leaving = False  # with the last of what waits for it
        self.streams = {STDOUT} if wanted.stdout else set()
        if wanted.stderr:
            self.streams.add(STDERR)
        self.stdin = wanted.stdin
        self.pending = bytearray()
        self.gate: Fd | None = None  # while there is one, nothing is sent


class Stdio:
    """The three streams of one process; owns every descriptor given to it."""

    def __init__(
        self, loop: Loop, *, terminal: bool, log: Callable[[], Log | Link | None] | None = None, stdin_once: bool = True
    ) -> None:
        self._loop = loop
        self._terminal = terminal
        self._open_log = log
        self._log: Log | Link | None = None
        self.lost_lines = 0  # of the log
        self._stdin_once = stdin_once
        self._outputs: dict[int, Fd] = {}
        self._input: Fd | None = None
        self._to_process = bytearray()
        self._close_input = False
        self._clients: list[Client] = []
        self._started = False
        self._paused = False
        self._moment = 0  # of what was logged last; the clock may be set back, this never goes back
        self.ended = False
        self.on_drained: Callable[[], None] | None = None
        self.master: Fd | None = None

    def set_pipes(self, stdin: Fd | None, stdout: Fd, stderr: Fd) -> None:
        """Carry pipes: the writing end of stdin, the reading ends of the others."""
        self._input = stdin
        self._outputs = {STDOUT: stdout, STDERR: stderr}

    def set_terminal(self, master: Fd) -> None:
        """Carry a terminal: its master end."""
        self.master = self._input = master
        self._outputs = {STDOUT: master}

    def start(self) -> None:
        """Begin to read and write; who is attached from here on is late."""
        self._started = True
        for fd in {*self._outputs.values(), *([self._input] if self._input else [])}:
            os.set_blocking(fd.fileno(), False)
        self._update()

    def attach(self, fd: Fd, wanted: Attachment, gate: Fd | None = None) -> None:
        """Add a client.  After the end it is closed at once.  gate: see messages.Attach."""
        client = Client(fd, wanted, self._started)
        os.set_blocking(fd.fileno(), False)
        if client.stdin and self._input is None:
            client.stdin = False
        self._clients.append(client)
        if gate is not None:
            self._hold(client, gate)
        elif self.ended:
            self._flush(client)
        else:
            self._watch(client)

    def _hold(self, client: Client, gate: Fd) -> None:
        """Say what the log has so far, and keep the rest for the client until the daemon has sent it that."""
        client.gate = gate
        self._moment = max(time.time_ns(), self._moment)
        log = None if self.ended else self._log
        for stream in sorted(client.streams):
            unfinished = log.lines.unfinished(_NAMES[stream]) if log is not None else b""
            if unfinished:
                client.pending += self._framed(stream, unfinished)
        self._loop.watch(gate.fileno(), READ, lambda _: self._let_go(client, gate))
        try:
            os.write(gate.fileno(), self._moment.to_bytes(8, "big"))
        except OSError:  # the daemon has gone, and the client with it
            self._drop(client)
            return
        self._watch(client)

    def _let_go(self, client: Client, gate: Fd) -> None:
        try:
            told = os.read(gate.fileno(), 1)
        except OSError:
            told = b""
        if told != b"+":
            self._drop(client)
            return
        self._open_gate(client)
        self._flush(client)

    def _open_gate(self, client: Client) -> None:
        gate, client.gate = client.gate, None
        if gate is not None:
            self._loop.forget(gate.fileno())
            gate.close()

    def finish(self) -> None:
        """The process has ended: take what is still in the pipes, then let clients go as they drain."""
        for stream in list(self._outputs):
            while self._read(stream):
                pass
            self._end_output(stream)
        self._drop_input()
        self.ended = True
        for client in list(self._clients):
            client.stdin = False
            self._flush(client)
        self._close_log()

    def _close_log(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            try:
                log.close()
            except OSError:
                pass
            self.lost_lines = log.lost

    @property
    def takes_input(self) -> bool:
        return self._input is not None

    @property
    def drained(self) -> bool:
        return not self._clients

    # The process's side.

    def _update(self) -> None:
        """Watch what can be worked on now: reading stops while a client is full."""
        room = not self._paused
        writing = bool(self._to_process)
        for stream, fd in self._outputs.items():
            events = (READ if room else 0) | (WRITE if fd is self._input and writing else 0)
            self._loop.watch(fd.fileno(), events, partial(self._process_ready, stream))
        if self._input is not None and self._input is not self.master:
            if writing:
                self._loop.watch(self._input.fileno(), WRITE, lambda _: self._write_input())
            else:
                self._loop.forget(self._input.fileno())

    def _process_ready(self, stream: int, seen: int) -> None:
        if seen & WRITE:
            self._write_input()
        if seen & (READ | GONE) and stream in self._outputs:
            if self._paused:
                if seen & GONE:  # a hang-up would wake us for ever: what is left fits in the pipe's buffer
                    while self._read(stream):
                        pass
                    self._end_output(stream)
                return
            self._read(stream)

    def _read(self, stream: int) -> bool:
        """Read once; return whether there may be more."""
        fd = self._outputs.get(stream)
        if fd is None:
            return False
        try:
            data = os.read(fd.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the terminal's other end is closed
                raise
            data = b""
        if not data:
            self._end_output(stream)
            return False
        self._keep(stream, data)
        framed = self._framed(stream, data)
        for client in list(self._clients):
            if stream in client.streams:
                client.pending += framed
                self._flush(client)
        return True

    def _framed(self, stream: int, data: bytes) -> bytes:
        return data if self._terminal else b"%c\0\0\0%b%b" % (stream, len(data).to_bytes(4, "big"), data)

    def _keep(self, stream: int, data: bytes) -> None:
        """Write to the log.  It is opened with the first output: a container that says nothing costs nothing."""
        try:
            if self._open_log is not None:
                opening, self._open_log = self._open_log, None
                self._log = opening()
                if isinstance(self._log, Link):
                    self._log.on_room = self._check_room
            if self._log is not None:
                self._moment = max(time.time_ns(), self._moment + 1)
                self._log.write(_NAMES[stream], data, self._moment)
                if isinstance(self._log, Link) and self._log.full:
                    self._check_room()
        except (OSError, SampanError):
            pass  # a full disk loses log lines; it must not end the container

    def _end_output(self, stream: int) -> None:
        fd = self._outputs.pop(stream, None)
        if fd is not None:
            self._loop.forget(fd.fileno())
            if fd is not self._input:
                fd.close()

    def _write_input(self) -> None:
        if self._input is None:
            return
        while self._to_process:
            try:
                written = os.write(self._input.fileno(), self._to_process[:_CHUNK])
            except BlockingIOError:
                break
            except OSError:  # nobody reads any more (EPIPE), or the terminal is gone (EIO)
                self._drop_input()
                return
            del self._to_process[:written]
        if not self._to_process and self._close_input:
            self._drop_input()
            return
        self._update()
        self._watch_stdin()

    def _drop_input(self) -> None:
        self._to_process.clear()
        fd, self._input = self._input, None
        if fd is not None and fd is not self.master:
            self._loop.forget(fd.fileno())
            fd.close()
        for client in self._clients:
            if client.stdin:
                client.stdin = False
                self._watch(client)

    # The clients' side.

    def _watch(self, client: Client) -> None:
        reading = client.stdin and len(self._to_process) < _CHUNK
        events = (READ if reading else 0) | (WRITE if client.pending and client.gate is None else 0)
        self._loop.watch(client.fd.fileno(), events, lambda seen: self._client_ready(client, seen))

    def _watch_stdin(self) -> None:
        for client in self._clients:
            if client.stdin:
                self._watch(client)

    def _client_ready(self, client: Client, seen: int) -> None:
        if seen & (READ | GONE) and client.stdin:
            if len(self._to_process) >= _CHUNK:
                self._loop.forget(client.fd.fileno())  # a hang-up would wake us for ever; _write_input comes back for it
                return
            self._read_client(client)
            if client.stdin and seen & GONE:
                return  # bytes may be left: come back for them before it is dropped
        if client not in self._clients:
            return
        if seen & GONE and not client.stdin:
            self._drop(client)
        elif seen & WRITE:
            self._flush(client)

    def _read_client(self, client: Client) -> None:
        try:
            data = os.read(client.fd.fileno(), _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._to_process += data
            self._write_input()
            return
        client.stdin = False
        self._watch(client)
        if self._stdin_once and not self._terminal:
            self._close_input = True
            self._write_input()

    def _flush(self, client: Client) -> None:
        if client.gate is not None:
            self._check_room()
            return
        while client.pending:
            try:
                sent = os.write(client.fd.fileno(), client.pending[:_CHUNK])
            except BlockingIOError:
                break
            except OSError:
                self._drop(client)
                return
            del client.pending[:sent]
            client.taken += sent
        if (self.ended or client.leaving) and not client.pending:
            self._drop(client)
            return
        self._watch(client)
        self._check_room()

    def _drop(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        self._open_gate(client)
        self._loop.forget(client.fd.fileno())
        client.fd.close()
        if client.stdin and self._stdin_once and not self._terminal:
            self._close_input = True
            self._write_input()
        self._check_room()
        if self.ended and not self._clients and self.on_drained is not None:
            self.on_drained()

    def _check_room(self) -> None:
        full = [client for client in self._clients if len(client.pending) >= _ROOM and not client.leaving]
        for client in full:
            if client.late and not client.watched:
                self._look_later(client)
        paused = bool(full) or (isinstance(self._log, Link) and self._log.full)
        if paused != self._paused:
            self._paused = paused
            self._update()

    def _look_later(self, client: Client) -> None:
        client.watched, client.taken = True, 0
        self._loop.after(_PATIENCE, partial(self._look_at, client))

    def _look_at(self, client: Client) -> None:
        """A while ago the process began to wait for this client: let it go if it has taken too little since."""
        client.watched = False
        if client not in self._clients or self.ended or len(client.pending) < _ROOM - 2 * _CHUNK:
            return
        if client.taken >= _ROOM:
            self._look_later(client)
            return
        client.streams.clear()
        client.stdin, client.leaving = False, True
        if not self._terminal:
            client.pending += self._framed(SYSTEM, _LET_GO)
        self._watch(client)
        self._check_room()

    def close(self) -> None:
        """Let go of everything at once."""
        for stream in list(self._outputs):
            self._end_output(stream)
        self._drop_input()
        if self.master is not None:
            self.master.close()
        for client in list(self._clients):
            self._drop(client)
        self._close_log()
