"""Files that are there whole or not at all, folders, and trees that go away without a symbolic link being followed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.inode_flags import make_mutable
from sampan.kernel.paths import Resolve, open_in

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_STAY = Resolve.NO_XDEV | Resolve.NO_SYMLINKS | Resolve.BENEATH
_MAX_DEPTH = 64  # descriptors held at once; deeper folders are first moved up


def write_atomic(path: str | Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Make `path` hold exactly `data`: a reader sees the old content or the new, also after a power cut.

    A symbolic link at `path` is replaced, never followed.
    """
    path = Path(path)
    with open_fd(path.parent, os.O_RDONLY | os.O_DIRECTORY) as folder:
        write_atomic_at(folder, path.name, data, mode, durable=durable)


def write_atomic_at(folder: int | Fd, name: str, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Like `write_atomic`, for the entry `name` of an open folder."""
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"not the name of an entry: {name!r}")
    temporary = f".{secrets.token_hex(8)}.tmp"
    at = int(folder)
    try:
        with open_fd(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, at=at) as made:
            write_all(made, data)
            os.fchmod(made.fileno(), mode)
            if durable:
                os.fsync(made.fileno())
        os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=at)
        raise
    if durable:
        os.fsync(at)


def write_all(fd: int | Fd, data: bytes | memoryview) -> None:
    """Write all of `data` at the descriptor's offset."""
    written = os.write(int(fd), data)
    if written < len(data):
        view = memoryview(data)[written:]
        while view:
            view = view[os.write(int(fd), view) :]


def make_dirs(path: str | Path, mode: int = 0o700) -> None:
    """Make the folder `path` and its missing parents, each with exactly `mode`, whatever the umask.

    Existing folders are left alone.  Raises NotADirectoryError, or OSError(ELOOP) when the last part is a symbolic link.
    """
    path = Path(path)
    for folder in (*reversed(path.parents), path):
        try:
            folder.mkdir(mode)
        except FileExistsError:
            continue
        folder.chmod(mode)
    open_fd(path, _FOLDER).close()


def remove_tree(folder: int | Fd, name: str) -> None:
    """Remove the entry `name` of an open folder with everything below it; nothing happens when it is not there.

    No symbolic link is followed and no mount entered.  What cannot be removed does not stop the rest:
    the first error is raised at the end.
    """
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"not the name of an entry: {name!r}")
    removal = _Removal(int(folder))
    removal.remove(int(folder), name, 0)
    while removal.moved:
        removal.remove(int(folder), removal.moved.pop(), 0)
    if removal.error is not None:
        raise removal.error


def empty_folder(folder: int | Fd) -> None:
    """Remove every entry of an open folder, as `remove_tree` does."""
    for name in os.listdir(int(folder)):
        remove_tree(folder, name)


class _Removal:
    """One removal: the folder it happens in, the subtrees moved up because they lay too deep, the first error."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.moved: list[str] = []
        self.error: OSError | None = None

    def remove(self, at: int, name: str, depth: int) -> None:
        try:
            self._unlink(at, name)
        except IsADirectoryError:
            self._remove_folder(at, name, depth)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        if self.error is None:
            self.error = error.with_traceback(None)

    def _unlink(self, at: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=at)
        except PermissionError:
            if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                raise IsADirectoryError(errno.EISDIR, "is a folder", name) from None
            self._unlock(at, name)
            os.unlink(name, dir_fd=at)

    def _unlock(self, at: int, name: str) -> None:
        """Take away what stops an unlink: the folder's mode, an immutable or append-only mark on it or on the file."""
        self._unlock_folder(at)
        if stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            with contextlib.suppress(OSError), open_fd(name, flags, at=at) as file:
                make_mutable(file)

    def _unlock_folder(self, at: int) -> None:
        if at != self.top:  # the caller's own folder stays as it is
            with contextlib.suppress(OSError):
                make_mutable(at)
            with contextlib.suppress(OSError):
                os.fchmod(at, 0o700)

    def _open(self, at: int, name: str) -> Fd:
        try:
            return open_in(at, name, _FOLDER, resolve=_STAY)
        except PermissionError:
            # Mode 000 and no capability: chmod goes through the object held, never through the name.
            with open_in(at, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=_STAY) as held:
                os.chmod(held.path, 0o700)
            return open_in(at, name, _FOLDER, resolve=_STAY)

    def _remove_folder(self, at: int, name: str, depth: int) -> None:
        if depth >= _MAX_DEPTH:
            new = f".{secrets.token_hex(8)}.removing"
            try:
                os.rename(name, new, src_dir_fd=at, dst_dir_fd=self.top)
            except OSError as error:
                self._note(error)
            else:
                self.moved.append(new)
            return
        try:
            with self._open(at, name) as folder:
                for child in os.listdir(folder.fileno()):
                    self.remove(folder.fileno(), child, depth + 1)
        except OSError as error:
            self._note(OSError(error.errno, error.strerror, name))
            return
        try:
            os.rmdir(name, dir_fd=at)
        except FileNotFoundError:
            pass
        except PermissionError:
            self._rmdir_unlocked(at, name)
        except OSError as error:
            self._note(error)

    def _rmdir_unlocked(self, at: int, name: str) -> None:
        try:
            self._unlock_folder(at)
            with contextlib.suppress(OSError), self._open(at, name) as folder:
                make_mutable(folder)
            os.rmdir(name, dir_fd=at)
        except OSError as error:
            self._note(error)
