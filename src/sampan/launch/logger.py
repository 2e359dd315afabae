"""A log that may be slow, in a process of its own: the syslog driver, and every driver with mode=non-blocking.

The keeper sends whole lines over a socket; blocking, the container's output waits while the socket and a megabyte are full;
non-blocking, lines are dropped and counted when max-buffer-size bytes wait.  The process ends with the keeper's end of the
socket, after it has written what it got.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from sampan.kernel.fds import keep_only
from sampan.kernel.process import set_name
from sampan.launch.loop import GONE, READ, WRITE, Loop
from sampan.logs.lines import Lines

_HEAD = struct.Struct(">BQI")
_STREAMS = ("stdout", "stderr")
_ROOM = 1 << 20
_PATIENCE = 10.0  # seconds that the log may take, at the container's end, to take what waits


class Driver(Protocol):
    """A log driver's writer."""

    lost: int

    def write(self, stream: str, data: bytes, now_ns: int) -> None: ...
    def close(self) -> None: ...


class Log(Driver, Protocol):
    """What the keeper writes to: a driver, or the link to one.  lines: what is cut into lines here."""

    lines: Lines


class Link:
    """The keeper's end.  on_room: called when `full` has ended."""

    def __init__(self, loop: Loop, make: Callable[[], Driver], keep: list[int], buffer: int) -> None:
        """Start the process, in which `make` gives the driver from the descriptors in `keep`.  Raises OSError."""
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            _serve(theirs, make, keep)
        theirs.close()
        ours.settimeout(_PATIENCE)
        try:
            if ours.recv(1) != b"+":
                raise OSError(errno.EIO, "its writer could not begin")
        except OSError:
            ours.close()
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise
        ours.setblocking(False)
        self._socket: socket.socket | None = ours
        self._loop, self._buffer = loop, buffer
        self.lines = Lines()
        self._pending = bytearray()
        self._was_full = False
        self.lost = 0
        self.on_room: Callable[[], None] = lambda: None

    @property
    def full(self) -> bool:
        """Whether no output should be read for now."""
        return not self._buffer and len(self._pending) >= _ROOM

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """Take output as it came."""
        lines, pieces = self.lines.take(stream, data)
        for body in (lines, *pieces):
            if body:
                self._put(stream, body, now_ns)

    def _put(self, stream: str, body: bytes, now_ns: int) -> None:
        fits = len(body)
        if self._socket is None:
            fits = 0
        elif self._buffer:
            room = self._buffer - len(self._pending) - _HEAD.size
            fits = len(body) if len(body) <= room else body.rfind(b"\n", 0, max(0, room)) + 1
        if fits < len(body):
            self.lost += body.count(b"\n", fits) + (not body.endswith(b"\n"))
        if fits:
            self._pending += _HEAD.pack(_STREAMS.index(stream), now_ns, fits)
            self._pending += body[:fits]
            self._flush()

    def _flush(self) -> None:
        while self._pending and self._socket is not None:
            try:
                sent = self._socket.send(self._pending[: 1 << 16])
            except BlockingIOError:
                break
            except OSError:
                self._gone()
                return
            del self._pending[:sent]
        if self._socket is not None:
            if self._pending:
                self._loop.watch(self._socket.fileno(), WRITE, self._ready)
            else:
                self._loop.forget(self._socket.fileno())
        was, self._was_full = self._was_full, self.full
        if was and not self._was_full:
            self.on_room()

    def _ready(self, events: int) -> None:
        if events & GONE and not events & WRITE:
            self._gone()
        else:
            self._flush()

    def _gone(self) -> None:
        """The process has died: the container goes on, its lines are lost."""
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self.lost += self._pending.count(b"\n")
        self._pending.clear()
        self.on_room()

    def close(self) -> None:
        """Let it write what waits, ten seconds at most; a second call does nothing."""
        for stream, line in self.lines.rest():
            self._put(stream, line, time.time_ns())
        if self._socket is None:
            return
        connection, self._socket = self._socket, None
        self._loop.forget(connection.fileno())
        end = time.monotonic() + _PATIENCE
        told = False
        poller = select.poll()
        while (left := end - time.monotonic()) > 0:
            if not self._pending and not told:
                connection.shutdown(socket.SHUT_WR)
                told = True
            poller.register(connection.fileno(), READ if told else WRITE)
            if not poller.poll(left * 1000):
                break
            try:
                if told:
                    self.lost += int.from_bytes(connection.recv(8), "big")
                    break
                del self._pending[: connection.send(self._pending[: 1 << 16])]
            except BlockingIOError:
                continue
            except OSError:
                break
        else:
            os.kill(self._pid, signal.SIGKILL)
        self.lost += self._pending.count(b"\n")
        self._pending.clear()
        connection.close()
        self._reap()

    def _reap(self) -> None:
        try:
            if os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                os.kill(self._pid, signal.SIGKILL)  # it has said its last word, or never will
                os.waitpid(self._pid, 0)
        except (ChildProcessError, ProcessLookupError):
            pass


def _serve(connection: socket.socket, make: Callable[[], Driver], keep: list[int]) -> None:
    """Write what comes until the keeper's end is closed; never returns."""
    try:
        keep_only([0, 1, 2, connection.fileno(), *keep])
        set_name("sampan-logger")
        driver = make()
        connection.send(b"+")
        stream = connection.makefile("rb", 1 << 17)
        while len(head := stream.read(_HEAD.size)) == _HEAD.size:
            kind, now_ns, size = _HEAD.unpack(head)
            driver.write(_STREAMS[kind], stream.read(size), now_ns)
        driver.close()
        connection.send(driver.lost.to_bytes(8, "big"))
    finally:
        os._exit(0)
