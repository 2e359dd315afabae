"""What a container changed: an overlay's upper folder compared with the tree below it.

As dockerd tells it (probed, 20.10): a file is changed when its kind, mode, owner, size, modification time, device or
capabilities differ, a folder when its mode or owner do; every folder above a change counts as changed, the root never.
The mount points and files that an engine makes in every container are not the container's doing.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from enum import IntEnum

from sampan.files.whiteouts import is_whiteout
from sampan.files.xattrs import CAPABILITY
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.paths import Resolve, open_in

_BELOW = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
# Made for the engine's own mounts, or by docker in every container.
_ENGINES_FILES = frozenset((".dockerenv", "dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf"))
_ENGINES_FOLDERS = frozenset(("dev", "dev/pts", "dev/shm", "dev/mqueue", "proc", "sys"))


class Kind(IntEnum):
    """The API's numbers (ContainerChangeResponseItem)."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass
class Changes:
    """What was found.

    kinds: by path, relative to the root;
    unchanged: what the upper folder holds, folders with all below them, though it is no change."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    unchanged: set[str] = field(default_factory=set)


def compare(upper: int | Fd, lower: int | Fd) -> Changes:
    """Return what the open folder `upper`, in overlayfs's form, changes in the open folder `lower`.

    No link is followed; what vanishes meanwhile is left out.  Raises OSError.
    """
    comparison = _Comparison(int(upper), int(lower))
    comparison.run()
    return comparison.found


class _Comparison:
    """Walks the upper folder with a list of what is left to do; the depth of a tree costs no descriptors."""

    def __init__(self, upper: int, lower: int) -> None:
        self._upper = upper
        self._lower = lower
        self.found = Changes()
        self._waiting: list[tuple[str, bool]] = [("", False)]  # folder, below an opaque one

    def run(self) -> None:
        quiet: list[str] = []  # folders of the upper tree that are no change by themselves
        while self._waiting:
            path, replaced = self._waiting.pop()
            try:
                with open_in(self._upper, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW) as folder:
                    below = self._open_lower(path)
                    try:
                        self._folder(folder, below, path, replaced, quiet)
                    finally:
                        if below is not None:
                            below.close()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
        self.found.unchanged.update(path for path in quiet if path not in self.found.kinds)

    def _open_lower(self, path: str) -> Fd | None:
        try:
            return open_in(self._lower, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)
        except OSError:  # not there, or something else
            return None

    def _folder(self, folder: Fd, below: Fd | None, path: str, replaced: bool, quiet: list[str]) -> None:
        prefix = f"{path}/" if path else ""
        names = os.listdir(folder.fileno())
        opaque = below is not None and _is_opaque(folder)
        if opaque and below is not None:
            for name in set(os.listdir(below.fileno())) - set(names):
                self._note(prefix + name, Kind.DELETED)
        replaced = replaced or opaque
        for name in names:
            child = prefix + name
            now = _stat(folder, name)
            if now is None:
                continue
            before = _stat(below, name) if below is not None else None
            if is_whiteout(now):
                if before is not None:
                    self._note(child, Kind.DELETED)
                else:
                    self.found.unchanged.add(child)
                continue
            if stat.S_ISDIR(now.st_mode):
                self._waiting.append((child, replaced))
            if child in _ENGINES_FILES and stat.S_ISREG(now.st_mode) and not now.st_size:
                self.found.unchanged.add(child)
            elif child in _ENGINES_FOLDERS and stat.S_ISDIR(now.st_mode):
                quiet.append(child)
            elif before is None:
                self._note(child, Kind.ADDED)
            elif _differs(before, now) or _capabilities(below, name) != _capabilities(folder, name):
                self._note(child, Kind.MODIFIED)
            elif stat.S_ISDIR(now.st_mode):
                if not replaced:
                    quiet.append(child)
            elif not replaced:
                self.found.unchanged.add(child)

    def _note(self, path: str, kind: Kind) -> None:
        kinds = self.found.kinds
        kinds[path] = kind
        above = path.rpartition("/")[0]
        while above and above not in kinds:
            kinds[above] = Kind.MODIFIED
            above = above.rpartition("/")[0]


def _stat(folder: Fd, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder.fileno(), follow_symlinks=False)
    except FileNotFoundError:
        return None


def _differs(before: os.stat_result, now: os.stat_result) -> bool:
    if (before.st_mode, before.st_uid, before.st_gid) != (now.st_mode, now.st_uid, now.st_gid):
        return True
    if stat.S_ISDIR(now.st_mode):
        return False
    return (before.st_size, before.st_rdev) != (now.st_size, now.st_rdev) or not _same_time(before.st_mtime_ns, now.st_mtime_ns)


def _same_time(one: int, other: int) -> bool:
    """Layers may have whole seconds only."""
    return one // 10**9 == other // 10**9 and (one == other or not one % 10**9 or not other % 10**9)


def _capabilities(folder: Fd | None, name: str) -> bytes:
    if folder is None:
        return b""
    try:
        with open_fd(name, os.O_PATH | os.O_NOFOLLOW, at=folder) as held:
            return os.getxattr(held.path, CAPABILITY)
    except OSError:
        return b""


def _is_opaque(folder: Fd) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(folder.fileno(), name) == b"y":
                return True
        except OSError:
            continue
    return False
