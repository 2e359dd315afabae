"""What is read from a log, whatever its format: runs of lines that share their stream and time, and their frames.

A frame (engine-api 2.2): stream, three zeroes, the payload's length in four bytes, the payload.  One frame is one line.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

STDOUT, STDERR = 1, 2
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")


class Run(NamedTuple):
    """Lines that came together.  pieces: those that ended, without their newlines; rest: what was cut or never ended."""

    stream: int
    time_ns: int
    pieces: list[bytes]
    rest: bytes = b""
    attributes: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[bytes]:
        found = [piece + b"\n" for piece in self.pieces]
        return [*found, self.rest] if self.rest else found


def run(stream: int, time_ns: int, data: bytes, attributes: tuple[tuple[str, str], ...] = ()) -> Run:
    """Return the run of what was written."""
    pieces = data.split(b"\n")
    rest = pieces.pop()
    return Run(stream, time_ns, pieces, rest, attributes)


class _Heads(dict[int, bytes]):
    """Length of a line without its newline -> the end of the line before, its frame's head and what is written before it."""

    def __init__(self, stream: int, before: bytes) -> None:
        super().__init__()
        self._start, self._before = bytes((stream, 0, 0, 0)), before

    def __missing__(self, length: int) -> bytes:
        size = len(self._before) + length + 1
        made = self[length] = b"\n" + self._start + size.to_bytes(4, "big") + self._before
        return made


class Framer:
    """Turns runs into what `logs` sends.  details, timestamps, tty: as the request and the container say."""

    def __init__(self, *, timestamps: bool = False, details: bool = False, tty: bool = False) -> None:
        self._timestamps, self._details, self._tty = timestamps, details, tty
        self._second, self._clock = -1, b""
        self._plain = {stream: _Heads(stream, b"") for stream in (STDOUT, STDERR)}

    def frames(self, runs: Iterable[Run]) -> bytes:
        """Return the runs' frames, one a line; with a terminal the lines as they are."""
        return b"".join([self._one(found) for found in runs])

    def _one(self, found: Run) -> bytes:
        before = self._before(found) if self._timestamps or self._details else b""
        pieces, rest = found.pieces, found.rest
        if self._tty:
            made = b"\n".join([before + piece for piece in pieces] if before else pieces)
            return made + b"\n" * bool(pieces) + (before + rest if rest else b"")
        if before and len(pieces) == 1 and not rest:
            line = before + pieces[0]
            return self._plain[found.stream][len(line)][1:] + line + b"\n"
        heads = _Heads(found.stream, before) if before else self._plain[found.stream]
        if len(heads) > 4096:
            heads.clear()
        woven = [b"\n"] * (2 * len(pieces) + 1)  # by calls over the whole list, never by a loop over lines
        woven[:-1:2] = map(heads.__getitem__, map(len, pieces))
        woven[1::2] = pieces
        made = b"".join(woven)[1:] if pieces else b""
        if rest:
            made += bytes((found.stream, 0, 0, 0)) + (len(before) + len(rest)).to_bytes(4, "big") + before + rest
        return made

    def _before(self, found: Run) -> bytes:
        made = b""
        if self._timestamps:
            seconds, rest = divmod(found.time_ns, 10**9)
            if seconds != self._second:
                self._second, self._clock = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()
            made = b"%b.%09dZ " % (self._clock, rest)
        if self._details:
            made += ",".join(f"{_quoted(key)}={_quoted(value)}" for key, value in sorted(found.attributes)).encode() + b" "
        return made


def _quoted(text: str) -> str:
    """Percent-encode as a query's words are."""
    return "".join(chr(byte) if byte in _SAFE else "+" if byte == 0x20 else f"%{byte:02X}" for byte in text.encode())
