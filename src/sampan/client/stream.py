"""Output of processes taken apart: frames of stdout and stderr (engine-api 2.2), JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from sampan.client.errors import ApiError, ProtocolError

STDIN, STDOUT, STDERR, SYSTEM = 0, 1, 2, 3
FRAME_LIMIT = 64 * 1024 * 1024  # no daemon sends such frames; a liar must not make us wait for ever
LINE_LIMIT = 16 * 1024 * 1024


class Demultiplexer:
    """Takes bytes in any pieces, gives (stream, bytes) as soon as they are there, also parts of a frame."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Raises ProtocolError for what is no frame, ApiError for the daemon's own words (stream 3)."""
        view = memoryview(data)
        while view:
            if not self._left:
                need = 8 - len(self._head)
                self._head += bytes(view[:need])
                view = view[need:]
                if len(self._head) < 8:
                    return
                self._begin(self._head)
                self._head = b""
                continue
            piece = bytes(view[: self._left])
            view = view[len(piece) :]
            self._left -= len(piece)
            if self._stream == SYSTEM:
                raise ApiError(500, piece.decode("utf-8", "replace").strip())
            yield (STDOUT if self._stream == STDIN else self._stream), piece

    def _begin(self, head: bytes) -> None:
        self._stream, self._left = head[0], int.from_bytes(head[4:], "big")
        if self._stream > SYSTEM or head[1:4] != b"\0\0\0" or self._left > FRAME_LIMIT:
            raise ProtocolError(f"not a frame of a multiplexed stream: {head.hex()}")

    @property
    def whole(self) -> bool:
        """Whether the stream may end here."""
        return not self._head and not self._left


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
