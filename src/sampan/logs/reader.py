"""Reading logs: all, the last lines, a span of time, and on as they grow.

A record that cannot be read (cut short by a crash, or edited) is skipped.  Rotated files are name.1 (the newest) and up.
"""

from __future__ import annotations

import calendar
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from sampan.kernel.fds import Fd

_BLOCK = 1 << 16
_CHUNK = 1 << 20
_MAX_FILES = 10_000
_MAX_RECORD = 16 << 20  # a line of a megabyte, each byte escaped by six letters, with room


class Record(NamedTuple):
    """A line of output, its newline included unless it was cut."""

    stream: str
    time_ns: int
    line: bytes


class _Json(msgspec.Struct):
    log: str
    stream: str
    time: str


_decode = msgspec.json.Decoder(_Json).decode
_seconds: dict[str, int] = {}


def parse_time(text: str) -> int:
    """Return nanoseconds since the epoch of RFC 3339 in UTC ("...Z").  Raises ValueError."""
    head = text[:19]
    seconds = _seconds.get(head)
    if seconds is None:
        if len(head) != 19 or not head.isascii() or head[4] + head[7] + head[10] + head[13] + head[16] != "--T::":
            raise ValueError(f"bad time {text[:40]!r}")
        seconds = calendar.timegm(
            (int(head[:4]), int(head[5:7]), int(head[8:10]), int(head[11:13]), int(head[14:16]), int(head[17:]))
        )
        if len(_seconds) > 1000:
            _seconds.clear()
        _seconds[head] = seconds
    fraction = text[20:-1]
    if text[-1] != "Z" or (fraction and not (fraction.isascii() and fraction.isdigit() and len(fraction) <= 9)):
        raise ValueError(f"bad time {text[:40]!r}")
    return seconds * 10**9 + (int(fraction.ljust(9, "0")) if fraction else 0)


def decode(line: bytes) -> Record | None:
    """Return the record of one line of the file, None when it is none."""
    try:
        found = _decode(line)
        return Record(found.stream, parse_time(found.time), found.log.encode())
    except (msgspec.DecodeError, ValueError, IndexError):
        return None


def read(
    folder: int | Fd | str, name: str, *, since_ns: int | None = None, until_ns: int | None = None, tail: int | None = None
) -> Iterator[Record]:
    """Yield the records in order, oldest first; `tail` counts before the times are looked at, as Docker does.

    Raises FileNotFoundError when there is no log, OSError(ELOOP) when it is a symbolic link.
    """
    files = _open_all(folder, name)
    try:
        starts = [0] * len(files)
        if tail is not None:
            starts = _starts_of_tail(files, tail)
        for fd, start in zip(files, starts, strict=True):
            for line in _lines(fd, start):
                record = decode(line)
                if record is None or (since_ns is not None and record.time_ns < since_ns):
                    continue
                if until_ns is not None and record.time_ns > until_ns:
                    return
                yield record
    finally:
        for fd in files:
            fd.close()


