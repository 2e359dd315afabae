"""A request's body: awaited by handlers, or a blocking file for a thread, always bounded.

The connection feeds it and pauses the client while more than HIGH bytes wait to be read.
"""

from __future__ import annotations

import asyncio
import errno
import io
from collections import deque
from collections.abc import Callable
from typing import BinaryIO, cast

from sampan.api.http1 import BadMessage, Chunks
from sampan.errors import InvalidRequest

HIGH = 1024 * 1024
LOW = 256 * 1024
STALL = 60.0  # seconds without a byte before a body is given up


class Body:
    """One body.  `flow(True)` pauses the client, `flow(False)` lets it go on; `ready` runs before the first read."""

    def __init__(self, length: int, chunked: bool, flow: Callable[[bool], None], ready: Callable[[], None]) -> None:
        self.length = length
        self.chunked = chunked
        self.ended = not chunked and length == 0
        self.empty = self.ended
        self.begun = False
        self.error: Exception | None = None
        self._left = length
        self._chunks = Chunks() if chunked else None
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._flow = flow
        self._ready = ready
        self._paused = False
        self._discarding = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes off the wire; return those after the body's end."""
        if self._chunks is None:
            rest = data[self._left :]
            pieces = [data[: self._left]] if rest else [data]
            self._left -= len(pieces[0])
            self.ended = self._left == 0
        else:
            try:
                pieces, rest = self._chunks.feed(data)
            except BadMessage as bad:
                self.fail(InvalidRequest(f"malformed body: {bad}"))
                return b""
            self.ended = self._chunks.ended
        if not self._discarding:
            for piece in pieces:
                if piece:
                    self._pieces.append(piece)
                    self._size += len(piece)
            if self._size > HIGH and not self.ended and not self._paused:
                self._paused = True
                self._flow(True)
        self._wake()
        return rest

    def fail(self, error: Exception) -> None:
        """End the body with `error`, now or when it is read next."""
        if self.error is None:
            self.error = error
        self._wake()

    def discard(self) -> None:
        """Read no more: what still comes is dropped."""
        self._discarding = True
        self._pieces.clear()
        self._size = 0
        self._resume()

    def small_rest(self) -> bool:
        """True when what is left is so little that it is cheaper to read it than to close."""
        return self._chunks is None and self._left <= LOW

    def begin(self) -> None:
        """The body is wanted: a client that waits for 100 Continue may go on."""
        if not self.begun:
            self.begun = True
            self._ready()

    async def some(self) -> bytes:
        """The next bytes, b"" at the end.  Raises InvalidRequest, ConnectionError, or TimeoutError after STALL."""
        self.begin()
        while not self._pieces and not self.ended and self.error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(STALL):
                    await self._waiter
            except TimeoutError:
                raise TimeoutError(errno.ETIMEDOUT, "request body stalled") from None
            finally:
                self._waiter = None
        if self.error is not None:
            raise self.error
        if not self._pieces:
            return b""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._resume()
        return data

    async def all(self, limit: int) -> bytes:
        """The whole body.  Raises InvalidRequest when it is longer than `limit`."""
        if self.length > limit:
            raise TooLarge(f"request body is larger than {limit} bytes")
        pieces: list[bytes] = []
        size = 0
        while piece := await self.some():
            size += len(piece)
            if size > limit:
                raise TooLarge(f"request body is larger than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def file(self, loop: asyncio.AbstractEventLoop) -> BinaryIO:
        """A blocking reader for another thread than `loop`'s; close it, or let `fail` end it."""
        return cast(BinaryIO, io.BufferedReader(_BodyFile(self, loop), 256 * 1024))

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._flow(False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TooLarge(InvalidRequest):
    """More than the endpoint takes."""


class _BodyFile(io.RawIOBase):
    def __init__(self, body: Body, loop: asyncio.AbstractEventLoop) -> None:
        self._body = body
        self._loop = loop
        self._have = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # typeshed wants any buffer
        if not self._have:
            data = asyncio.run_coroutine_threadsafe(self._body.some(), self._loop).result(STALL * 2)
            self._have = memoryview(data)
        count = min(len(buffer), len(self._have))
        buffer[:count] = self._have[:count]
        self._have = self._have[count:]
        return count
