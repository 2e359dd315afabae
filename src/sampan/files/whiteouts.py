"""Whiteouts in their two forms: `.wh.` names in archives, and what overlayfs or a plain tree makes of them.

Sources: OCI image-spec layer.md ("Whiteouts"), Documentation/filesystems/overlayfs.rst ("whiteouts and opaque
directories").
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
from collections.abc import Callable

from sampan.files.atomic import remove_tree
from sampan.kernel.fds import open_fd

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Whiteouts(enum.Enum):
    """What a `.wh.NAME` entry means.

    OVERLAY: a mark in a layer of its own: a character device 0:0, or the xattr of an opaque folder.
    REMOVE: NAME of the tree below goes away.
    PLAIN: a file of that name.
    """

    OVERLAY = "overlay"
    REMOVE = "remove"
    PLAIN = "plain"


def is_whiteout(found: os.stat_result) -> bool:
    """Return whether overlayfs takes it for a whiteout."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def make_folder(at: int, name: str, whiteouts: Whiteouts, clear: Callable[[int, str], None] | None = None) -> None:
    """Make the folder `name` (0755) unless there is one; `clear` removes what else is there (without it: ENOTDIR).

    A folder in a whiteout's place hides the lower layers' folder as the whiteout did: it is made opaque.
    """
    try:
        os.mkdir(name, 0o755, dir_fd=at)
    except FileExistsError:
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return
        whiteout = whiteouts is Whiteouts.OVERLAY and is_whiteout(found)
        if whiteout:
            os.unlink(name, dir_fd=at)
        elif clear is None:
            raise NotADirectoryError(errno.ENOTDIR, "something else stands where a folder is needed", name) from None
        else:
            clear(at, name)
        os.mkdir(name, 0o755, dir_fd=at)
        if whiteout:
            _make_opaque(at, name)
    # mkdir(2) took the umask away
    with open_fd(name, _FOLDER, at=at) as folder:
        os.fchmod(folder.fileno(), 0o755)


def hide(at: int, name: str, whiteouts: Whiteouts, touched: set[int]) -> None:
    """Hide the lower `name` in the folder `at`; what this archive itself brought (`touched` inodes) stays."""
    if whiteouts is Whiteouts.REMOVE:
        _remove_lower(at, name, touched)
        return
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=at)
    except FileExistsError:
        if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            _make_opaque(at, name)


def hide_all(at: int, whiteouts: Whiteouts, touched: set[int]) -> None:
    """Hide all that lower layers have in the folder `at` (an O_PATH descriptor will do)."""
    if whiteouts is Whiteouts.REMOVE:
        with open_fd(".", _FOLDER, at=at) as folder:
            for name in os.listdir(folder.fileno()):
                _remove_lower(folder.fileno(), name, touched)
    else:
        _make_opaque(at, ".")


def _make_opaque(at: int, name: str) -> None:
    with open_fd(name, _FOLDER, at=at) as folder:
        os.setxattr(folder.fileno(), OPAQUE_XATTR, b"y")


def _remove_lower(at: int, name: str, touched: set[int]) -> None:
    try:
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        if found.st_ino not in touched:
            os.unlink(name, dir_fd=at)
        return
    if not touched:
        remove_tree(at, name)
        return
    with open_fd(name, _FOLDER, at=at) as folder:
        for child in os.listdir(folder.fileno()):
            _remove_lower(folder.fileno(), child, touched)
    if found.st_ino not in touched:
        with contextlib.suppress(OSError):  # not empty: it holds something this archive brought
            os.rmdir(name, dir_fd=at)
