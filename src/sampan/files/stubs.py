"""Taking away the empty mount points that a container's start left in its writable layer.

The container may have replaced any folder on the way meanwhile; so nothing is followed and nothing is crossed: every
folder is opened below the layer without links, and only what is empty and was not there before goes (SECURITY.md row 61).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from sampan.files.whiteouts import OPAQUE_XATTR
from sampan.kernel.fds import Fd
from sampan.kernel.paths import Resolve, open_in

_STRICT = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS | Resolve.NO_XDEV
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST)


def remove_stubs(upper: Fd, below: Fd, targets: Iterable[str]) -> None:
    """Remove the mount points `targets` from the folder `upper` of a layer; `below` is the view of what is under it."""
    for target in sorted(targets, key=lambda path: path.count("/"), reverse=True):
        parts = [part for part in target.split("/") if part]
        try:
            for depth in range(len(parts), 0, -1):
                if not _remove(upper, below, parts[:depth], stub=depth == len(parts)):
                    break
        except OSError as error:
            if error.errno not in _GONE:
                raise


def _remove(upper: Fd, below: Fd, parts: list[str], *, stub: bool) -> bool:
    """Remove one object if it is an empty thing that says nothing; return whether it went."""
    path = "/".join(parts)
    before = _lstat(below, path)
    with open_in(upper, "/".join(parts[:-1]) or ".", _FOLDER, resolve=_STRICT) as parent:
        found = os.stat(parts[-1], dir_fd=parent.fileno(), follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and stub and before is None and not found.st_size and found.st_nlink == 1:
            os.unlink(parts[-1], dir_fd=parent.fileno())
            return True
        if not stat.S_ISDIR(found.st_mode):
            return False
        if before is not None:
            with open_in(parent, parts[-1], _FOLDER, resolve=_STRICT) as folder:
                if not _same(folder, found, before):
                    return False
        os.rmdir(parts[-1], dir_fd=parent.fileno())
        return True


def _lstat(root: Fd, path: str) -> os.stat_result | None:
    folder, _, name = path.rpartition("/")
    try:
        with open_in(root, folder or ".", os.O_PATH | os.O_DIRECTORY) as parent:
            return os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return None


def _same(folder: Fd, found: os.stat_result, before: os.stat_result) -> bool:
    """Whether a folder of the layer only repeats the one below."""
    kept = (found.st_mode, found.st_uid, found.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    return kept and OPAQUE_XATTR not in os.listxattr(folder.fileno())
