"""How much a tree holds, each hard link counted once; the tree may change while it is measured."""

from __future__ import annotations

import os
from pathlib import Path

from sampan.storage.driver import Usage


def measure(top: Path) -> Usage:
    """Return bytes and inodes below `top`; no symbolic link is followed.  A tree that is not there holds nothing."""
    size = inodes = 0
    linked: set[tuple[int, int]] = set()
    waiting = [str(top)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except (FileNotFoundError, NotADirectoryError):  # somebody is at work while we look
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            folder = entry.is_dir(follow_symlinks=False)
            if found.st_nlink > 1 and not folder:
                if (found.st_dev, found.st_ino) in linked:
                    continue
                linked.add((found.st_dev, found.st_ino))
            inodes += 1
            if folder:
                waiting.append(entry.path)
            else:
                size += found.st_size
    return Usage(size, inodes)
