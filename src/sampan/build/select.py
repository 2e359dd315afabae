"""Which files COPY and ADD mean: wildcards, folders, exclusions; below one root, links resolved inside it.

The root is a build context, or the read-only view of a stage or an image.  `..` and absolute paths stop at the root; a link
that is named is followed inside the root, a link further down is copied as a link (SECURITY.md rows 65, 69, 70).
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sampan.errors import InvalidRequest, NotFound
from sampan.files.ignore import Ignore, Pattern, PatternError, clean
from sampan.kernel.fds import Fd
from sampan.kernel.paths import open_in

MAX_FILES = 4_000_000


class Picked(NamedTuple):
    """A file to copy.  path: below the root; name: below the destination, "" for the destination itself."""

    path: str
    name: str
    found: os.stat_result


@dataclass(frozen=True)
class Root:
    """Where to copy from.

    name: for people.  namespace: what the identity of its files rests on; "" when nothing does.  fresh: paths that were written for
    this build: what is remembered of their inodes may be of files before them, written within the same tick of the clock.
    """

    fd: Fd
    ignore: Ignore
    name: str = "build context"
    namespace: str = ""
    fresh: frozenset[str] = frozenset()

    def lstat(self, path: str) -> os.stat_result:
        """Return what stands at a path, links in its folders resolved inside the root."""
        folder, _, name = path.rpartition("/")
        if not name:
            return os.fstat(self.fd.fileno())
        with open_in(self.fd, folder or ".", os.O_PATH | os.O_DIRECTORY) as parent:
            return os.stat(name, dir_fd=parent.fileno(), follow_symlinks=False)

    def follow(self, path: str) -> os.stat_result:
        """Return what a path means, links followed inside the root."""
        with open_in(self.fd, path or ".", os.O_PATH) as found:
            return os.fstat(found.fileno())


@dataclass(frozen=True)
class Source:
    """One argument, resolved.  folder: a directory whose contents are meant."""

    path: str
    folder: bool
    pivot: str = ""


def resolve(root: Root, source: str, *, parents: bool = False) -> list[Source]:
    """Return what an argument means.  Raises NotFound with the words of docker."""
    pivot = ""
    text = source
    if parents and "/./" in source:
        before, _, text = source.partition("/./")
        pivot = clean(before)
        text = f"{pivot}/{text}"
    path = clean(text)
    wild = any(sign in path for sign in "*?[")
    found = _glob(root, path, deep=parents) if wild else [_literal(path)]
    made: list[Source] = []
    for one in found:
        try:
            seen = root.follow(one)
        except OSError:
            made.clear()
            break
        if not root.ignore.excludes(one) or not one or (stat.S_ISDIR(seen.st_mode) and root.ignore.negates):
            made.append(Source(one, stat.S_ISDIR(seen.st_mode), pivot))
    if not made:
        hint = " (it is left out by .dockerignore)" if root.ignore and found and root.ignore.excludes(found[0]) else ""
        raise NotFound(f'COPY failed: file not found in {root.name}: stat {source[:200]}: "/{path[:200]}": not found{hint}')
    return made


def _literal(path: str) -> str:
    return path.replace("\\", "") if "\\" in path else path


def _glob(root: Root, path: str, *, deep: bool) -> list[str]:
    """Expand wildcards part by part."""
    if deep and "**" in path:
        try:
            pattern = Pattern(path)
        except PatternError as error:
            raise InvalidRequest(str(error)) from None
        return [one.path for one in walk(root, "", Ignore(())) if one.path and pattern.matches(one.path)]
    found = [""]
    for part in path.split("/"):
        if not any(sign in part for sign in "*?["):
            found = [f"{one}/{_literal(part)}".strip("/") for one in found]
            continue
        try:
            pattern = Pattern(part, deep=False)
        except PatternError as error:
            raise InvalidRequest(str(error)) from None
        found = [f"{one}/{name}".strip("/") for one in found for name in _names(root, one) if pattern.matches(name)]
    return [one for one in found if _there(root, one)]


def _there(root: Root, path: str) -> bool:
    try:
        root.lstat(path)
    except OSError:
        return False
    return True


def _names(root: Root, path: str) -> list[str]:
    try:
        with open_in(root.fd, path or ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
            return sorted(os.listdir(folder.fileno()), key=os.fsencode)
    except OSError:
        return []


def walk(root: Root, path: str, exclude: Ignore, top: str = "") -> Iterator[Picked]:
    """Yield what is below a folder, folders before their contents, names in the order of their bytes.

    A folder that is left out is entered only when a later pattern may take something of it in again.
    """
    waiting = [path]
    count = 0
    choosy = bool(root.ignore) or bool(exclude)
    while waiting:
        here = waiting.pop()
        with open_in(root.fd, here or ".", os.O_RDONLY | os.O_DIRECTORY) as folder, os.scandir(folder.fileno()) as entries:
            found = sorted([(entry.name, entry.stat(follow_symlinks=False)) for entry in entries], key=_by_name)
        later: list[str] = []
        prefix = f"{here}/" if here else ""
        for name, seen in found:
            where = prefix + name
            below = where[len(path) :].lstrip("/") if path else where
            folder_ = stat.S_ISDIR(seen.st_mode)
            out = choosy and (root.ignore.excludes(where) or exclude.excludes(below))
            if out and not (folder_ and (root.ignore.negates or exclude.negates)):
                continue
            if not out:
                count += 1
                if count > MAX_FILES:
                    raise InvalidRequest(f"more than {MAX_FILES} files to copy")
                yield Picked(where, f"{top}/{below}" if top else below, seen)
            if folder_:
                later.append(where)
        waiting += reversed(later)


def _by_name(item: tuple[str, os.stat_result]) -> bytes:
    return os.fsencode(item[0])


def pick(root: Root, sources: list[Source], *, parents: bool, exclude: Ignore, into_folder: bool) -> Iterator[Picked]:
    """Yield every file of the sources with its name below the destination."""
    for source in sources:
        top = ""
        if parents:
            kept = source.path[len(source.pivot) :].lstrip("/") if source.pivot else source.path
            top = kept
            yield from _parents(root, source, kept)
        elif not source.folder and into_folder:
            top = posixpath.basename(source.path)
        if source.folder:
            yield from walk(root, source.path, exclude, top)
        elif not exclude.excludes(posixpath.basename(source.path)) and not exclude.excludes(source.path):
            yield Picked(source.path, top, root.follow(source.path))


def _parents(root: Root, source: Source, kept: str) -> Iterator[Picked]:
    """The folders that --parents keeps, and the folder itself."""
    parts = kept.split("/")
    for depth in range(1, len(parts) + source.folder):
        name = "/".join(parts[:depth])
        path = f"{source.pivot}/{name}".strip("/")
        yield Picked(path, name, root.follow(path))
