"""The folders of a tree being written, held open: every path resolves inside the root, as under chroot(2).

A link's absolute target begins at the root, `..` stops there, magic links are refused: openat2(2).  A folder held
may be renamed by another writer meanwhile, but stays in the tree; whoever replaces something says `forget`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from sampan.files.tar_entry import BadArchive
from sampan.files.view import View
from sampan.kernel.fds import Fd
from sampan.kernel.paths import open_in

_HELD = 64  # folders kept open
_MAX_LINKS = 40  # as the kernel, path_resolution(7)
_FOLDER = os.O_PATH | os.O_DIRECTORY


class Parents:
    """The folders under `root` by path; a context manager that closes them.

    make: makes the missing folder `name` in the folder `at`; it may replace what is there and is no folder.
    """

    def __init__(self, root: int | Fd | View, make: Callable[[int, str], None]) -> None:
        self._view = root if isinstance(root, View) and not root.plain else None
        self._root = int(root.root if isinstance(root, View) else root)
        self._make = make
        self._held: dict[str, Fd] = {}
        self._real: dict[str, str] = {}

    def __enter__(self) -> Parents:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()

    def forget(self, but: int = -1) -> None:
        """Close all, except the descriptor `but` in use: a folder or a link in the tree was replaced."""
        kept = {}
        for path, folder in self._held.items():
            if folder.fileno() == but:
                kept[path] = folder
            else:
                folder.close()
                self._real.pop(path, None)
        self._held = kept

    def folder(self, path: str) -> int:
        """Return the folder `path` ("" is the root), made with its parents when missing; ours until the next call."""
        return self._get(path, create=True)

    def existing(self, path: str) -> int:
        """Return the folder `path`.  Raises FileNotFoundError, NotADirectoryError."""
        return self._get(path, create=False)

    def _get(self, path: str, *, create: bool) -> int:
        if not path:
            return self._root
        if (held := self._held.get(path)) is not None:
            return held.fileno()
        try:
            opened = self._open(path, path)
        except (FileNotFoundError, NotADirectoryError):
            if not create:
                raise
            opened = self._open(self._make_all(path), path)
        if len(self._held) >= _HELD:
            oldest = next(iter(self._held))
            self._held.pop(oldest).close()
            self._real.pop(oldest, None)
        self._held[path] = opened
        return opened.fileno()

    def _open(self, path: str, name: str) -> Fd:
        """Open the folder `path`, and remember what it really is as that of `name`."""
        if self._view is None:
            return open_in(self._root, path or ".", _FOLDER)
        opened, real = self._view.open(path)
        if not stat.S_ISDIR(os.fstat(opened.fileno()).st_mode):
            opened.close()
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        self._real[name] = real
        return opened

    def real(self, path: str) -> str:
        """Return what the folder `path`, which was just asked for, is without links; `path` itself when no view is at hand."""
        return self._real.get(path, path) if path else ""

    def _make_all(self, path: str) -> str:
        """Make the missing folders of `path`, also behind dangling links; return the path without links."""
        waiting = path.split("/")[::-1]
        real: list[str] = []
        links = 0
        while waiting:
            name = waiting.pop()
            if name in ("", "."):
                continue
            if name == "..":
                real[-1:] = []
                continue
            with self._open("/".join(real), "") as at:
                target = self._step(at.fileno(), name)
            if target is None:
                real.append(name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise BadArchive("too many symbolic links in a path", entry=path)
            if target.startswith("/"):
                real.clear()
            waiting += target.split("/")[::-1]
        return "/".join(real) or "."

    def _step(self, at: int, name: str) -> str | None:
        """Return the link's target when `name` is one; else see that it is a folder."""
        try:
            mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        except FileNotFoundError:
            mode = 0
        if stat.S_ISLNK(mode):
            return os.readlink(name, dir_fd=at)
        if not stat.S_ISDIR(mode):
            self._make(at, name)
        return None


def clean(path: str, what: str = "name") -> str:
    """Return `path` without empty parts, `.` and `..`; "" is the root.  Raises BadArchive when it leaves the root."""
    if "\0" in path:
        raise BadArchive(f"{what} contains a NUL byte")
    if "//" not in path and "." not in path:
        return path.strip("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                raise BadArchive(f"{what} leads out of the root: {path[:200]!r}")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


# What the kernel answers when the archive, not the host, is at fault.
ARCHIVE_FAULTS = frozenset(
    (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.EEXIST, errno.ENOENT,
     errno.ENOTEMPTY, errno.EFBIG, errno.EMLINK, errno.EOVERFLOW, errno.EXDEV)
)  # fmt: skip
