"""Takeovers: a client's connection becomes a pipe to a process (engine-api 2.1).

Bytes go straight from socket to socket in pieces of up to 256 KiB.  Whoever is slow makes the other wait: the client is
not read while the process's socket is full, the process is not read while the client's buffer is.  Either side may end its
direction alone.  The client's leaving closes our end of the stream and ends no process.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable

from sampan.api.backend import AttachStream
from sampan.api.request import Request, raw_head
from sampan.wire.frames import STDOUT, frame

PIECE = 256 * 1024
LAST_WORDS = 5.0  # seconds for the process to take what a client that has gone had said
MULTIPLEXED = b"application/vnd.docker.multiplexed-stream"
RAW = b"application/vnd.docker.raw-stream"


def stream_type(request: Request, tty: bool, upgraded: bool) -> bytes:
    """Multiplexed is announced from 1.42 on, without a TTY, and only where there was an upgrade (or for logs)."""
    return MULTIPLEXED if request.version >= (1, 42) and not tty and upgraded else RAW


class Escape:
    """Finds the detach keys in what a client types; a part that may begin them waits for the next bytes."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what to pass on, and whether the keys were typed."""
        keys = self._keys
        if not keys or (not self._held and keys[:1] not in data):
            return data, False
        data = self._held + data
        at = data.find(keys)
        if at >= 0:
            self._held = b""
            return data[:at], True
        kept = next((n for n in range(min(len(keys) - 1, len(data)), 0, -1) if data.endswith(keys[:n])), 0)
        self._held = data[len(data) - kept :]
        return data[: len(data) - kept], False

    def rest(self) -> bytes:
        held, self._held = self._held, b""
        return held


def take(request: Request, tty: bool, *, with_common: bool = False) -> Pump:
    """Write the head of a takeover and own the connection from here on.  Raises ConnectionError."""
    upgraded = request.has("upgrade")
    lines = b"Content-Type: " + stream_type(request, tty, upgraded) + b"\r\n"
    if upgraded:
        lines += b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
    if with_common:
        lines += "".join(f"{name}: {value}\r\n" for name, value in request.connection.server.common.items()).encode()
    return Pump(request, tty, raw_head(101 if upgraded else 200, lines))


async def attach(request: Request, stream: AttachStream, keys: bytes) -> None:
    """Take the connection over for `stream`, until either has ended."""
    try:
        taken = take(request, stream.tty)
    except BaseException:
        stream.close()
        raise
    await taken.pump(stream, keys if stream.tty else b"")


async def refuse(request: Request, status: int, text: str) -> None:
    """Say no to an attach: a raw head, the text in plain, the end."""
    lines = b"Content-Type: " + RAW + b"\r\n"
    transport, _, _ = request.takeover()
    message = text.encode("utf-8", "backslashreplace")
    transport.write(raw_head(status, lines) + message + b"\r\n")
    _Leaving(transport, request.connection.server.leaving)


class _Leaving(asyncio.Protocol):
    """Ends a connection so that the client can still read the last words."""

    LINGER = 2.0

    def __init__(self, transport: asyncio.Transport, leaving: set[asyncio.Transport]) -> None:
        self._leaving = leaving
        self._transport = transport
        leaving.add(transport)
        transport.set_protocol(self)
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()
        asyncio.get_running_loop().call_later(self.LINGER, transport.abort)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._leaving.discard(self._transport)


class Hangups:
    """Tells when a peer has gone altogether, which asyncio does not notice after an end of input or while not reading.

    epoll(7) reports EPOLLHUP without being asked, and a shutdown of one direction is not one: so nothing else is asked for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._events)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._callbacks[fd] = callback
        self._epoll.register(fd, 0)

    def unwatch(self, fd: int, callback: Callable[[], None]) -> None:
        """Watch no more; a number that has become another connection's meanwhile is left alone."""
        if self._callbacks.get(fd) == callback:
            del self._callbacks[fd]
            try:
                self._epoll.unregister(fd)
            except OSError:  # closed already, and so forgotten by the kernel
                pass

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _events(self) -> None:
        for fd, _ in self._epoll.poll(0):
            callback = self._callbacks[fd]
            self.unwatch(fd, callback)
            callback()


