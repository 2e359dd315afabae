"""The json-file driver, writing side: one JSON object a line, as Docker's, in a folder that only root sees.

    {"log":"text\\n","stream":"stdout","time":"2026-11-24T02:00:54.164028120Z"}

A line below 1 MiB is one record; a longer one is cut into records without a newline, which readers join.  A file has a size
limit by default, so that a disk cannot fill: `max-size` (20 MiB), `max-file` (5).  Rotation: NAME -> NAME.1 -> ...
"""

from __future__ import annotations

import os
import time

import msgspec

from sampan.errors import InvalidRequest

LONGEST_LINE = 1 << 20
MAX_SIZE, MAX_FILES = 20 << 20, 5
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}
_encode = msgspec.json.Encoder().encode
# Bytes that stand for themselves in JSON: printable ASCII but the quote and the backslash.
_PLAIN = bytes(b for b in range(0x20, 0x7F) if b not in b'"\\')


def size_of(text: str) -> int:
    """Return the bytes that a size such as "10m" means; -1 is unlimited.  Raises InvalidRequest."""
    lowered = text.lower()
    digits = lowered.rstrip("bkmg")
    unit = lowered[len(digits) :]
    if lowered == "-1":
        return -1
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 12 or unit not in _UNITS:
        raise InvalidRequest(f"invalid max-size {text!r}: a number with b, k, m or g")
    return int(digits) * _UNITS[unit]


def files_of(text: str) -> int:
    """Return how many files are kept.  Raises InvalidRequest."""
    if not (text.isascii() and text.isdigit()) or not 1 <= len(text) <= 4 or int(text) < 1:
        raise InvalidRequest(f"invalid max-file {text!r}: a number from 1")
    return int(text)


class Writer:
    """Appends records to NAME in the folder `dir_fd`, which it owns and closes.  Raises OSError."""

    def __init__(self, dir_fd: int, name: str, options: dict[str, str]) -> None:
        self._folder, self._name = dir_fd, name
        self._max_size = size_of(options.get("max-size", str(MAX_SIZE)))
        self._max_files = files_of(options.get("max-file", str(MAX_FILES)))
        self._partial: dict[str, bytes] = {}
        self._file, self._size = self._open()

    def _open(self) -> tuple[int, int]:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self._name, flags, 0o640, dir_fd=self._folder)
        return file, os.fstat(file).st_size

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """Append what was read from "stdout" or "stderr": whole lines now, a started line when its end comes."""
        data = self._partial.pop(stream, b"") + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        tail = b'","stream":"%s","time":"%s"}\n' % (stream.encode(), stamp(now_ns))
        out: list[bytes] = []
        for line in data[:end].split(b"\n")[:-1] if end else ():
            while len(line) >= LONGEST_LINE:
                out.append(_record(line[:LONGEST_LINE], b"", tail))
                line = line[LONGEST_LINE:]
            out.append(_record(line, b"\\n", tail))
        while len(rest) >= LONGEST_LINE:
            out.append(_record(rest[:LONGEST_LINE], b"", tail))
            rest = rest[LONGEST_LINE:]
        if rest:
            self._partial[stream] = rest
        if out:
            self._append(b"".join(out))

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(data)
        if 0 <= self._max_size <= self._size:
            self._rotate()

    def _rotate(self) -> None:
        os.close(self._file)
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._name}.{number - 1}" if number > 1 else self._name
            try:
                os.rename(older, f"{self._name}.{number}", src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except FileNotFoundError:
                pass
        if self._max_files == 1:
            os.unlink(self._name, dir_fd=self._folder)
        self._file, self._size = self._open()

    def close(self) -> None:
        """Write what lines were begun, and close."""
        now = time.time_ns()
        for stream, rest in self._partial.items():
            self._append(_record(rest, b"", b'","stream":"%s","time":"%s"}\n' % (stream.encode(), stamp(now))))
        self._partial.clear()
        os.close(self._file)
        os.close(self._folder)


def stamp(now_ns: int) -> bytes:
    """Return RFC 3339 in UTC with nine digits of a second."""
    seconds, rest = divmod(now_ns, 10**9)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ" % (year, month, day, hour, minute, second, rest)


def _record(line: bytes, newline: bytes, tail: bytes) -> bytes:
    if not line.translate(None, _PLAIN):
        return b'{"log":"' + line + newline + tail
    return b'{"log":' + _encode(line.decode("utf-8", "replace"))[:-1] + newline + tail
