"""The json-file driver, reading side: records of a log and its rotated files, and what comes after them.

A file is opened in its folder without following links (SECURITY.md row 39).  A record that does not decode is skipped:
a crash may cut the last one.
"""

from __future__ import annotations

import calendar
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

_CHUNK = 1 << 18


class _Line(msgspec.Struct, frozen=True):
    log: str
    stream: str
    time: str


_decode = msgspec.json.Decoder(_Line).decode


@dataclass(frozen=True)
class Record:
    """A line (or a piece of one without newline), when it was written (nanoseconds since the epoch) and where to."""

    stream: str
    time_ns: int
    line: bytes


def read(dir_fd: int, name: str, *, since_ns: int = 0, until_ns: int = 0, tail: int = -1) -> Iterator[Record]:
    """Yield the records written up to now, oldest first; `tail` of them at most when it is not negative."""
    follower = Follower(dir_fd, name)
    try:
        records = (r for r in follower.records() if r.time_ns >= since_ns and (not until_ns or r.time_ns <= until_ns))
        if tail < 0:
            yield from records
        elif tail:
            yield from deque(records, maxlen=tail)
    finally:
        follower.close()


class Follower:
    """Reads a log as it grows, through rotations.  Owns its files; `dir_fd` stays the caller's."""

    def __init__(self, dir_fd: int, name: str) -> None:
        self._folder, self._name = dir_fd, name
        self._waiting = [file for file in self._rotated() if file is not None]
        self._file: int | None = self._waiting.pop(0) if self._waiting else self._open(name)
        self._rest = b""

    def _open(self, name: str) -> int | None:
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return None

    def _rotated(self) -> list[int | None]:
        """Open every file of the log, oldest first."""
        prefix = f"{self._name}."
        numbers = [
            int(n[len(prefix) :]) for n in os.listdir(self._folder)
            if n.startswith(prefix) and n[len(prefix) :].isascii() and n[len(prefix) :].isdigit() and len(n) < len(prefix) + 5
        ]  # fmt: skip
        return [self._open(f"{prefix}{number}") for number in sorted(numbers, reverse=True)] + [self._open(self._name)]

    def poll(self) -> list[Record]:
        """Return what has been written since the last call."""
        return list(self.records())

    def records(self) -> Iterator[Record]:
        """Yield what has been written since, and stop at the present end."""
        while True:
            if self._file is None:
                self._file = self._open(self._name)
                if self._file is None:
                    return
            while chunk := os.read(self._file, _CHUNK):
                lines = (self._rest + chunk).split(b"\n")
                self._rest = lines.pop()
                for line in lines:
                    record = _record(line)
                    if record is not None:
                        yield record
            if not self._next_file():
                return

    def _next_file(self) -> bool:
        """Go on to the next file when this one is complete; return whether there is one."""
        assert self._file is not None
        if self._waiting:
            following: int | None = self._waiting.pop(0)
        else:
            try:
                current = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
            except FileNotFoundError:
                return False
            if current.st_ino == os.fstat(self._file).st_ino:
                return False
            following = self._open(self._name)
            if following is None:
                return False
        os.close(self._file)
        self._file, self._rest = following, b""
        return True

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, *self._waiting):
            if file is not None:
                os.close(file)
        self._file, self._waiting = None, []


def _record(line: bytes) -> Record | None:
    try:
        decoded = _decode(line)
        return Record(decoded.stream, nanoseconds(decoded.time), decoded.log.encode("utf-8", "surrogatepass"))
    except (msgspec.DecodeError, ValueError):
        return None


def nanoseconds(text: str) -> int:
    """Return the moment that `stamp` wrote, in nanoseconds since the epoch.  Raises ValueError."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    numbers = [int(whole[a:b]) for a, b in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))]
    return calendar.timegm((*numbers, 0, 0, 0)) * 10**9 + int((fraction + "000000000")[:9])
