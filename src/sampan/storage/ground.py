"""Where on the disk a layer is unpacked.

ext4 keeps inodes that were freed in the last seconds (minutes, while unwritten) from being used again, and looks past each of
them for every new file (recently_deleted, fs/ext4/ialloc.c): in a block group where an image was just removed, making a file
takes up to a millisecond instead of 25 microseconds.  So layers are told to be unrelated, which spreads them over the
groups, and a place where the first files are slow is given up for another.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from sampan.files.atomic import remove_tree
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.inode_flags import mark_unrelated

_TRIES = 5
_PROBES = 3  # files
_QUICK = 60_000  # nanoseconds of processor time for one file, from which on a place is good enough
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Ground:
    """The folder in which layers are unpacked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with open_fd(folder, os.O_RDONLY | os.O_DIRECTORY) as held:
            self._spreads = mark_unrelated(held)

    def place(self) -> Path:
        """Make an empty folder, 0700, where files are quickly made, and return it."""
        with open_fd(self._folder, os.O_RDONLY | os.O_DIRECTORY) as held:
            made = [self._make(held)]
            while self._spreads and made[-1][0] > _QUICK and len(made) < _TRIES:  # slow ones stay meanwhile: no second one there
                made.append(self._make(held))
            best = min(made)
            for one in made:
                if one is not best:
                    remove_tree(held, one[1])
        return self._folder / best[1]

    def _make(self, at: Fd) -> tuple[int, str]:
        """Make a folder; return how long a file in it takes, and its name."""
        name = secrets.token_hex(16)
        os.mkdir(name, 0o700, dir_fd=int(at))
        if not self._spreads:
            return 0, name
        with open_fd(name, os.O_RDONLY | os.O_DIRECTORY, at=at) as folder:
            begun = time.thread_time_ns()
            for number in range(_PROBES):
                open_fd(str(number), _NEW, at=folder).close()
            took = (time.thread_time_ns() - begun) // _PROBES
            for number in range(_PROBES):
                os.unlink(str(number), dir_fd=folder.fileno())
        return took, name
