"""Being told of changes in a folder.  inotify(7), Linux 2.6.13."""

from __future__ import annotations

import ctypes
import enum
import os
import struct

from sampan.kernel.calls import bind
from sampan.kernel.fds import Fd

_inotify_init1 = bind("inotify_init1", ctypes.c_int)
_inotify_add_watch = bind("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_HEAD = struct.Struct("=iIII")  # struct inotify_event: watch, mask, cookie, length of the name


class In(enum.IntFlag):
    """IN_*, include/uapi/linux/inotify.h."""

    MODIFY = 0x002
    CLOSE_WRITE = 0x008
    MOVED_FROM = 0x040
    MOVED_TO = 0x080
    CREATE = 0x100
    DELETE = 0x200
    Q_OVERFLOW = 0x4000
    ONLYDIR = 0x01000000


CHANGES = In.MODIFY | In.MOVED_TO | In.CREATE


class Inotify:
    """One inotify descriptor; readable when something has changed.  Close it; a context manager."""

    def __init__(self) -> None:
        self._fd = Fd(_inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        return self._fd.fileno()

    def add(self, folder: str | int | Fd, events: In = CHANGES) -> int:
        """Watch a folder, by path or by descriptor; return the watch's number."""
        path = folder if isinstance(folder, str) else f"/proc/self/fd/{int(folder)}"
        return _inotify_add_watch(self._fd.fileno(), os.fsencode(path), int(events), subject=path)

    def read(self) -> list[tuple[int, In, str]]:
        """Return what happened as (watch, events, name); [] when nothing did.  After Q_OVERFLOW look at everything again."""
        try:
            data = os.read(self._fd.fileno(), 65536)
        except BlockingIOError:
            return []
        found, place = [], 0
        while place + _HEAD.size <= len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, place)
            place += _HEAD.size
            found.append((watch, In(mask), os.fsdecode(data[place : place + length].rstrip(b"\0"))))
            place += length
        return found

    def close(self) -> None:
        self._fd.close()

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
