"""The immutable and append-only marks of files, and the mark of unrelated folders.  ioctl_iflags(2)."""

from __future__ import annotations

import fcntl
import struct

from sampan.kernel.fds import Fd

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # include/uapi/linux/fs.h, 64 bit
FS_IMMUTABLE_FL, FS_APPEND_FL = 0x10, 0x20
FS_TOPDIR_FL = 0x20000


def make_mutable(fd: int | Fd) -> bool:
    """Clear both marks of the open file; return whether one was set.  CAP_LINUX_IMMUTABLE."""
    raw = fcntl.ioctl(int(fd), _FS_IOC_GETFLAGS, bytes(8))
    (flags,) = struct.unpack_from("i", raw)
    wanted = flags & ~(FS_IMMUTABLE_FL | FS_APPEND_FL)
    if wanted == flags:
        return False
    fcntl.ioctl(int(fd), _FS_IOC_SETFLAGS, struct.pack("i", wanted) + bytes(4))
    return True


def mark_unrelated(fd: int | Fd) -> bool:
    """Say of a folder that its folders have nothing to do with each other: ext4 then puts each elsewhere on the disk.

    Return whether the file system knows the mark; it is a hint only.
    """
    try:
        raw = fcntl.ioctl(int(fd), _FS_IOC_GETFLAGS, bytes(8))
        (flags,) = struct.unpack_from("i", raw)
        fcntl.ioctl(int(fd), _FS_IOC_SETFLAGS, struct.pack("i", flags | FS_TOPDIR_FL) + bytes(4))
        (flags,) = struct.unpack_from("i", fcntl.ioctl(int(fd), _FS_IOC_GETFLAGS, bytes(8)))
    except OSError:
        return False
    return bool(flags & FS_TOPDIR_FL)
