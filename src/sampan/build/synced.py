"""Contexts that stay between builds: the client tells what it has, and sends only what is not here (metadata first).

    client                                          daemon
    POST /sampan/context?key=K   [path, mode, size, mtime, link] ...
                                                    compares with the tree of K
                                 {token, wanted: [paths]}
    POST /build  (token, then a tar of `wanted`)    brings the tree up to date, builds from it

A file whose mode, size, time and link are the same is the same file, as rsync and make have it.  A time of -1 is that of a file
that may change once more without a change of its time: it is sent, and sent again the next time (client/context.py).
A key belongs to a folder of one client; whoever may speak to the daemon could choose another's, and could as well mount the
host's disk.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.files.atomic import remove_tree, write_atomic
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.paths import Resolve, open_in

KEPT = 16  # contexts
PATIENCE = 60.0  # seconds between the telling and the build
MAX_ENTRIES = 1_000_000
Entry = tuple[str, int, int, int, str]  # path, st_mode, size, mtime in nanoseconds, target of a link
_UNSURE = "unsure"
_STRICT = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS | Resolve.NO_XDEV
Known = dict[str, tuple[int, int, int, str]]


@dataclass
class Told:
    """What a client told of one context.  token: names it once; gone: paths that it does not have any more; wanted: to come."""

    key: str
    token: str
    entries: Known
    gone: list[str]
    wanted: list[str]
    since: float = field(default_factory=time.monotonic)
    claimed: bool = False


class Synced:
    """The contexts that are kept.  Methods are called in threads, one context by one build at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self._known: dict[str, Known] = {}
        self._told: dict[str, Told] = {}

    def tell(self, key: str, entries: list[Entry]) -> tuple[str, list[str]]:
        """Return a token for the build, and what it has to bring.  Raises InvalidRequest, Conflict when a build has it now."""
        if len(key) != 64 or key.strip("0123456789abcdef"):
            raise InvalidRequest("the key of a context is 64 hexadecimal digits")
        if len(entries) > MAX_ENTRIES:
            raise InvalidRequest(f"a context has at most {MAX_ENTRIES} files")
        now = time.monotonic()
        busy = self._told.get(key)
        if busy is not None and (busy.claimed or now - busy.since < PATIENCE):
            raise Conflict("a build from this context is under way")
        theirs: Known = {}
        for path, mode, size, mtime, link in entries:
            whole = f"/{path}/"  # fifty thousand of them: each question is one search
            if "//" in whole or "/./" in whole or "/../" in whole or "\0" in path:
                raise InvalidRequest(f"invalid path {path[:200]!r} in a context")
            theirs[path] = (mode, 0 if stat.S_ISDIR(mode) else size, mtime, link)
        ours = self._here(key)
        wanted = [path for path, seen in theirs.items() if not _same(seen, ours.get(path))]
        gone = [path for path in ours if path not in theirs]
        told = self._told[key] = Told(key, secrets.token_hex(16), theirs, gone, wanted)
        return told.token, wanted

    def busy(self, key: str) -> bool:
        """Whether a build has the context."""
        told = self._told.get(key)
        return told is not None and told.claimed

    def _here(self, key: str) -> Known:
        """Return what is in the kept tree."""
        found = self._known.get(key)
        if found is None:
            place = self.folder / key / "tree"
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
            (self.folder / key).chmod(0o700)
            found = self._known[key] = scan(place)
            for path in self._unsure(key) & set(found):
                mode, size, _, link = found[path]
                found[path] = (mode, size, -1, link)
        return found

    def _unsure(self, key: str) -> set[str]:
        """Return the files whose time says nothing (mtime -1): it is not in the tree, and daemons come and go."""
        try:
            names: list[str] = msgspec.json.decode((self.folder / key / _UNSURE).read_bytes(), type=list[str])
        except (FileNotFoundError, msgspec.DecodeError):
            return set()
        return set(names)

    def _doubt(self, key: str, paths: set[str]) -> None:
        place = self.folder / key / _UNSURE
        if paths:
            write_atomic(place, msgspec.json.encode(sorted(paths)), durable=False)
        else:
            place.unlink(missing_ok=True)

    def claim(self, token: str) -> tuple[Told, Fd]:
        """Take the context of a token for a build; what is gone is deleted.  `release` it.  Raises NotFound."""
        told = next((one for one in self._told.values() if secrets.compare_digest(one.token, token)), None)
        if told is None or told.claimed:
            raise NotFound("no such context; tell it again")
        told.claimed = True
        self._known.pop(told.key, None)  # until the build has brought it up to date nobody knows what is in it
        with ExitStack() as undo:
            undo.callback(self.release, told, whole=False)
            self._doubt(told.key, self._unsure(told.key) | _doubtful(told.entries))
            tree = open_fd(self.folder / told.key / "tree", os.O_RDONLY | os.O_DIRECTORY)
            undo.callback(tree.close)
            for path in sorted(told.gone, key=len, reverse=True):
                _remove(tree, path)
            undo.pop_all()
        return told, tree

    def release(self, told: Told, *, whole: bool) -> None:
        """The build is done with it.  whole: the tree is what the client told."""
        if whole:
            self._known[told.key] = told.entries
            self._doubt(told.key, _doubtful(told.entries))
            os.utime(self.folder / told.key)
        self._told.pop(told.key, None)

    def trim(self, keep: int = KEPT) -> list[str]:
        """Delete all but the contexts used last; return those that went."""
        found = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        gone = [path for path in found[keep:] if path.name not in self._told]
        for path in gone:
            self._known.pop(path.name, None)
            shutil.rmtree(path, ignore_errors=True)
        return [path.name for path in gone]


def _doubtful(entries: Known) -> set[str]:
    return {path for path, seen in entries.items() if seen[2] == -1}


def _same(theirs: tuple[int, int, int, str], ours: tuple[int, int, int, str] | None) -> bool:
    """Whether a file need not be sent: of folders and links the time does not matter."""
    if ours is None or theirs[0] != ours[0] or theirs[3] != ours[3]:
        return False
    return stat.S_ISDIR(theirs[0]) or stat.S_ISLNK(theirs[0]) or (theirs[1:3] == ours[1:3] and theirs[2] != -1)


def _remove(tree: Fd, path: str) -> None:
    folder, _, name = path.rpartition("/")
    try:
        with open_in(tree, folder or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_STRICT) as parent:
            remove_tree(parent, name)
    except (FileNotFoundError, NotADirectoryError):
        return


def scan(place: Path) -> Known:
    """Return what is in a tree."""
    found: Known = {}
    waiting = [""]
    while waiting:
        here = waiting.pop()
        with os.scandir(place / here) as entries:
            for entry in entries:
                path = f"{here}/{entry.name}" if here else entry.name
                seen = entry.stat(follow_symlinks=False)
                folder = stat.S_ISDIR(seen.st_mode)
                link = os.readlink(entry.path) if entry.is_symlink() else ""
                found[path] = (seen.st_mode, 0 if folder else seen.st_size, seen.st_mtime_ns, link)
                if folder:
                    waiting.append(path)
    return found
