"""Bringing what was written to the disk: syncfs(2) and sync_file_range(2).

syncfs: everything written to one file system is on the disk when it returns.  Linux 2.6.39; reports errors since 5.8.
sync_file_range: begin to write now, do not wait.  Linux 2.6.17.  A hint only: it promises nothing about a power cut.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading

from sampan.kernel.calls import bind
from sampan.kernel.fds import Fd

_syncfs = bind("syncfs", ctypes.c_int)


def syncfs(fd: int | Fd) -> None:
    """Flush the file system that `fd` is on."""
    _syncfs(int(fd), subject=f"file system of fd {int(fd)}")


_sync_file_range = bind("sync_file_range", ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong, ctypes.c_uint)
_WRITE = 2  # SYNC_FILE_RANGE_WRITE


def start_writing(fd: int, offset: int, size: int) -> None:
    """Have the disk begin with these bytes of a file, so that a later fsync finds little left; no error is ever raised."""
    with contextlib.suppress(OSError):  # a file system that cannot
        _sync_file_range(fd, offset, size, _WRITE, subject=f"fd {fd}")


class Syncs:
    """syncfs of one file system for many threads: those who come while one is under way share the next."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._running = False
        self._begun = self._done = 0
        self._failed: dict[int, OSError] = {}

    def sync(self, fd: int | Fd) -> None:
        """Return when everything written before the call is on the disk.  Raises OSError."""
        with self._turn:
            wanted = self._begun + 1  # one that has begun already may have passed our data by
            while self._running and self._done < wanted:
                self._turn.wait()
            if self._done >= wanted:
                self._check(wanted)
                return
            self._running, self._begun = True, wanted
        error: OSError | None = None
        try:
            syncfs(fd)
        except OSError as caught:
            error = caught
        with self._turn:
            self._running, self._done = False, self._begun
            if error is not None:
                self._failed[self._done] = error
            self._turn.notify_all()
            self._check(wanted)

    def _check(self, number: int) -> None:
        """Raise what the sync `number`, or a later one that stood in for it, has failed with."""
        for at in range(number, self._done + 1):
            if at in self._failed:
                raise self._failed[at]
