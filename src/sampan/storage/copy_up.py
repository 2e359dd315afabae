"""Filling an empty volume with the image's files: whole or not at all, also when the daemon is killed meanwhile.

    volumes/<name>/filling    the copy under way, seen by no container; thrown away when it is found later
    volumes/<name>/filled     the finished copy, whose entries move into _data; going on where a killed daemon stopped

What is mounted on a volume (its options) is another file system: there the copy goes straight in.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from sampan.files.atomic import empty_folder, remove_tree
from sampan.files.copy_tree import copy_tree, like
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.sync import syncfs

_turns = tuple(threading.Lock() for _ in range(16))  # of the volumes that share a lock one is filled at a time
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def copy_up(volume: Path, source: Callable[[], Fd | None]) -> None:
    """Fill `volume`/_data from the folder that `source` opens, when it is empty.  Raises OSError; then it is empty still."""
    filled = volume / "filled"
    with _turns[hash(volume) % len(_turns)], open_fd(volume / "_data", _FOLDER) as data:
        if os.path.isdir(filled):
            _move(volume, data)
            return
        if os.listdir(data.fileno()):
            return
        opened = source()
        if opened is None:
            return
        with opened as old:
            if os.fstat(data.fileno()).st_dev != os.stat(volume).st_dev:
                _straight(old, data)
                return
            _stage(volume, old)
        _move(volume, data)


def _straight(old: Fd, data: Fd) -> None:
    try:
        copy_tree(old, data)
    except BaseException:
        empty_folder(data)
        raise
    like(data, old, os.fstat(old.fileno()))


def _stage(volume: Path, old: Fd) -> None:
    with open_fd(volume, _FOLDER) as folder:
        remove_tree(folder, "filling")
        os.mkdir("filling", 0o700, dir_fd=folder.fileno())
        try:
            with Fd(os.open("filling", _FOLDER | os.O_CLOEXEC, dir_fd=folder.fileno())) as stage:
                copy_tree(old, stage)
                like(stage, old, os.fstat(old.fileno()))
                syncfs(stage)
            os.rename("filling", "filled", src_dir_fd=folder.fileno(), dst_dir_fd=folder.fileno())
            os.fsync(folder.fileno())
        except BaseException:
            remove_tree(folder, "filling")
            raise


def _move(volume: Path, data: Fd) -> None:
    """Move the entries; a name that a container has made meanwhile stays the container's."""
    with open_fd(volume, _FOLDER) as folder, open_fd(volume / "filled", _FOLDER) as filled:
        for name in os.listdir(filled.fileno()):
            try:
                os.lstat(name, dir_fd=data.fileno())
            except FileNotFoundError:
                try:
                    os.rename(name, name, src_dir_fd=filled.fileno(), dst_dir_fd=data.fileno())
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR):
                        raise
        like(data, filled, os.fstat(filled.fileno()))
        remove_tree(folder, "filled")
