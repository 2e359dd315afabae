"""Copying a tree from descriptor to descriptor: what somebody swaps on the way is never followed.

Names are made with O_EXCL or mkdirat below an open folder, and attributes are set on what was made (SECURITY.md rows 1, 14).
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.files.xattrs import set_xattrs
from sampan.kernel.fds import Fd

DEEPEST = 128  # two descriptors a level
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24


def copy_tree(source: int | Fd, target: int | Fd, depth: int = 0) -> None:
    """Copy what is in the folder `source` into the folder `target`, with owners, modes, times and attributes.

    Links stay links; sockets and device nodes are left out.  Raises OSError, FileExistsError for a name that is there.
    """
    if depth > DEEPEST:
        raise OSError(errno.ELOOP, "folders are nested too deep to be copied")
    with os.scandir(int(source)) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFDIR:
                _folder(source, target, entry.name, found, depth)
            elif kind == stat.S_IFREG:
                _file(source, target, entry.name, found)
            elif kind == stat.S_IFLNK:
                os.symlink(os.readlink(entry.name, dir_fd=int(source)), entry.name, dir_fd=int(target))
                os.chown(entry.name, found.st_uid, found.st_gid, dir_fd=int(target), follow_symlinks=False)
            elif kind == stat.S_IFIFO:
                _fifo(target, entry.name, found)


def _folder(source: int | Fd, target: int | Fd, name: str, found: os.stat_result, depth: int) -> None:
    os.mkdir(name, 0o700, dir_fd=int(target))
    with Fd(os.open(name, _FOLDER, dir_fd=int(source))) as below, Fd(os.open(name, _FOLDER, dir_fd=int(target))) as made:
        copy_tree(below, made, depth + 1)
        like(made, below, found)


def _file(source: int | Fd, target: int | Fd, name: str, found: os.stat_result) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        Fd(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=int(source))) as old,
        Fd(os.open(name, flags, 0o600, dir_fd=int(target))) as new,
    ):
        while os.sendfile(new.fileno(), old.fileno(), None, _CHUNK):
            pass
        like(new, old, found)


def _fifo(target: int | Fd, name: str, found: os.stat_result) -> None:
    os.mkfifo(name, 0o600, dir_fd=int(target))
    with Fd(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=int(target))) as made:
        if stat.S_ISFIFO(os.fstat(made.fileno()).st_mode):
            os.chown(f"/proc/self/fd/{made.fileno()}", found.st_uid, found.st_gid)
            os.chmod(f"/proc/self/fd/{made.fileno()}", found.st_mode & 0o7777)


def like(made: Fd, old: Fd, found: os.stat_result) -> None:
    """Give the one open file what the other has: owner first, for it takes set-id bits and capabilities away."""
    os.fchown(made.fileno(), found.st_uid, found.st_gid)
    names = os.listxattr(old.fileno())
    set_xattrs(made.fileno(), {name: os.getxattr(old.fileno(), name) for name in names})
    os.fchmod(made.fileno(), found.st_mode & 0o7777)
    os.utime(made.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
