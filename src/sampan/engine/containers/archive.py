"""Copy: what a path in a container is, its tar out, a tar in (engine-api 3.2, archive)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sampan.engine.containers import tree
from sampan.engine.containers.container import Container
from sampan.engine.images.image import rfc3339
from sampan.engine.images.streams import Reporter, Watched, streamed
from sampan.engine.userns import SIZE
from sampan.errors import Conflict, Forbidden, InvalidRequest, NotFound
from sampan.files.compression import open_decompressed
from sampan.files.tar_apply import Budget, Options, Whiteouts, apply
from sampan.files.tar_write import Source, found_tar
from sampan.files.users import resolve
from sampan.files.view import View
from sampan.kernel.fds import Fd
from sampan.wire.archive import PathStat

_BUDGET = Budget(max_bytes=1 << 60, max_entries=1 << 40)  # the disk's own limits hold, as for whatever else runs inside
_PIECE = 256 << 10
_ST_RDONLY = 1

# Go's os.FileMode
_TYPES = {
    stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFBLK: 1 << 26, stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24,
}  # fmt: skip
_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


@dataclass(frozen=True)
class Wanted:
    """A path as a client wrote it.

    inside: a `/` or `/.` at its end: it must be a folder, and is followed; name: what it is called in an archive.
    """

    path: str
    inside: bool
    name: str

    @classmethod
    def of(cls, text: str) -> Wanted:
        if not text:
            raise InvalidRequest("bad parameter: path cannot be empty")
        if "\0" in text:
            raise InvalidRequest("bad parameter: path holds a NUL")
        parts: list[str] = []
        for part in text.split("/"):
            if part == "..":
                del parts[-1:]
            elif part not in ("", "."):
                parts.append(part)
        last = text.rpartition("/")[2]
        name = "." if last == "." and parts else parts[-1] if parts else "/"
        return cls("/".join(parts), last in ("", ".") or not parts, name)


def find(view: View, wanted: Wanted, name: str, *, follow: bool = False) -> tuple[Fd, str]:
    """Return the object as an O_PATH descriptor and its real path.  Raises NotFound, InvalidRequest."""
    try:
        held, real = view.open(wanted.path, follow=follow or wanted.inside)
    except FileNotFoundError:
        raise NotFound(f"Could not find the file /{wanted.path} in container {name}") from None
    except OSError as error:
        raise InvalidRequest(f"/{wanted.path}: {(error.strerror or '').lower()}") from None
    if wanted.inside and not follow and not stat.S_ISDIR(os.fstat(held.fileno()).st_mode):
        held.close()
        raise InvalidRequest(f"/{wanted.path}: not a directory")
    return held, real


def about(view: View, wanted: Wanted, held: Fd) -> PathStat:
    """Return what the path is."""
    found = os.fstat(held.fileno())
    mode = stat.S_IMODE(found.st_mode) & 0o777 | _TYPES.get(stat.S_IFMT(found.st_mode), 0)
    mode |= sum(go for bit, go in _BITS if found.st_mode & bit)
    link = f"/{view.where(wanted.path)}" if stat.S_ISLNK(found.st_mode) else ""
    return PathStat(name=wanted.name, size=found.st_size, mode=mode, mtime=rfc3339(found.st_mtime_ns), link_target=link)


def path_stat(container: Container, path: str, name: str) -> PathStat:
    """HEAD.  Blocks; the caller holds the lock."""
    wanted = Wanted.of(path)
    with tree.opened(container, writable=False) as found:
        held, _ = find(found.view, wanted, name)
        with held:
            return about(found.view, wanted, held)


class Outgoing:
    """A tar on its way out, of the very object that `stat` is about; close it, used up or not."""

    def __init__(self, found: tree.Tree, wanted: Wanted, name: str) -> None:
        self._tree = found
        self._name = wanted.name
        self._held, self._real = find(found.view, wanted, name)
        self._begun = False
        self.stat = about(found.view, wanted, self._held)

    def chunks(self) -> AsyncIterator[bytes]:
        return streamed(self._work)

    def _work(self, reporter: Reporter[bytes]) -> None:
        self._begun = True
        with self._tree.view as view:
            source = Source(name=self._name, id_shift=-(self._tree.base or 0), quick=True)
            send(found_tar(view, self._held, self._real, source), reporter)

    async def close(self) -> None:
        if not self._begun:
            self._held.close()
            self._tree.view.close()


def send(blocks: Iterator[bytes], reporter: Reporter[bytes]) -> None:
    """Report an archive in pieces of a good size: a small file is three blocks, and each piece costs a wake-up."""
    waiting: list[bytes] = []
    size = 0
    try:
        for block in blocks:
            waiting.append(block)
            size += len(block)
            if size >= _PIECE:
                reporter.report(b"".join(waiting))
                waiting, size = [], 0
        if waiting:
            reporter.report(b"".join(waiting))
    finally:
        close = getattr(blocks, "close", None)
        if close is not None:
            close()


def outgoing(container: Container, path: str, name: str) -> Outgoing:
    """GET.  Blocks; the caller holds the lock until it returns."""
    wanted = Wanted.of(path)
    found = tree.whole(container, writable=False)
    try:
        return Outgoing(found, wanted, name)
    except BaseException:
        found.view.close()
        raise


@dataclass(frozen=True)
class Wish:
    """What is to be copied in, and how.

    name: the container, as the client wrote it; keep_kinds: a folder is not replaced by something else, nor the reverse;
    as_user: everything belongs to the container's user, whatever the archive says.
    """

    path: str
    name: str
    keep_kinds: bool = False
    as_user: bool = False


class Incoming:
    """A tar on its way in, made under the lock.  Raises NotFound, InvalidRequest, Forbidden, Conflict, OSError."""

    def __init__(self, container: Container, wish: Wish) -> None:
        self._container = container
        self._keep_kinds = wish.keep_kinds
        self._wanted = Wanted.of(wish.path)
        self._tree = tree.whole(container, writable=True)
        self._started = container.record.started
        self._was_running = container.record.running
        try:
            self._into = self._folder(wish.name)
            self._owner = self._identity() if wish.as_user else None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._tree.view.close()

    def _folder(self, name: str) -> str:
        view, record = self._tree.view, self._container.record
        held, real = find(view, self._wanted, name, follow=True)
        with held:
            if not stat.S_ISDIR(os.fstat(held.fileno()).st_mode):
                raise InvalidRequest("extraction point is not a directory")
            read_only = os.fstatvfs(held.fileno()).f_flag & _ST_RDONLY
        in_place = view.place_of(real) is not None
        if in_place and read_only:
            raise Forbidden("mounted volume is marked read-only")
        if not in_place and (read_only or record.host.readonly_rootfs):
            raise Forbidden("container rootfs is marked read-only")
        return real

    def _identity(self) -> tuple[int, int] | None:
        user = self._container.record.config.user
        if not user:
            return None
        found = resolve(self._tree.view.root, user, ())
        return found.uid, found.gid

    def apply(self, tar: BinaryIO) -> None:
        """Read and apply the whole body.  Blocks.  Raises InvalidRequest, Forbidden, Conflict, OSError."""
        base = self._tree.base
        options = Options(
            into=self._into, id_shift=base or 0, id_limit=None if base is None else SIZE, owner=self._owner,
            keep_kinds=self._keep_kinds,
        )  # fmt: skip
        _, plain = open_decompressed(Watched(tar, self._check))
        try:
            with self._tree.acting():
                apply(plain, self._tree.view, whiteouts=Whiteouts.PLAIN, budget=_BUDGET, options=options)
        except OSError as error:
            raise self._refusal(error) from error
        while plain.read(_PIECE):  # tar pads to its record size
            pass

    def _check(self) -> None:
        """A container that ends and starts again has another mount: what is written to the old one could be lost."""
        record = self._container.record
        if self._was_running and (not record.running or record.started != self._started):
            raise Conflict(f"container {record.id} ended while files were copied into it")

    def _refusal(self, error: OSError) -> Exception:
        if error.errno is None or error.filename is None:
            return error
        path = f"/{self._into}/{error.filename}".replace("//", "/")
        if error.errno == errno.EROFS:
            return Forbidden(f"{path}: mounted volume is marked read-only")
        if error.errno == errno.EBUSY:
            return Conflict(f"unlinkat {path}: device or resource busy")
        return OSError(error.errno, error.strerror, path)
