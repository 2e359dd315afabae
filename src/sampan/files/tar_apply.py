"""Applying a tar archive to a tree: nothing outside of the tree's root is read, written, or changed in its attributes.

Each name's folder is resolved as under chroot(2) (parents.py), its last part never followed.  Attributes are set through
the descriptor of the object just made (SECURITY.md rows 41-46).  Another writer in the tree (a running container) can spoil
the result, but not lead out of the root (row 32); layers are unpacked where there is none (row 41).

Whiteouts: OCI image-spec layer.md.  They hide what lower layers hold, never what the same archive brings.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from sampan.errors import InvalidRequest
from sampan.files.atomic import remove_tree, write_all
from sampan.files.digests import Readable
from sampan.files.parents import ARCHIVE_FAULTS, Parents, clean
from sampan.files.tar_entry import MAX_COMPONENT, MAX_ID, BadArchive, Entry, Kind
from sampan.files.tar_reader import TarReader
from sampan.files.view import View
from sampan.files.whiteouts import OPAQUE, WHITEOUT, Whiteouts, hide, hide_all, make_folder
from sampan.files.xattrs import set_xattrs
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.sync import start_writing

__all__ = ["Applied", "BadArchive", "Budget", "Options", "OverBudget", "Whiteouts", "apply"]

_SPECIAL = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}
_NOBODY = 65534
_LARGE = 1 << 20  # bytes of a file from which on the disk is told at once
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class OverBudget(InvalidRequest):
    """The archive is larger than its budget allows."""


@dataclass(frozen=True)
class Budget:
    """How much one archive may bring: bytes of files when read (holes included), and entries."""

    max_bytes: int = 64 << 30
    max_entries: int = 4_000_000

    @classmethod
    def for_compressed(cls, size: int, *, ratio: int = 200, least: int = 1 << 30) -> Budget:
        """Return a budget for an archive that came as `size` compressed bytes."""
        return cls(max_bytes=min(cls.max_bytes, max(least, size * ratio)))


@dataclass(frozen=True)
class Options:
    """How to apply.

    into: folder inside the root that the names are relative to; made when missing.
    id_shift: added to every owner and group.
    id_limit: owners from here on, whom the tree's user namespace does not know, become nobody (65534); None for no limit.
    owner: (uid, gid) for everything, instead of what the archive says.
    keep_kinds: refuse to replace a folder by something else and the reverse (docker cp).
    rename: gives the entry that is applied instead, None for none; may raise BadArchive for one that has no business here.
    special: make devices and keep setuid and setgid bits; without it devices are refused and the bits dropped.
    """

    into: str = ""
    id_shift: int = 0
    id_limit: int | None = None
    owner: tuple[int, int] | None = None
    keep_kinds: bool = False
    rename: Callable[[Entry], Entry | None] | None = None
    special: bool = True


@dataclass(frozen=True)
class Applied:
    """What was done.

    size: bytes of regular files and of links' targets;
    skipped_xattrs: what the file system or our rights did not take; has_root: whether an entry
    gave the root its attributes.
    """

    size: int
    entries: int
    skipped_xattrs: int = 0
    has_root: bool = False


def apply(
    stream: Readable,
    root: int | Fd | View,
    *,
    whiteouts: Whiteouts = Whiteouts.OVERLAY,
    budget: Budget = Budget(),
    options: Options = Options(),
) -> Applied:
    """Apply the (uncompressed) tar archive `stream` to the open folder `root`; `stream` may have bytes left after it.

    In a view, what is mounted is neither removed nor replaced: OSError(EBUSY), as the kernel would say.

    Raises BadArchive when the archive is malformed or asks to leave the root, OverBudget, OSError when
    the host fails (disk full, no right).  What was applied before stays: the caller owns the tree and throws it away.
    """
    reader = TarReader(stream)
    with _Applier(reader, root, whiteouts, options) as applier:
        size = entries = 0
        for entry in reader:
            size += entry.size or (len(os.fsencode(entry.linkname)) if entry.kind is Kind.SYMLINK else 0)
            entries += 1
            if size > budget.max_bytes:
                raise OverBudget(f"archive holds more than {budget.max_bytes} bytes of files")
            if entries > budget.max_entries:
                raise OverBudget(f"archive holds more than {budget.max_entries} entries")
            try:
                wanted = entry if options.rename is None else options.rename(entry)
                if wanted is not None:
                    applier.apply(wanted)
            except BadArchive as error:
                raise BadArchive(error.reason, offset=entry.offset, entry=entry.name) from error.__cause__
            except OSError as error:
                if error.errno is None:  # the stream's: its sender left or fell silent
                    raise
                if error.errno in ARCHIVE_FAULTS:
                    raise BadArchive(str(error.strerror), offset=entry.offset, entry=entry.name) from error
                raise OSError(error.errno, error.strerror, entry.name) from error
        applier.finish()
        return Applied(size, entries, applier.skipped, "" in applier._folders)


class _Applier:
    def __init__(self, reader: TarReader, root: int | Fd | View, whiteouts: Whiteouts, options: Options) -> None:
        self._reader = reader
        self._whiteouts = whiteouts
        self._options = options
        self._into = clean(options.into)
        self._view = root if isinstance(root, View) else None
        self._parents = Parents(root, lambda at, name: make_folder(at, name, whiteouts))
        self._folders: dict[str, tuple[int, int, int, int]] = {}  # path -> inode, mode, atime, mtime: set at the end
        self._touched: set[int] = set()  # inodes this archive brought; REMOVE only
        self.skipped = 0

    def __enter__(self) -> _Applier:
        return self

    def __exit__(self, *_: object) -> None:
        self._parents.forget()

    # Names

    def apply(self, entry: Entry) -> None:
        path = self._place(clean(entry.name))
        folder, _, name = path.rpartition("/")
        if self._whiteouts is not Whiteouts.PLAIN and "/.wh." in f"/{path}":
            self._whiteout(path, folder, name)
            return
        if not name:
            self._root(entry)
            return
        if len(name) * 4 > MAX_COMPONENT and len(os.fsencode(name)) > MAX_COMPONENT:
            raise BadArchive(f"a name longer than {MAX_COMPONENT} bytes")
        at = self._parents.folder(folder)
        if self._view is not None and self._mounted(folder, name, path, entry):
            return
        if entry.kind is Kind.FILE:
            self._file(at, name, entry)
        elif entry.kind is Kind.DIRECTORY:
            self._folder(at, name, path, entry)
        elif entry.kind is Kind.HARD_LINK:
            self._hard_link(folder, name, entry)
        else:
            self._node(at, name, entry)

    def _mounted(self, folder: str, name: str, path: str, entry: Entry) -> bool:
        """Deal with an entry where something is mounted: a folder gets its attributes, everything else is refused."""
        view = self._view
        real = f"{self._parents.real(folder)}/{name}".lstrip("/")
        if view is None or not view.busy(real):
            return False
        place = view.place(real)
        if entry.kind is not Kind.DIRECTORY or (place is not None and not stat.S_ISDIR(os.fstat(place.fileno()).st_mode)):
            if self._options.keep_kinds and entry.kind is not Kind.DIRECTORY and self._is_folder(real):
                raise InvalidRequest(f'cannot overwrite directory "/{path}" with non-directory "{entry.name}"')
            raise OSError(errno.EBUSY, "device or resource busy", path)
        if place is None:
            return False
        with open_fd(".", os.O_RDONLY | os.O_DIRECTORY, at=place) as held:
            self._folder_attributes(held.fileno(), path, entry)
        return True

    def _is_folder(self, real: str) -> bool:
        assert self._view is not None
        held, _ = self._view.open(real, follow=False)
        with held:
            return stat.S_ISDIR(os.fstat(held.fileno()).st_mode)

    def _place(self, path: str) -> str:
        return f"{self._into}/{path}".strip("/") if self._into else path

    def _whiteout(self, path: str, folder: str, name: str) -> None:
        parts = path.split("/")
        if name != OPAQUE and any(part.startswith(".wh..wh.") for part in parts):
            return  # left by aufs
        if any(part.startswith(WHITEOUT) for part in parts[:-1]) or name in (".wh.", ".wh..", ".wh..."):
            raise BadArchive("a name that is reserved for whiteouts")
        if self._whiteouts is Whiteouts.REMOVE:
            try:
                at = self._parents.existing(folder)
            except (FileNotFoundError, NotADirectoryError):
                return
        else:
            at = self._parents.folder(folder)
        if name == OPAQUE:
            hide_all(at, self._whiteouts, self._touched)
        else:
            hide(at, name.removeprefix(WHITEOUT), self._whiteouts, self._touched)
        if self._whiteouts is Whiteouts.REMOVE:
            self._parents.forget()

    # Objects

    def _clear(self, at: int, name: str, kind: Kind) -> None:
        """Make room for a new `name`."""
        mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        if self._options.keep_kinds and stat.S_ISDIR(mode) != (kind is Kind.DIRECTORY):
            what = ("non-directory", "directory") if stat.S_ISDIR(mode) else ("directory", "non-directory")
            raise InvalidRequest(f'cannot overwrite {what[1]} "{name}" with {what[0]}')
        if stat.S_ISDIR(mode):
            remove_tree(at, name)
        else:
            os.unlink(name, dir_fd=at)

    def _owner(self, entry: Entry) -> tuple[int, int]:
        uid, gid = self._options.owner or (entry.uid, entry.gid)
        shift, limit = self._options.id_shift, self._options.id_limit
        if limit is not None:
            uid, gid = (number if number < limit else _NOBODY for number in (uid, gid))
        if not (0 <= uid + shift <= MAX_ID and 0 <= gid + shift <= MAX_ID):
            raise BadArchive(f"owner {uid}:{gid} is out of range")
        return uid + shift, gid + shift

    def _mode(self, entry: Entry) -> int:
        return entry.mode if self._options.special else entry.mode & 0o1777

    def _file(self, at: int, name: str, entry: Entry) -> None:
        mode = self._mode(entry)
        try:
            made = os.open(name, _NEW_FILE | os.O_CLOEXEC, mode & 0o777, dir_fd=at)
        except FileExistsError:
            self._clear(at, name, entry.kind)
            self._parents.forget(but=at)
            made = os.open(name, _NEW_FILE | os.O_CLOEXEC, mode & 0o777, dir_fd=at)
        try:
            self._content(made, entry)
            # umask, default ACLs and setgid folders have their say in what it is now; writing takes setuid away.
            owner, found = self._owner(entry), os.fstat(made)
            if (found.st_uid, found.st_gid) != owner:
                os.fchown(made, *owner)
                os.fchmod(made, mode)
            elif stat.S_IMODE(found.st_mode) != mode:
                os.fchmod(made, mode)
            self._finish(made, entry)
        finally:
            os.close(made)

    def _content(self, made: int, entry: Entry) -> None:
        reader = self._reader
        if entry.segments is None:
            while view := reader.read():
                write_all(made, view)
            if entry.size >= _LARGE:
                start_writing(made, 0, 0)
            return
        os.ftruncate(made, entry.size)
        for offset, length in entry.segments:
            os.lseek(made, offset, os.SEEK_SET)
            while length:
                view = reader.read(length)
                write_all(made, view)
                length -= len(view)

    def _finish(self, made: int, entry: Entry) -> None:
        """Set what a descriptor of the new object can set; times last, since the rest changes them."""
        if entry.xattrs:
            self.skipped += set_xattrs(made, entry.xattrs)
        if self._whiteouts is Whiteouts.REMOVE:
            self._touched.add(os.fstat(made).st_ino)
        if entry.kind is not Kind.DIRECTORY:
            os.utime(made, ns=(_atime(entry), entry.mtime_ns))

    def _folder(self, at: int, name: str, path: str, entry: Entry) -> None:
        make_folder(at, name, self._whiteouts, self._clear_for_folder)
        with open_fd(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, at=at) as folder:
            self._folder_attributes(folder.fileno(), path, entry)

    def _clear_for_folder(self, at: int, name: str) -> None:
        self._clear(at, name, Kind.DIRECTORY)
        self._parents.forget(but=at)

    def _folder_attributes(self, folder: int, path: str, entry: Entry) -> None:
        os.fchown(folder, *self._owner(entry))
        mode = self._mode(entry)
        os.fchmod(folder, mode | 0o700)  # so that its entries can be made by a plain user as well
        self._finish(folder, entry)
        self._folders[path] = os.fstat(folder).st_ino, mode, _atime(entry), entry.mtime_ns

    def _root(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise BadArchive("the root is not a folder")
        if self._into:
            return
        with open_fd(".", os.O_RDONLY | os.O_DIRECTORY, at=self._parents.folder("")) as folder:
            self._folder_attributes(folder.fileno(), "", entry)

    def finish(self) -> None:
        """Set the folders' modes and times, which making their entries would have changed.

        The inode shows that it still is the folder the entry made: a later entry may have replaced it.
        """
        for path, (inode, mode, atime, mtime) in reversed(self._folders.items()):
            try:
                parent, _, name = path.rpartition("/")
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                with open_fd(name or ".", flags, at=self._parents.existing(parent)) as folder:
                    if os.fstat(folder.fileno()).st_ino == inode:
                        if mode & 0o700 != 0o700:
                            os.fchmod(folder.fileno(), mode)
                        os.utime(folder.fileno(), ns=(atime, mtime))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise

    def _hard_link(self, folder: str, name: str, entry: Entry) -> None:
        """Link to what an earlier entry made: inside the root, the last part not followed (CVE-2026-82049)."""
        target_folder, _, target = self._place(clean(entry.linkname, "link target")).rpartition("/")
        if not target:
            raise BadArchive("hard link to the root")
        try:
            source = os.dup(self._parents.existing(target_folder))
        except (FileNotFoundError, NotADirectoryError):
            raise BadArchive(f"hard link to {entry.linkname[:200]!r}, which is not there") from None
        with Fd(source):
            found = self._link_target(source, target, entry)
            at = self._parents.folder(folder)
            try:
                os.link(target, name, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
            except FileExistsError:
                there = os.stat(name, dir_fd=at, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
                    return
                self._clear(at, name, entry.kind)
                self._parents.forget(but=at)
                os.link(target, name, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)

    def _link_target(self, source: int, target: str, entry: Entry) -> os.stat_result:
        try:
            found = os.stat(target, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            raise BadArchive(f"hard link to {entry.linkname[:200]!r}, which is not there") from None
        if stat.S_ISDIR(found.st_mode) or (stat.S_ISCHR(found.st_mode) and found.st_rdev == 0):
            raise BadArchive(f"hard link to {entry.linkname[:200]!r}, which is no file")
        return found

    def _node(self, at: int, name: str, entry: Entry) -> None:
        """Make a symbolic link, device or FIFO."""
        try:
            self._make_node(at, name, entry)
        except FileExistsError:
            self._clear(at, name, entry.kind)
            self._parents.forget(but=at)
            self._make_node(at, name, entry)
        os.chown(name, *self._owner(entry), dir_fd=at, follow_symlinks=False)
        with open_fd(name, os.O_PATH | os.O_NOFOLLOW, at=at) as made:
            if entry.kind is not Kind.SYMLINK:
                os.chmod(made.path, self._mode(entry))  # fchmod refuses O_PATH; the magic link is the object itself
            if entry.xattrs:
                self.skipped += set_xattrs(made.path, entry.xattrs)
            if self._whiteouts is Whiteouts.REMOVE:
                self._touched.add(os.fstat(made.fileno()).st_ino)
        os.utime(name, ns=(_atime(entry), entry.mtime_ns), dir_fd=at, follow_symlinks=False)

    def _make_node(self, at: int, name: str, entry: Entry) -> None:
        if entry.kind is Kind.SYMLINK:
            if "\0" in entry.linkname:
                raise BadArchive("link target contains a NUL byte")
            os.symlink(entry.linkname, name, dir_fd=at)
            return
        if entry.kind is not Kind.FIFO and not self._options.special:
            raise BadArchive("a device, where none is allowed")
        if entry.kind is Kind.CHAR and entry.devmajor == entry.devminor == 0:
            raise BadArchive("a device 0:0, which is overlayfs's own mark")
        device = os.makedev(entry.devmajor, entry.devminor)
        os.mknod(name, _SPECIAL[entry.kind] | 0o600, device, dir_fd=at)


def _atime(entry: Entry) -> int:
    return entry.mtime_ns if entry.atime_ns is None else entry.atime_ns
