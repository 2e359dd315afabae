"""Copying picked files into a tree: as a tar stream, through the reader that is hardened for archives (files/tar_apply.py)."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from sampan.build.chmod import change
from sampan.build.digests import readlink, xattrs
from sampan.build.select import Picked, Root
from sampan.errors import InvalidRequest
from sampan.files.tar_apply import Options, Whiteouts, apply
from sampan.files.tar_entry import Entry, Kind
from sampan.files.tar_header import END, header, padding
from sampan.files.users import resolve as resolve_user
from sampan.kernel.fds import Fd
from sampan.kernel.paths import open_in

_CHUNK = 256 << 10
_MAX_LINKS = 40


@dataclass(frozen=True)
class Target:
    """Where files go.

    folder: they go into `path`; else the one file is to be `path`.  owner: for everything; None: as they are.
    """

    path: str
    folder: bool
    owner: tuple[int, int] | None = (0, 0)
    chmod: str = ""


class Stream:
    """A generator of bytes as a reader; told to stop, it raises what `check` raises."""

    def __init__(self, pieces: Iterator[bytes], check: Callable[[], None]) -> None:
        self._pieces = pieces
        self._check = check
        self._left = memoryview(b"")

    def read(self, size: int = _CHUNK, /) -> bytes:
        """Return 1 to `size` bytes; b"" at the end."""
        out: list[bytes | memoryview] = []
        wanted = size
        while wanted:
            if not self._left:
                piece = next(self._pieces, b"")
                if not piece:
                    break
                self._left = memoryview(piece)
            taken = self._left[:wanted]
            self._left = self._left[len(taken) :]
            wanted -= len(taken)
            out.append(taken)
        self._check()
        return b"".join(out)


def destination(root: Fd, path: str, *, many: bool) -> tuple[str, bool]:
    """Return where `path` really is, links followed inside the root, and whether it is a folder or to be one.

    Raises InvalidRequest when it is a file and several things are to go in it.
    """
    folder = path.endswith("/") or path == "/"
    real = path.strip("/")
    for _ in range(_MAX_LINKS):
        found = _lstat(root, real)
        if found is None or not stat.S_ISLNK(found.st_mode):
            break
        at, _, name = real.rpartition("/")
        with open_in(root, at or ".", os.O_PATH | os.O_DIRECTORY) as parent:
            target = os.readlink(name, dir_fd=parent.fileno())
        real = _joined("" if target.startswith("/") else at, target)
    else:
        raise InvalidRequest(f"destination {path[:200]!r}: too many symbolic links")
    there = found is not None and stat.S_ISDIR(found.st_mode)
    if found is not None and not there and (folder or many):
        raise InvalidRequest(f"cannot copy to non-directory: {path[:200]}")
    return real, folder or there or many


def _joined(at: str, target: str) -> str:
    parts = at.split("/") if at else []
    for part in target.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _lstat(root: Fd, path: str) -> os.stat_result | None:
    at, _, name = path.rpartition("/")
    if not name:
        return os.fstat(root.fileno())
    try:
        with open_in(root, at or ".", os.O_PATH | os.O_DIRECTORY) as parent:
            return os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return None


def owner(root: Fd, chown: str) -> tuple[int, int]:
    """Return who --chown means, by the passwd and group files below the root; 0:0 for nothing.  Raises InvalidRequest."""
    if not chown:
        return 0, 0
    user, colon, _ = chown.partition(":")
    found = resolve_user(root, chown if user else "0" + chown, ())
    if not colon and user.isascii() and user.isdigit():
        return found.uid, found.uid
    return found.uid, found.gid


def copy(root: Root, picked: Iterable[Picked], tree: Fd, target: Target, check: Callable[[], None]) -> None:
    """Copy files into the tree.  Raises InvalidRequest, OSError; what was copied stays: the caller throws the tree away."""
    apply_stream(Stream(_archive(root, picked, target), check), tree, target)


def write_inline(files: Iterable[tuple[str, str]], tree: Fd, target: Target, now: int) -> None:
    """Write here-documents: mode 0644, of the time `now` in nanoseconds."""

    def pieces() -> Iterator[bytes]:
        for name, content in files:
            data = content.encode(errors="surrogateescape")
            shown = name if target.folder else posixpath.basename(target.path)
            mode = change(target.chmod, 0o644, folder=False)
            yield header(Entry(shown, Kind.FILE, mode=mode, size=len(data), stored=len(data), mtime_ns=now))
            yield data + padding(len(data))
        yield END

    apply_stream(Stream(pieces(), lambda: None), tree, target)


def apply_stream(stream: Stream, tree: Fd, target: Target) -> None:
    """Apply a tar to the destination."""
    into = target.path if target.folder else posixpath.dirname(target.path)
    try:
        apply(stream, tree, whiteouts=Whiteouts.PLAIN, options=Options(into=into, owner=target.owner, keep_kinds=True))
    except InvalidRequest as error:
        if "cannot overwrite" in str(error):
            raise InvalidRequest(f"{error} at /{into}") from None
        raise


def _archive(root: Root, picked: Iterable[Picked], target: Target) -> Iterator[bytes]:
    linked: dict[tuple[int, int], str] = {}
    for one in picked:
        name = one.name
        if not name and not stat.S_ISDIR(one.found.st_mode):
            name = posixpath.basename(target.path)
        found = one.found
        mode = change(target.chmod, stat.S_IMODE(found.st_mode), folder=stat.S_ISDIR(found.st_mode))
        plain = Entry(name, Kind.FILE, mode=mode, uid=found.st_uid, gid=found.st_gid, mtime_ns=found.st_mtime_ns)
        if stat.S_ISREG(found.st_mode):
            first = linked.setdefault((found.st_dev, found.st_ino), name) if found.st_nlink > 1 else name
            if first != name:
                yield header(replace(plain, kind=Kind.HARD_LINK, linkname=first))
            else:
                yield from _file(root, one.path, plain)
        elif name or not stat.S_ISDIR(found.st_mode):
            special = _special(root, one, plain)
            if special is not None:
                yield header(special)
    yield END


def _special(root: Root, one: Picked, plain: Entry) -> Entry | None:
    """Return the entry of what is no file; None for a socket."""
    mode = one.found.st_mode
    if stat.S_ISDIR(mode):
        return replace(plain, name=f"{plain.name}/", kind=Kind.DIRECTORY)
    if stat.S_ISLNK(mode):
        return replace(plain, kind=Kind.SYMLINK, linkname=readlink(root, one.path), mode=0o777)
    if stat.S_ISFIFO(mode):
        return replace(plain, kind=Kind.FIFO)
    if stat.S_ISSOCK(mode):
        return None
    kind = Kind.CHAR if stat.S_ISCHR(mode) else Kind.BLOCK
    return replace(plain, kind=kind, devmajor=os.major(one.found.st_rdev), devminor=os.minor(one.found.st_rdev))


def _file(root: Root, path: str, entry: Entry) -> Iterator[bytes]:
    with open_in(root.fd, path, os.O_RDONLY | os.O_NONBLOCK) as file:
        size = os.fstat(file.fileno()).st_size
        yield header(replace(entry, size=size, stored=size, xattrs=dict(xattrs(file))))
        left = size
        while left:
            data = os.read(file.fileno(), min(left, _CHUNK)) or bytes(min(left, _CHUNK))
            left -= len(data)
            yield data
        if fill := padding(size):
            yield fill
