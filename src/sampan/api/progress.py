"""Streams of JSON progress messages: one object and CRLF each, sent at once, failures in-band (engine-api 2.4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from sampan.api.errors import message_of
from sampan.api.request import Request, Stream
from sampan.errors import SampanError
from sampan.wire import images as i

KIND = b"application/json"

UPLOADS = 4  # uploads that may hold a thread at a time: slow clients wait for each other, not everybody for them


class Uploads:
    """Lets a few uploads through at a time."""

    def __init__(self) -> None:
        self._gates: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    def gate(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        for old in [one for one in self._gates if one.is_closed()]:
            del self._gates[old]
        return self._gates.setdefault(loop, asyncio.Semaphore(UPLOADS))


uploads = Uploads()


def encode(message: i.Progress) -> bytes:
    """A message as Go's encoder writes it: <, > and & escaped (they occur in strings only)."""
    data = msgspec.json.encode(message)
    for raw, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        if raw in data:
            data = data.replace(raw, escaped)
    return data + b"\r\n"


async def send(request: Request, messages: AsyncIterator[i.Progress], *, in_band: bool = False) -> None:
    """Send every message.  A failure before the first is the status, unless `in_band`; afterwards it is the last message."""
    request.cancellable = True
    stream: Stream | None = await request.begin(200, KIND) if in_band else None
    try:
        async for message in messages:
            if stream is None:
                stream = await request.begin(200, KIND)
            await stream.send(encode(message))
    except (SampanError, OSError) as error:
        if stream is None or isinstance(error, ConnectionError):
            raise
        text = message_of(error)
        await stream.send(encode(i.Progress(error=text, error_detail=i.ErrorDetail(message=text))))
    finally:
        await _close(messages)
    if stream is None:
        stream = await request.begin(200, KIND)
    stream.end()


async def tar(request: Request, pieces: AsyncIterator[bytes]) -> None:
    """Send an archive; a failure before its first byte is the status."""
    request.cancellable = True
    stream: Stream | None = None
    try:
        async for chunk in pieces:
            stream = stream or await request.begin(200, b"application/x-tar")
            await stream.send(chunk)
    finally:
        await _close(pieces)
    stream = stream or await request.begin(200, b"application/x-tar")
    stream.end()


async def _close(source: AsyncIterator[object]) -> None:
    """Let a generator that was given up undo its work now, not when it is collected."""
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