class Follower:
    """Gives what a log holds and then what is added to it, through rotations.

    `poll` returns at most about a megabyte's records; [] means: nothing new, wait for a change (kernel/inotify.py on the
    folder) and ask again.  Close it; a context manager.
    """

    def __init__(self, folder: int | Fd | str, name: str, *, since_ns: int | None = None, tail: int | None = None) -> None:
        path = folder if isinstance(folder, str) else f"/proc/self/fd/{int(folder)}"
        self._folder = Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self._name, self._since = name, since_ns
        self._rest = b""
        try:
            self._files = _open_all(self._folder, name)
        except BaseException:
            self._folder.close()
            raise
        self._starts = [0] * len(self._files) if tail is None else _starts_of_tail(self._files, tail)
        self._place = self._starts[0]

    def poll(self) -> list[Record]:
        """Return the next records; a last line without its end waits for it."""
        while True:
            data = os.pread(self._files[0].fileno(), _CHUNK, self._place)
            if data:
                self._place += len(data)
                *lines, self._rest = (self._rest + data).split(b"\n")
                if len(self._rest) > _MAX_RECORD:
                    self._rest = b""
                records = [record for line in lines if (record := decode(line)) is not None]
                if self._since is not None:
                    records = [record for record in records if record.time_ns >= self._since]
                if records:
                    return records
            elif not self._next_file():
                return []

    def close(self) -> None:
        for fd in self._files:
            fd.close()
        self._folder.close()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_file(self) -> bool:
        """Go on to the file after this one; False when this is the current one.  True: read again."""
        if len(self._files) == 1:
            if _inode(self._files[0]) == _inode_of(self._folder, self._name):
                return False
            newer: list[Fd] = []
            try:
                present = _open_all(self._folder, self._name)
            except FileNotFoundError:
                return False  # between the rename and the new file
            for fd in present:
                newer.append(fd)
                if _inode(fd) == _inode(self._files[0]):
                    for seen in newer:
                        seen.close()
                    newer = []
            if not newer:
                return False
            self._files += newer
            self._starts += [0] * len(newer)
            # What was written between our last read and the rename is still to be read from the old file.
            return True
        if os.fstat(self._files[0].fileno()).st_size > self._place:
            return True
        self._files.pop(0).close()
        self._starts.pop(0)
        self._place, self._rest = self._starts[0], b""
        return True


def _open_one(folder: int | Fd | str, name: str) -> Fd:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    at = None if isinstance(folder, str) else int(folder)
    fd = Fd(os.open(os.path.join(folder, name) if isinstance(folder, str) else name, flags, dir_fd=at))
    if not stat.S_ISREG(os.fstat(fd.fileno()).st_mode):
        fd.close()
        raise OSError(errno.EINVAL, "the log is not a regular file", name)
    return fd


def _open_all(folder: int | Fd | str, name: str) -> list[Fd]:
    """Open the files, oldest first.  One that is rotated while we open is found once, by its inode."""
    files = [_open_one(folder, name)]
    seen = {_inode(files[0])}
    try:
        for number in range(1, _MAX_FILES):
            try:
                fd = _open_one(folder, f"{name}.{number}")
            except FileNotFoundError:
                break
            if _inode(fd) in seen:
                fd.close()
                continue
            seen.add(_inode(fd))
            files.append(fd)
    except BaseException:
        for fd in files:
            fd.close()
        raise
    return files[::-1]


def _inode(fd: Fd) -> int:
    return os.fstat(fd.fileno()).st_ino


def _inode_of(folder: Fd, name: str) -> int:
    try:
        return os.stat(name, dir_fd=folder.fileno(), follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0  # between the rename and the new file


def _starts_of_tail(files: list[Fd], tail: int) -> list[int]:
    """Return where to begin in each file (oldest first) for the last `tail` lines, reading backwards from the end."""
    starts = [os.fstat(fd.fileno()).st_size for fd in files]
    wanted = tail
    for index in range(len(files) - 1, -1, -1):
        end = size = starts[index]
        while end > 0 and wanted > 0:
            begin = max(0, end - _BLOCK)
            block = os.pread(files[index].fileno(), end - begin, begin)
            cut = len(block) - 1 if end == size and block.endswith(b"\n") else len(block)  # the last line's own end
            while wanted > 0 and (cut := block.rfind(b"\n", 0, cut)) >= 0:
                wanted -= 1
                starts[index] = begin + cut + 1
            end = begin
        if wanted > 0 and size > 0:
            starts[index] = 0
            wanted -= 1
        if wanted <= 0:
            break
    return starts


def _lines(fd: Fd, start: int) -> Iterator[bytes]:
    place, rest = start, b""
    while data := os.pread(fd.fileno(), _CHUNK, place):
        place += len(data)
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
        if len(rest) > _MAX_RECORD:
            rest = b""
    if rest:
        yield rest
