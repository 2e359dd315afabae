"""Writing a tree, or what overlayfs recorded as changed, as a tar archive.

The tree may be at work and hostile: every object is opened below the root without following links, what it is and how
large is asked of the descriptor, no device is ever opened, no mount entered.  Sockets are left out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.errors import Unsupported
from sampan.files.digests import Writable
from sampan.files.tar_entry import BLOCK, MAX_NAME, Entry, Kind
from sampan.files.tar_header import END, header, padding, plain_file
from sampan.files.view import View
from sampan.files.whiteouts import OPAQUE, WHITEOUT, is_whiteout
from sampan.files.xattrs import CAPABILITY, allowed
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.paths import Resolve, open_in

_CHUNK = 64 << 10  # more at once is memory that the C library gives back and gets anew, page by page
_SMALL = 64 << 10
_BELOW = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS | Resolve.NO_XDEV
_HELD = os.O_PATH | os.O_NOFOLLOW
_KINDS = {
    stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK, stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK, stat.S_IFIFO: Kind.FIFO,
}  # fmt: skip
_RANGE, _NOBODY = 65536, 65534
_BY_NAME = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_REDIRECTS = ("redirect", "metacopy")


@dataclass(frozen=True)
class Source:
    """What of the open folder to write, and how.

    path: the object inside the root, links in its folders resolved in the root, itself not followed; "" is the root.
    name: what stands for `path` in the archive; "" leaves the root itself out and names what is below it.
    overlay: the tree is the upper folder of an overlay: write whiteouts as `.wh.` files.
    id_shift: added to every owner and group; below 0 it takes a container's range back to 0 to 65535, and who is not of the
        range is nobody (65534).
    follow: in a view, follow `path` when it is a link.
    skip: paths below `path` that are left out.
    quick: no device can be opened in the tree (its mounts have nodev, or nobody hostile writes to it): then files are opened
        by their names, at a third less.
    """

    path: str = ""
    name: str = ""
    overlay: bool = False
    id_shift: int = 0
    follow: bool = False
    skip: frozenset[str] = frozenset()
    quick: bool = False


def tree_tar(root: int | Fd | View, source: Source = Source()) -> Iterator[bytes]:
    """Yield the tar archive of a tree, in the order of the names' bytes; what vanishes on the way is left out.

    In a view the places are part of the tree.  Close the generator when it is not used up.  Raises FileNotFoundError
    when there is no `path`, OSError.
    """
    if isinstance(root, View):
        yield from found_tar(root, *root.open(source.path, follow=source.follow), source)
        return
    with _open_start(root, source.path) as start:
        yield from _Writer(start, source).run()


def found_tar(view: View, start: Fd, real: str, source: Source) -> Iterator[bytes]:
    """Yield the archive of what `view.open` has found, `source.path` aside; closes `start`."""
    with start:
        yield from _Writer(start, source, view, real).run()


def write_tree(root: int | Fd, out: Writable, source: Source = Source()) -> int:
    """Write the archive of `tree_tar` to `out` and return its length."""
    total = 0
    for data in tree_tar(root, source):
        out.write(data)
        total += len(data)
    return total


def diff_tar(upper: int | Fd, *, id_shift: int = 0) -> Iterator[bytes]:
    """Yield the layer archive of an overlay's upper folder (0:0 devices and opaque folders as `.wh.` files).

    Raises Unsupported when overlayfs recorded a renamed folder or a copy without content, which no layer can say.
    """
    return tree_tar(upper, Source(overlay=True, id_shift=id_shift))


def _open_start(root: int | Fd, path: str) -> Fd:
    folder, _, name = path.strip("/").rpartition("/")
    if not name or name in (".", ".."):
        return open_in(root, path or ".", os.O_PATH)
    with open_in(root, folder or ".", os.O_PATH | os.O_DIRECTORY) as at:
        return open_fd(name, _HELD, at=at)


_Level = tuple[str, list[str], set[str]]  # a folder's path, its names from the last to the first, files among them


class _Writer:
    """One archive.  Holds the descriptor of one folder at a time: the depth of a tree costs no descriptors.

    What is small is gathered in `_ready` by plain calls; a file that is not small waits open in `_large`.
    """

    def __init__(self, start: Fd, source: Source, view: View | None = None, real: str = "") -> None:
        self._start = start
        self._source = source
        self._view = view if view is not None and view.covers(real) else None
        self._resolve = _BELOW if view is None else _BELOW & ~Resolve.NO_XDEV
        self._real = real
        self._linked: dict[tuple[int, int], str] = {}
        self._ready: list[bytes] = []
        self._size = 0
        self._large: tuple[Fd, int] | None = None

    def run(self) -> Iterator[bytes]:
        found = os.fstat(self._start.fileno())
        name = self._source.name
        if name or not stat.S_ISDIR(found.st_mode):
            self._object(self._start, name or "file", found)
            yield from self._content()
        elif self._source.overlay and self._is_opaque(self._start):
            self._add(header(self._mark(OPAQUE, found)))
        if stat.S_ISDIR(found.st_mode):
            yield from self._below(name if not name or name.endswith("/") else f"{name}/")
        self._add(END)
        yield self._taken()

    def _add(self, data: bytes) -> None:
        self._ready.append(data)
        self._size += len(data)

    def _taken(self) -> bytes:
        data = b"".join(self._ready)
        self._ready.clear()
        self._size = 0
        return data

    def _content(self) -> Iterator[bytes]:
        """Yield the content of the file that waits; one that shrinks meanwhile is filled up with zeros, one that grows is cut."""
        if self._large is None:
            return
        file, left = self._large
        self._large = None
        with file:
            fill = padding(left)
            yield self._taken()
            while left:
                data = os.read(file.fileno(), min(left, _CHUNK)) or bytes(min(left, _CHUNK))
                left -= len(data)
                yield data
            self._add(fill)

    def _below(self, top: str) -> Iterator[bytes]:
        """Walk the folders depth first with a list of what is left to do, not with the stack."""
        waiting = [self._list("")]
        folder = Fd(-1)
        try:
            while waiting:
                path, names, files = waiting[-1]
                if not names:
                    waiting.pop()
                    folder.close()
                    continue
                if folder.closed:
                    try:
                        folder = self._open(path)
                    except OSError as error:
                        _only_vanished(error)
                        waiting.pop()
                        continue
                name = names.pop()
                child = f"{path}/{name}" if path else name
                if child in self._source.skip:
                    continue
                if name in files and self._quick(folder.fileno(), name, top + child):
                    pass
                elif self._child(folder, name, child, top + child):
                    folder.close()
                    waiting.append(self._list(child))
                if self._large is not None:
                    yield from self._content()
                if self._size >= _CHUNK:
                    yield self._taken()
        finally:
            folder.close()
            if self._large is not None:
                self._large[0].close()

    def _list(self, path: str) -> _Level:
        """Return a folder's names, the first one last, and which are files that may be opened by name.

        Nothing when it has vanished or is another mount's.
        """
        try:
            with self._open(path) as held, open_fd(".", os.O_RDONLY | os.O_DIRECTORY, at=held) as folder:
                files: set[str] = set()
                if self._source.quick:
                    with os.scandir(folder.fileno()) as found:
                        kinds = {one.name: one.is_file(follow_symlinks=False) for one in found}
                    names = list(kinds)
                    files = {name for name, is_file in kinds.items() if is_file}
                else:
                    names = os.listdir(folder.fileno())
                if self._view is not None and (placed := self._view.names(self._real_path(path))):
                    names = list({*names, *placed})
                    files.difference_update(placed)
                return path, sorted(names, key=os.fsencode, reverse=True), files
        except OSError as error:
            _only_vanished(error)
            return path, [], set()

    def _quick(self, folder: int, name: str, path: str) -> bool:
        """Add a file in as few calls as can be; False, and nothing done, for what must go the long way."""
        try:
            number = os.open(name, _BY_NAME, dir_fd=folder)
        except OSError:
            return False
        try:
            found = os.fstat(number)
            size = found.st_size
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or size > _SMALL or _list_xattrs(number):
                return False
            owner = self._id(found.st_uid), self._id(found.st_gid)
            block = plain_file(os.fsencode(path), found.st_mode & 0o7777, owner, size, int(found.st_mtime))
            if block is None:
                return False
            data = os.read(number, size) if size else b""
            while len(data) < size:
                data += os.read(number, size - len(data)) or bytes(size - len(data))
            self._ready += (block, data, bytes(-size % BLOCK))
            self._size += BLOCK + size + -size % BLOCK
            return True
        finally:
            os.close(number)

    def _real_path(self, path: str) -> str:
        return f"{self._real}/{path}".strip("/") if self._real else path

    def _open(self, path: str) -> Fd:
        """Open the folder `path` below the start, through no link."""
        if self._view is None:
            return open_in(self._start, path or ".", os.O_PATH | os.O_DIRECTORY, resolve=self._resolve)
        held = self._view.straight(self._real_path(path))
        if not stat.S_ISDIR(os.fstat(held.fileno()).st_mode):
            held.close()
            raise NotADirectoryError(errno.ENOTDIR, "replaced by something else", path)
        return held

    def _child(self, folder: Fd, name: str, child: str, path: str) -> bool:
        """Add an entry; return whether it is a folder."""
        place = self._view.place(self._real_path(child)) if self._view is not None else None
        try:
            held = open_fd(name, _HELD, at=folder) if place is None else Fd(os.dup(place.fileno()))
        except FileNotFoundError:
            return False
        with held:
            found = os.fstat(held.fileno())
            if self._source.overlay and is_whiteout(found):
                at, _, last = path.rpartition("/")
                self._add(header(self._mark(f"{at}/{WHITEOUT}{last}" if at else f"{WHITEOUT}{last}", found)))
                return False
            self._object(held, path, found)
            return stat.S_ISDIR(found.st_mode)

    # Entries

    def _object(self, held: Fd, path: str, found: os.stat_result) -> None:
        kind = _KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:  # a socket
            return
        if len(path) * 4 > MAX_NAME and len(os.fsencode(path)) > MAX_NAME:
            raise OSError(errno.ENAMETOOLONG, "path is too long for an archive", path[:200])
        link = ""
        if found.st_nlink > 1 and kind is not Kind.DIRECTORY:
            first = self._linked.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                kind, link = Kind.HARD_LINK, first
        if kind is Kind.FILE:
            self._file(held, path, found)
            return
        if kind is Kind.SYMLINK:
            link = os.readlink("", dir_fd=held.fileno())
        self._add(header(self._entry(path, kind, found, link, {} if link else self._xattrs(held.path, path))))
        if kind is Kind.DIRECTORY and self._source.overlay and self._is_opaque(held):
            self._add(header(self._mark(f"{path}/{OPAQUE}", found)))

    def _file(self, held: Fd, path: str, found: os.stat_result) -> None:
        """Add the header, and the content of a small file; a large one is left open."""
        size = found.st_size
        file = open_fd(held.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._add(header(self._entry(path, Kind.FILE, found, "", self._xattrs(file.fileno(), path))))
            if size > _SMALL:
                self._large = file, size
                return
            left = size
            while left:
                data = os.read(file.fileno(), left) or bytes(left)
                left -= len(data)
                self._add(data)
            if fill := padding(size):
                self._add(fill)
        finally:
            if self._large is None:
                file.close()

    def _entry(self, path: str, kind: Kind, found: os.stat_result, link: str, xattrs: dict[str, bytes]) -> Entry:
        device = kind is Kind.CHAR or kind is Kind.BLOCK
        size = found.st_size if kind is Kind.FILE else 0
        return Entry(
            f"{path.rstrip('/')}/" if kind is Kind.DIRECTORY else path,
            kind,
            stat.S_IMODE(found.st_mode),
            self._id(found.st_uid),
            self._id(found.st_gid),
            size,
            int(found.st_mtime_ns),
            link,
            os.major(found.st_rdev) if device else 0,
            os.minor(found.st_rdev) if device else 0,
            xattrs=xattrs,
            stored=size,
        )

    def _id(self, number: int) -> int:
        shift = self._source.id_shift
        return number + shift if shift >= 0 or 0 <= number + shift < _RANGE else _NOBODY

    def _xattrs(self, target: int | str, path: str) -> dict[str, bytes]:
        """Return what travels: file capabilities and user.*.  `target` is a descriptor, or the /proc name of one: links too."""
        names = _list_xattrs(target)
        if not names:
            return {}
        found = {}
        for name in names:
            if self._source.overlay and name.rpartition(".")[2] in _REDIRECTS and ".overlay." in name:
                raise Unsupported(f"{path}: overlayfs keeps {name}, which a layer cannot say")
            if name == CAPABILITY or (name.startswith("user.") and allowed(name)):
                value = os.getxattr(target, name)
                found[name] = _capability_revision_2(value) if name == CAPABILITY else value
        return found

    def _is_opaque(self, held: Fd) -> bool:
        names = [n for n in _list_xattrs(held.path) if n in ("trusted.overlay.opaque", "user.overlay.opaque")]
        return any(os.getxattr(held.path, name) == b"y" for name in names)

    def _mark(self, path: str, found: os.stat_result) -> Entry:
        return Entry(name=path, kind=Kind.FILE, mode=0o600, mtime_ns=int(found.st_mtime_ns))


def _list_xattrs(target: int | str) -> list[str]:
    try:
        return sorted(os.listxattr(target))
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
        return []


def _capability_revision_2(value: bytes) -> bytes:
    """Return file capabilities without the user namespace of revision 3 (capabilities(7)), as Docker's layers have them."""
    if len(value) == 24 and value[3] == 3:
        return value[:3] + b"\2" + value[4:20]
    return value


def _only_vanished(error: OSError) -> None:
    """Raise `error` again unless it says that the folder was removed, replaced, or is another mount's."""
    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
        raise error
