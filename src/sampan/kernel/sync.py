"""syncfs(2): everything written to one file system is on the disk when it returns.  Linux 2.6.39; reports errors since 5.8."""

from __future__ import annotations

import ctypes

from sampan.kernel.calls import bind
from sampan.kernel.fds import Fd

_syncfs = bind("syncfs", ctypes.c_int)


def syncfs(fd: int | Fd) -> None:
    """Flush the file system that `fd` is on."""
    _syncfs(int(fd), subject=f"file system of fd {int(fd)}")
