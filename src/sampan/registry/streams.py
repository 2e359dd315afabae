"""Bodies read to their last byte, whole or broken."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp


async def to_the_last(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield all that came, also what was waiting when the connection broke: aiohttp would drop it and raise at once."""
    try:
        while data := await content.readany():
            yield data
    except (aiohttp.ClientError, OSError):
        left = list(getattr(content, "_buffer", ()))
        skip = int(getattr(content, "_buffer_offset", 0))
        for data in left:
            yield data[skip:]
            skip = 0
        raise
