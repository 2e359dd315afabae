"""One client's connection: heads and bodies in, answers out, one request at a time.

A connection is reading a head, serving a request (its body may still be arriving), closing (what comes is dropped
until the client has read our answer), or taken over by a hijack.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from sampan.api.body import Body
from sampan.api.http1 import HEAD_LIMIT, BadMessage, parse_head
from sampan.api.request import Request, refusal

if TYPE_CHECKING:
    from sampan.api.server import Server

HEAD_DEADLINE = 20.0  # seconds from a head's first byte to its last
IDLE_DEADLINE = 3600.0  # seconds between requests
LINGER = 2.0  # seconds for the client to read an answer before a close
PIPELINE = 64 * 1024  # bytes read ahead while a request is served
WRITE_HIGH = 512 * 1024

log = logging.getLogger("sampan.api")


class Connection(asyncio.Protocol):
    """A client, from accept to close or takeover."""

    def __init__(self, server: Server, loopback: bool) -> None:
        self.server = server
        self.loopback = loopback  # plain TCP on a loopback address: browsers can be led here
        self.loop = server.loop
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.request: Request | None = None
        self.task: asyncio.Task[None] | None = None
        self.deadline = 0.0
        self.streaming = False  # a head is out and its end is not
        self._buffer = bytearray()
        self._body: Body | None = None
        self._reading = True
        self._ended = False  # the client has shut its side
        self._lost = False
        self._closing = False
        self._taken = False
        self._full = False
        self._drained: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(WRITE_HIGH)
        self.deadline = self.loop.time() + HEAD_DEADLINE
        if not self.server.admit(self):
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self.server.forget(self)
        self._left()

    def _left(self) -> None:
        """The client is gone: nothing waits for it any more."""
        gone = ConnectionResetError("client has left")
        if self._body is not None:
            self._body.fail(gone)
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(gone)
        if self.task is not None and self.request is not None and self.request.cancellable:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._body is not None:
            data = self._body.feed(data)
            if self._body.ended or self._body.error is not None:
                self._body = None
        if data:
            self._buffer += data
        if self.task is None:
            self._next()
        elif len(self._buffer) > PIPELINE:
            self._flow(True)

    def eof_received(self) -> bool:
        self._ended = True
        if self._closing or self.task is None:
            return False
        if self.request is not None and self.request.cancellable:
            self._left()
            return False
        if self._body is not None:
            self._body.fail(ConnectionResetError("client ended in the middle of a body"))
            self._body = None
        return True

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def write(self, data: bytes) -> None:
        if not self._lost and not self._closing:
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait while the client is slow.  Raises ConnectionError when it has left."""
        if self._lost or self._closing or self.transport.is_closing():
            raise ConnectionResetError("client has left")
        if self._full:
            self._drained = self.loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    def takeover(self) -> tuple[asyncio.Transport, bytes, bool]:
        """Give the transport away, paused: with what was read ahead, and whether the client has shut its side."""
        if self._lost or self._closing:
            raise ConnectionResetError("client has left")
        self._flow(True)
        self._taken = True
        self.server.forget(self)
        early = bytes(self._buffer)
        self._buffer.clear()
        return self.transport, early, self._ended

    def end(self) -> None:
        """The server stops: an idle connection closes, a stream ends, other work is finished first."""
        if self.task is None:
            self._close()
        elif self.request is not None:
            self.request.head.keep_alive = False
            if self.request.cancellable:
                self.task.cancel()

    def expire(self, now: float) -> None:
        """Close when a deadline has passed."""
        if self.task is None and now > self.deadline:
            if self._closing or not self._buffer:
                self.transport.abort()
            else:
                self._refuse(408, "request head did not arrive in time")

    def _flow(self, stop: bool) -> None:
        if self._lost or self.transport.is_closing():
            return
        if stop and self._reading:
            self._reading = False
            self.transport.pause_reading()
        elif not stop and not self._reading and not self._taken:
            self._reading = True
            self.transport.resume_reading()

    def _next(self) -> None:
        """Begin the next request if its whole head is here."""
        buffer = self._buffer
        if self._lost or self._body is not None:
            return
        if buffer.startswith(b"\r\n"):
            del buffer[:2]
        end = buffer.find(b"\r\n\r\n", 0, HEAD_LIMIT)
        if end < 0:
            self._partial()
            return
        try:
            parsed = parse_head(bytes(buffer[:end]))
        except BadMessage as bad:
            self._refuse(bad.status, str(bad))
            return
        body = Body(parsed.length, parsed.chunked, self._flow, self._continue)
        rest = bytes(buffer[end + 4 :])
        if rest and not body.ended:
            rest = body.feed(rest)
        self._buffer = bytearray(rest)
        self._body = None if body.ended else body
        if self._body is not None and self._ended:
            body.fail(ConnectionResetError("client ended in the middle of a body"))
        self.request = Request(self, parsed, body, self.server.engine)
        self.task = self.loop.create_task(self._serve(self.request))

    def _partial(self) -> None:
        """Wait for the rest of a head, unless there can be none."""
        buffer = self._buffer
        newline = buffer.find(b"\n")
        if buffer and (not chr(buffer[0]).isalpha() or (newline >= 0 and buffer[newline - 1 : newline] != b"\r")):
            self._refuse(400, "malformed request line")
        elif b"\n\n" in buffer:
            self._refuse(400, "malformed header")
        elif len(buffer) >= HEAD_LIMIT:
            self._refuse(431, "request head too large")
        elif self._ended:
            self._close()
        elif not buffer:
            self.deadline = self.loop.time() + IDLE_DEADLINE
        else:
            self.deadline = min(self.deadline, self.loop.time() + HEAD_DEADLINE)

    def _continue(self) -> None:
        request = self.request
        if request is not None and request.head.minor and "expect" in request.head.headers and not request.body.ended:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _serve(self, request: Request) -> None:
        broken = False
        try:
            response = await self.server.handle(request)
            if response is not None:
                self._finish_early(request)
                self.write(response.encode(self.server.common, request.head.keep_alive, with_body=request.method != "HEAD"))
        except (asyncio.CancelledError, ConnectionError, TimeoutError):
            broken = True
        except Exception:  # the last resort: the server lives on
            log.exception("connection failed")
            broken = True
        self.task = None
        self.request = None
        self._served(request, broken)

    def _finish_early(self, request: Request) -> None:
        """A body that nobody will read: a short one is dropped as it comes, a long one ends the connection."""
        body = request.body
        if body.ended and body.error is None:
            return
        waits = "expect" in request.head.headers and not body.begun
        if body.error is not None or waits or not body.small_rest():
            request.head.keep_alive = False

    def _served(self, request: Request, broken: bool) -> None:
        body = request.body
        body.discard()
        if self._taken:
            return
        if not body.ended and (broken or not request.head.keep_alive):
            body.fail(ConnectionResetError("the request has been answered"))
        if broken or self.streaming:
            self._closing = True
            self.transport.close()
            self.loop.call_later(LINGER, self.transport.abort)
        elif not request.head.keep_alive:
            self._close()
        else:
            self._flow(False)
            self.deadline = self.loop.time() + IDLE_DEADLINE
            if self._buffer or self._ended:
                self._next()

    def _refuse(self, status: int, text: str) -> None:
        self.write(refusal(status, text, plain=True).encode(b"", keep_alive=False))
        self._close()

    def _close(self) -> None:
        """Close so that the client still reads the answer: shut our side, drop what comes, then let go."""
        if self._closing or self._lost:
            return
        self._closing = True
        self._buffer.clear()
        self._body = None
        self.deadline = self.loop.time() + LINGER
        if self._ended or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self._flow(False)
        self.loop.call_later(LINGER, self.transport.abort)
