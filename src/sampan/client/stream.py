"""Output of processes taken apart: frames of stdout and stderr (engine-api 2.2), JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from sampan.client.errors import ApiError, ProtocolError
from sampan.wire import frames
from sampan.wire.frames import STDOUT

LINE_LIMIT = 16 * 1024 * 1024


class Demultiplexer(frames.Demultiplexer):
    """Frames as a client reads them."""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Raises ProtocolError for what is no frame, ApiError for the daemon's own words (stream 3)."""
        try:
            for stream, piece in super().feed(data):
                if stream == frames.SYSTEM:
                    raise ApiError(500, piece.decode("utf-8", "replace").strip())
                yield stream, piece
        except ValueError as error:
            raise ProtocolError(str(error)) from error


class Readable(Protocol):
    def read1(self, n: int = -1, /) -> bytes: ...


def pieces(source: Readable, *, framed: bool) -> Iterator[tuple[int, bytes]]:
    """Read a body to its end: (stream, bytes) as they come; without frames all is stdout."""
    parts = Demultiplexer()
    while data := source.read1(65536):
        if framed:
            yield from parts.feed(data)
        else:
            yield STDOUT, data


def json_lines(source: Readable, wait: Callable[[], None] = lambda: None) -> Iterator[Any]:
    """Yield each JSON value of a body that holds one a line.  Raises ProtocolError."""
    held = bytearray()
    start = 0
    while data := source.read1(65536):
        held += data
        while (end := held.find(b"\n", start)) >= 0:
            line = bytes(held[:end]).strip(b" \r\n\t\x1e")
            del held[: end + 1]
            start = 0
            if line:
                yield _value(line)
        start = len(held)
        if start > LINE_LIMIT:
            raise ProtocolError("a line of the daemon's answer is too long")
        wait()
    if rest := bytes(held).strip(b" \r\n\t\x1e"):
        yield _value(rest)


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the daemon's answer is not JSON: {line[:100]!r}") from error
