"""A request's body: awaited by handlers, or a blocking file for a thread, always bounded.

aiohttp's parser feeds it and pauses the client while much waits to be read.
"""

from __future__ import annotations

import asyncio
import errno
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from sampan.errors import InvalidRequest

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

HIGH = 512 * 1024  # bytes that may wait for the handler
SMALL = 256 * 1024  # a rest that is cheaper to read than to close for
STALL = 60.0  # seconds without a byte before a body is given up


class TooLarge(InvalidRequest):
    """More than the endpoint takes."""


class Body:
    """One body; `ready` runs before the first read."""

    def __init__(self, raw: BaseRequest, ready: Callable[[], None]) -> None:
        self.length = raw.content_length or 0
        self.chunked = "transfer-encoding" in raw.headers
        self.empty = raw.content.at_eof()
        self.begun = False
        self._content = raw.content
        self._ready = ready

    @property
    def arrived(self) -> bool:
        """All of it is here, read or not."""
        return self._content.is_eof()

    def begin(self) -> None:
        """The body is wanted: a client that waits for 100 Continue may go on."""
        if not self.begun:
            self.begun = True
            self._ready()

    async def some(self) -> bytes:
        """The next bytes, b"" at the end.  Raises InvalidRequest, ConnectionError, or TimeoutError after STALL."""
        if self._content.at_eof():
            return b""
        self.begin()
        try:
            async with asyncio.timeout(STALL):
                return await self._content.readany()
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, "request body stalled") from None
        except RuntimeError as error:  # aiohttp's word for a connection that has gone before the read
            raise ConnectionResetError("client has left") from error

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
        """A blocking reader for another thread than `loop`'s; the client's leaving ends it with an error."""
        return cast(BinaryIO, io.BufferedReader(_BodyFile(self, loop), 256 * 1024))


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
