"""Output as it comes, cut into lines: whole ones at once, the rest when its end comes."""

from __future__ import annotations

from collections.abc import Iterator

MAX_LINE = 1 << 20  # bytes; a longer line becomes several records, all but the last without a newline
STREAMS = ("stdout", "stderr")


class Lines:
    """What waits for its end, for each stream."""

    def __init__(self) -> None:
        self._pending: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def take(self, stream: str, data: bytes) -> tuple[bytes, list[bytes]]:
        """Return (whole lines, pieces of a line that is too long to wait for its end)."""
        pending = self._pending[stream]
        end = data.rfind(b"\n")
        if end < 0:
            pending += data
            return b"", self._spill(pending)
        if pending:
            pending += data[: end + 1]
            lines = bytes(pending)
            pending.clear()
        else:
            lines = data[: end + 1]
        pending += data[end + 1 :]
        return lines, self._spill(pending)

    @staticmethod
    def _spill(pending: bytearray) -> list[bytes]:
        pieces = []
        while len(pending) >= MAX_LINE:
            pieces.append(bytes(pending[:MAX_LINE]))
            del pending[:MAX_LINE]
        return pieces

    def unfinished(self, stream: str) -> bytes:
        """Return what waits for its end, and go on waiting."""
        return bytes(self._pending[stream])

    def rest(self) -> Iterator[tuple[str, bytes]]:
        """Yield the lines that have not ended, as they are; they wait no longer."""
        for stream, pending in self._pending.items():
            if pending:
                yield stream, bytes(pending)
                pending.clear()
