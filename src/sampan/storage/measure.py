"""How much a tree holds, each hard link counted once; the tree may change while it is measured."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from sampan.kernel.fds import open_fd
from sampan.kernel.paths import Resolve, open_in
from sampan.storage.driver import Usage

_STAY = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_XDEV
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG)


def measure(top: Path) -> Usage:
    """Return bytes and inodes below `top`, hard-linked files once.  A tree that is not there holds nothing.

    Somebody may be at work in it, and swap a folder for a link (SECURITY.md row 32): every folder is opened below the
    top through no link, into no other mount.
    """
    size = inodes = 0
    linked: set[tuple[int, int]] = set()
    waiting = ["."]
    try:
        root = open_fd(top, os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return Usage(0, 0)
    with root:
        while waiting:
            path = waiting.pop()
            try:
                with (
                    open_in(root, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_STAY) as folder,
                    os.scandir(folder.fileno()) as found,
                ):
                    for entry in found:
                        try:
                            about = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        if stat.S_ISDIR(about.st_mode):
                            waiting.append(f"{path}/{entry.name}")
                        elif about.st_nlink > 1:
                            if (about.st_dev, about.st_ino) in linked:
                                continue
                            linked.add((about.st_dev, about.st_ino))
                            size += about.st_size
                        else:
                            size += about.st_size
                        inodes += 1
            except OSError as error:
                if error.errno not in _VANISHED:
                    raise
    return Usage(size, inodes)
