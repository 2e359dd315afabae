"""openat2: opening a path that cannot leave its root.  openat2(2), Linux 5.6."""

from __future__ import annotations

import ctypes
import errno
import os

from sampan.kernel.calls import bind
from sampan.kernel.fds import Fd

_openat2 = bind("openat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_TRIES = 128  # EAGAIN: the kernel saw a rename race while it resolved `..` in a root; trying again is the cure


class Resolve:
    """RESOLVE_*, include/uapi/linux/openat2.h."""

    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


class OpenHow(ctypes.Structure):
    """struct open_how; 24 bytes."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


if ctypes.sizeof(OpenHow) != 24:
    raise ImportError("struct open_how is not 24 bytes")

IN_ROOT = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS


def open_in(root: int | Fd, path: str | bytes, flags: int, mode: int = 0, *, resolve: int = IN_ROOT) -> Fd:
    """Open `path` inside the directory `root` as if that were `/`; close-on-exec.

    Symbolic links, absolute ones too, resolve within `root`; magic links (/proc/*/fd, exe ...) are refused (ELOOP).
    `mode` counts only with O_CREAT or O_TMPFILE.
    """
    how = OpenHow(flags | os.O_CLOEXEC, mode, int(resolve))
    for attempt in range(_TRIES):
        try:
            return Fd(_openat2(int(root), os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how), subject=path))
        except OSError as error:
            if error.errno != errno.EAGAIN or attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")
