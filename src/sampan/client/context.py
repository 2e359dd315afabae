"""A folder as a build context: a tar that is made while it is sent, less what .dockerignore leaves out."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from sampan.client.errors import BadContext
from sampan.files.ignore import Ignore, PatternError, read_ignore
from sampan.files.tar_entry import Entry, Kind
from sampan.files.tar_header import END, header, padding

_CHUNK = 1 << 18
_MAX_IGNORE = 4 << 20
_TICK = 20_000_000  # nanoseconds: a change within the same tick of the kernel's clock (HZ=100: 10 ms) leaves the time as it was
_COARSE = 2 * 10**9  # the same where times are whole seconds, or two of them (FAT)


class Reader:
    """Pieces of bytes as a file that can be read once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes; b"" at the end."""
        wanted = size if size > 0 else _CHUNK
        out = [self._left]
        have = len(self._left)
        while have < wanted and (piece := next(self._pieces, b"")):
            out.append(piece)
            have += len(piece)
        data = b"".join(out)
        self._left = data[wanted:]
        return data[:wanted]


def ignore_of(folder: str, dockerfile: str) -> Ignore:
    """Return what is left out; the Dockerfile and the ignore file themselves never are.  Raises BadContext."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            with open(os.path.join(folder, name), "rb") as file:
                patterns = read_ignore(file.read(_MAX_IGNORE))
        except FileNotFoundError:
            continue
        except (OSError, PatternError) as error:
            raise BadContext(f"failed to read {name}: {error}") from None
        try:
            return Ignore([*patterns, f"!{_escaped(name)}", f"!{_escaped(dockerfile)}"] if patterns else ())
        except PatternError as error:
            raise BadContext(f"{name}: {error}") from None
    return Ignore(())


def _escaped(name: str) -> str:
    return "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in name)


def entries(folder: str, ignore: Ignore) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (path below the folder, lstat) of what is to be sent, sorted, folders first; what goes meanwhile is left out.

    Raises BadContext.
    """
    waiting = [""]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(os.path.join(folder, here)) as found:
                items = sorted(_seen(found), key=lambda item: item[0])
        except FileNotFoundError:
            if not here:
                raise BadContext(f"error checking context: {folder!r} is gone") from None
            continue
        except OSError as error:
            raise BadContext(f"error checking context: can't stat {os.path.join(folder, here)!r}: {error.strerror}") from None
        below: list[str] = []
        for name, seen in items:
            path = f"{here}/{name}" if here else name
            out = bool(ignore) and ignore.excludes(path)
            if stat.S_ISDIR(seen.st_mode) and (not out or ignore.negates):
                below.append(path)
            if not out:
                yield path, seen
        waiting += reversed(below)


def _seen(found: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, os.stat_result]]:
    for one in found:
        with suppress(FileNotFoundError):
            yield one.name, one.stat(follow_symlinks=False)


def tar(folder: str, ignore: Ignore, extra: dict[str, bytes]) -> Iterator[bytes]:
    """Yield the archive.  extra: further files by name.  A file that shrinks meanwhile is filled up, one that goes left out.

    Raises BadContext.
    """
    for path, seen in entries(folder, ignore):
        with suppress(FileNotFoundError):
            yield from one_file(folder, path, seen)
    for name, content in extra.items():
        yield header(Entry(name, Kind.FILE, size=len(content), stored=len(content))) + content + padding(len(content))
    yield END


def wanted_tar(folder: str, found: dict[str, os.stat_result], wanted: list[str]) -> Iterator[bytes]:
    """Yield the archive of some of the files.  Raises BadContext, also for one that went since the daemon was told of it."""
    for path in wanted:
        if path in found:
            try:
                yield from one_file(folder, path, found[path])
            except FileNotFoundError:
                raise BadContext(f"error checking context: {os.path.join(folder, path)!r} went away meanwhile") from None
    yield END


def told(folder: str, found: dict[str, os.stat_result], begun: int) -> list[tuple[str, int, int, int, str]]:
    """Return what a daemon is told of a context: (path, st_mode, size, mtime in nanoseconds, target of a link).

    begun: when the folder began to be read, nanoseconds.  The mtime of what changed later is -1.
    """
    made = []
    for path, seen in found.items():
        if stat.S_ISSOCK(seen.st_mode):
            continue
        link = ""
        if stat.S_ISLNK(seen.st_mode):
            with suppress(OSError):  # gone, or no link any more: the daemon will want it, and then it is told
                link = os.readlink(os.path.join(folder, path))
        mtime = seen.st_mtime_ns
        if mtime >= begun - (_COARSE if mtime % 10**9 == 0 else _TICK):
            mtime = -1
        made.append((path, seen.st_mode, seen.st_size, mtime, link))
    return made


def one_file(folder: str, path: str, seen: os.stat_result) -> Iterator[bytes]:
    """Yield the entry of one file; sockets are left out.  Raises FileNotFoundError before the first byte, BadContext."""
    mode = stat.S_IMODE(seen.st_mode)
    common = {"mode": mode, "mtime_ns": seen.st_mtime_ns}
    where = os.path.join(folder, path)
    try:
        if stat.S_ISDIR(seen.st_mode):
            yield header(Entry(f"{path}/", Kind.DIRECTORY, **common))  # type: ignore[arg-type]  # mode and mtime
        elif stat.S_ISLNK(seen.st_mode):
            yield header(Entry(path, Kind.SYMLINK, mode=0o777, mtime_ns=seen.st_mtime_ns, linkname=os.readlink(where)))
        elif stat.S_ISREG(seen.st_mode):
            yield from _content(where, path, mode, seen.st_mtime_ns)
        elif stat.S_ISFIFO(seen.st_mode):
            yield header(Entry(path, Kind.FIFO, **common))  # type: ignore[arg-type]  # mode and mtime
        elif not stat.S_ISSOCK(seen.st_mode):
            raise BadContext(f"{where!r} is a device, which cannot be in a build context")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadContext(f"error checking context: can't read {where!r}: {error.strerror}") from None


def _content(where: str, path: str, mode: int, mtime: int) -> Iterator[bytes]:
    with open(os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        size = left = os.fstat(file.fileno()).st_size
        yield header(Entry(path, Kind.FILE, mode=mode, mtime_ns=mtime, size=size, stored=size))
        while left:
            data = file.read(min(left, _CHUNK)) or bytes(min(left, _CHUNK))
            left -= len(data)
            yield data
        if fill := padding(size):
            yield fill
