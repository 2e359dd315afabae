"""A container's files as one tree: its root file system, and its volumes and binds at their places, each a descriptor.

Nothing is mounted for it.  A name is resolved here, one component at a time where links or places are in the way: every
open is openat2(2) below the descriptor of the root or of a place, links not followed by the kernel but read and walked by
us from the root (SECURITY.md rows 32-34).  A container that renames and swaps meanwhile decides which of its own files is
found, and can never lead out of them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping

from sampan.kernel.fds import Fd
from sampan.kernel.paths import Resolve, open_in

_MAX_LINKS = 40  # as the kernel, path_resolution(7)
_STRAIGHT = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS | Resolve.NO_SYMLINKS
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # ELOOP: replaced by a link at this moment
_HELD = os.O_PATH | os.O_NOFOLLOW


class View:
    """The root and the places, owned and closed by this object.

    Paths are relative to the root, "" is the root itself; a path that is `real` has no links and no `.` or `..` in it.
    guarded: real paths that are mount points of the container's as well: they can be neither removed nor replaced.
    """

    def __init__(self, root: Fd, places: Mapping[str, Fd] | None = None, guarded: Iterable[str] = ()) -> None:
        self.root = root
        self._places: dict[str, Fd] = {}
        self._busy: set[str] = set()  # what is mounted, and every folder above it
        for path in guarded:
            self._mark(path.strip("/"))
        waiting = dict(places or {})
        try:
            for target in sorted(waiting, key=lambda path: path.count("/")):
                real = self.where(target)
                if (covered := self._places.pop(real, None)) is not None:
                    covered.close()
                self._places[real] = waiting.pop(target)
                self._mark(real)
        except BaseException:
            for fd in waiting.values():
                fd.close()
            self.close()
            raise

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.root.close()
        for place in self._places.values():
            place.close()
        self._places.clear()

    def where(self, path: str) -> str:
        """Return the real path that `path` would have, links resolved; parts that are missing stand as they are."""
        held, real = self._walk([part for part in path.split("/") if part not in ("", ".")], True, missing=True)
        held.close()
        return real

    def _mark(self, real: str) -> None:
        while real:
            self._busy.add(real)
            real = real.rpartition("/")[0]

    @property
    def plain(self) -> bool:
        """Whether there are no places."""
        return not self._places

    def place(self, real: str) -> Fd | None:
        """Return the place that is at `real`, ours to lend."""
        return self._places.get(real)

    def place_of(self, real: str) -> str | None:
        """Return the place that holds `real`; None when the root file system does."""
        while real:
            if real in self._places:
                return real
            real = real.rpartition("/")[0]
        return None

    def covers(self, real: str) -> bool:
        """Return whether places lie below `real`."""
        return bool(self._places) if not real else any(path.startswith(f"{real}/") for path in self._places)

    def names(self, real: str) -> list[str]:
        """Return the names of places in the folder `real`."""
        return [path.rpartition("/")[2] for path in self._places if path.rpartition("/")[0] == real]

    def busy(self, real: str) -> bool:
        """Return whether something is mounted at `real` or below."""
        return real in self._busy

    def open(self, path: str, *, follow: bool = True) -> tuple[Fd, str]:
        """Return an O_PATH descriptor of `path` and its real path; the last component is followed when `follow`.

        `..` stops at the root, links resolve in the root.  Raises FileNotFoundError, NotADirectoryError, OSError(ELOOP).
        """
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." not in parts:
            real = "/".join(parts)
            try:
                held = self.straight(real)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
            else:
                if not follow or not stat.S_ISLNK(os.fstat(held.fileno()).st_mode):
                    return held, real
                held.close()
        return self._walk(parts, follow)

    def straight(self, real: str) -> Fd:
        """Open a real path (O_PATH): through no link, ELOOP when there is one; what it leads to may be one."""
        base = self.place_of(real) if self._places else None
        if base is None:
            return open_in(self.root, real or ".", _HELD, resolve=_STRAIGHT)
        if base == real:
            return Fd(os.dup(self._places[base].fileno()))
        return open_in(self._places[base], real[len(base) + 1 :], _HELD, resolve=_STRAIGHT)

    def _walk(self, parts: list[str], follow: bool, *, missing: bool = False) -> tuple[Fd, str]:
        waiting = parts[::-1]
        real: list[str] = []
        links = 0
        held = Fd(-1)  # what `real` is, unless closed
        try:
            while waiting:
                name = waiting.pop()
                if name in ("", "."):
                    continue
                held.close()
                if name == "..":
                    del real[-1:]
                    continue
                real.append(name)
                try:
                    held = self.straight("/".join(real))
                except OSError as error:
                    if not missing or error.errno not in _NOT_THERE:
                        raise
                    continue
                mode = os.fstat(held.fileno()).st_mode
                if stat.S_ISLNK(mode) and (waiting or follow):
                    links += 1
                    if links > _MAX_LINKS and missing:
                        continue
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, "too many symbolic links", "/".join(parts))
                    target = os.readlink("", dir_fd=held.fileno())
                    held.close()
                    real = [] if target.startswith("/") else real[:-1]
                    waiting += target.split("/")[::-1]
                elif waiting and not missing and not stat.S_ISDIR(mode):
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory", "/".join(parts))
            if held.closed and not missing:
                held = self.straight("/".join(real))
            return held, "/".join(real)
        except BaseException:
            held.close()
            raise