class Pump(asyncio.Protocol):
    """A connection after its takeover: paused until `pump` joins it to a stream, or `fail` ends it with words."""

    def __init__(self, request: Request, tty: bool, head: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._tty = tty
        self._transport, early, self._client_ended = request.takeover()
        self._transport.write(head)
        self._pending = early  # typed by the client, not yet taken by the process
        self._stream: AttachStream | None = None
        self._fd = -1
        self._escape = Escape(b"")
        self._reading = False  # the process's output
        self._full = False  # the client's buffer
        self._input_open = True
        self._lost = False
        self._hung = False
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._transport.set_protocol(self)
        self._leaving = request.connection.server.leaving
        self._forget = request.connection.server.took(self)
        self._hangups = request.connection.server.hangups
        self._client = self._transport.get_extra_info("socket").fileno()
        self._hangups.watch(self._client, self._hung_up)

    async def pump(self, stream: AttachStream, keys: bytes) -> None:
        """Carry bytes both ways until the stream's output ends, the client leaves, or the keys are typed."""
        self._stream = stream
        self._fd = stream.fileno()
        self._escape = Escape(keys)
        try:
            if not self._lost:
                self._start()
                await self._done
        finally:
            self._stop()
            stream.close()

    def fail(self, text: str) -> None:
        """End the connection with `text` as the process's output."""
        if text and not self._lost:
            data = text.encode("utf-8", "backslashreplace") + b"\r\n"
            self._transport.write(data if self._tty else frame(STDOUT, data))
        self._stop()

    def end(self) -> None:
        """The server stops."""
        if self._stream is None:
            self._stop()
        else:
            self._finish()

    def _start(self) -> None:
        early, self._pending = self._pending, b""
        self._read(True)
        if early:
            self.data_received(early)
        if self._client_ended:
            self.eof_received()
        self._resume()

    # The client's side.

    def data_received(self, data: bytes) -> None:
        data, detached = self._escape.feed(data)
        if self._input_open and data:
            self._send(data)
        if detached and self._stream is not None:
            self._stream.detached()
            self._finish()

    def eof_received(self) -> bool:
        self._client_ended = True
        rest = self._escape.rest()
        if rest and self._input_open and self._stream is not None:
            self._send(rest)
        if self._stream is not None and not self._pending:
            self._end_input()
            if self._hung:
                self._finish()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._hangups.unwatch(self._client, self._hung_up)
        self._lost = True
        self._finish()

    def _hung_up(self) -> None:
        """The client is gone in both directions; what it has said before is still passed on."""
        self._hung = True
        if self._pending or not self._client_ended:
            self._loop.call_later(LAST_WORDS, self._finish)
        else:
            self._finish()

    def pause_writing(self) -> None:
        self._full = True
        self._read(False)

    def resume_writing(self) -> None:
        self._full = False
        self._read(True)

    # The process's side.

    def _send(self, data: bytes) -> None:
        """Give the process `data`; what it does not take now waits, and the client with it."""
        if self._pending:
            self._pending += data
            return
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:  # EPIPE: it reads no more; the output goes on
            self._input_open = False
            return
        if sent < len(data):
            self._pending = data[sent:]
            self._transport.pause_reading()
            self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        try:
            sent = os.write(self._fd, self._pending)
        except BlockingIOError:
            return
        except OSError:
            self._input_open = False
            sent = len(self._pending)
        self._pending = self._pending[sent:]
        if not self._pending:
            self._loop.remove_writer(self._fd)
            if self._client_ended:
                self._end_input()
                if self._hung:
                    self._finish()
            self._resume()

    def _end_input(self) -> None:
        if self._input_open and self._fd >= 0:
            self._input_open = False
            with socket.socket(fileno=os.dup(self._fd)) as sock:
                try:
                    sock.shutdown(socket.SHUT_WR)
                except OSError:  # the other end has gone already
                    pass

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._transport.write(data)
        else:
            self._finish()

    def _read(self, on: bool) -> None:
        if on != self._reading and self._fd >= 0 and not self._done.done():
            if on and not self._full:
                self._loop.add_reader(self._fd, self._readable)
                self._reading = True
            elif not on:
                self._loop.remove_reader(self._fd)
                self._reading = False

    def _resume(self) -> None:
        if not self._lost and not self._pending and not self._transport.is_closing():
            self._transport.resume_reading()

    # The end.

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _stop(self) -> None:
        self._forget()
        self._hangups.unwatch(self._client, self._hung_up)
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
        self._reading = False
        self._stream = None
        self._finish()
        if not self._lost:
            self._lost = True
            _Leaving(self._transport, self._leaving)
