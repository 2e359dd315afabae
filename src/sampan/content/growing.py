"""Files that are read while they are written: by another thread, from the start, each byte once it is there."""

from __future__ import annotations

import os
import threading

from sampan.errors import InvalidRequest
from sampan.kernel.sync import start_writing

_CHUNK = 1 << 20
_STRIDE = 8 << 20  # bytes after which the disk is told to begin


class Growth:
    """How far a file is.  size: bytes that can be read; total: bytes it will have."""

    def __init__(self, total: int, size: int = 0) -> None:
        self.size = size
        self.total = total
        self._told = size
        self._error: str | None = None
        self._changed = threading.Condition()

    def grew(self, size: int, fd: int) -> None:
        """(Writer) `size` more bytes are there."""
        with self._changed:
            self.size += size
            self._changed.notify_all()
        if self.size - self._told >= _STRIDE:
            start_writing(fd, self._told, self.size - self._told)
            self._told = self.size

    def end(self, reason: str) -> None:
        """(Writer) No more will come; readers that want more are refused for `reason`."""
        with self._changed:
            self._error = self._error or reason
            self._changed.notify_all()

    def wait_beyond(self, at: int) -> int:
        """Return the size once it is more than `at`, or all there will be.  Raises InvalidRequest when it ended before."""
        with self._changed:
            while self.size <= at < self.total and self._error is None:
                self._changed.wait()
            if self.size <= at < self.total:
                raise InvalidRequest(self._error or "ended early")
            return self.size


class Growing:
    """A reader of the file `fd` (a descriptor, closed by `close` or at the end of the body) as far as `growth` goes."""

    def __init__(self, growth: Growth, fd: int) -> None:
        self._growth = growth
        self._fd = fd
        self._at = 0

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)

    def read(self, size: int = _CHUNK, /) -> bytes:
        there = self._growth.wait_beyond(self._at)
        data = os.pread(self._fd, min(size, there - self._at), self._at)
        self._at += len(data)
        return data
