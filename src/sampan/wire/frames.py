"""Frames of a multiplexed stream (engine-api 2.2): a byte for the stream, three zeros, the size, the data."""

from __future__ import annotations

from collections.abc import Iterator

STDIN, STDOUT, STDERR, SYSTEM = 0, 1, 2, 3
LIMIT = 64 * 1024 * 1024  # nobody sends such frames; a liar must not make us wait for ever


def frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class Demultiplexer:
    """Takes bytes in any pieces, gives (stream, bytes) as soon as they are there, also parts of a frame."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Raises ValueError for what is no frame."""
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
            yield (STDOUT if self._stream == STDIN else self._stream), piece

    def _begin(self, head: bytes) -> None:
        self._stream, self._left = head[0], int.from_bytes(head[4:], "big")
        if self._stream > SYSTEM or head[1:4] != b"\0\0\0" or self._left > LIMIT:
            raise ValueError(f"not a frame of a multiplexed stream: {head.hex()}")

    @property
    def whole(self) -> bool:
        """Whether the stream may end here."""
        return not self._head and not self._left
