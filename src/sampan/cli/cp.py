"""sampan cp: files between a container and this host, by docker's rules for what the destination means.

    source          destination is a folder    is a file          is not there
    file            into it, same name         replaces it        becomes it; refused when it is written as `name/`
    folder          into it, same name         refused            becomes it
    folder/.        its contents into it       refused            its contents become it

What comes out of a container is its own choice, entry by entry: here it is unpacked below the destination and nowhere
else, through no link, without devices, owned by the caller (SECURITY.md row 36).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.cli.main import Exit
from sampan.client.errors import ApiError

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.client.containers import Containers
    from sampan.wire.archive import PathStat

_DIRECTORY, _LINK = 1 << 31, 1 << 27
_LINKS = 10


@dataclass(frozen=True)
class End:
    """One side: container "" is this host."""

    container: str
    path: str

    @classmethod
    def of(cls, word: str) -> End:
        container, colon, path = word.partition(":")
        if not colon or word.startswith(("/", ".")):
            return cls("", word)
        return cls(container, path)


@dataclass(frozen=True)
class Target:
    """What is known of a destination: its path with links followed, whether it is there and a folder."""

    path: str
    there: bool
    folder: bool


def run(call: Invocation) -> int:
    source, target = map(End.of, call.arguments)
    if not call.arguments[0]:
        raise Exit(1, "source can not be empty")
    if not call.arguments[1]:
        raise Exit(1, "destination can not be empty")
    if source.container and target.container:
        raise Exit(1, "copying between containers is not supported")
    if not source.container and not target.container:
        raise Exit(1, "must specify at least one container source")
    copy = _Copy(call)
    if source.container:
        copy.out(source, target.path)
    else:
        copy.in_(source.path, target)
    return 0


def split(path: str) -> tuple[str, str]:
    """Return the folder that names the entry, and the entry's name: "." of `a/.`, "/" of the root."""
    if path.endswith("/.") or path == ".":
        return path[:-1] or ".", "."
    bare = path.rstrip("/")
    if not bare:
        return "/", "/"
    folder, slash, name = bare.rpartition("/")
    return folder or ("/" if slash else "."), name


def place(name: str, source_folder: bool, target: Target) -> tuple[str, str]:
    """Return where an archive of `name` is unpacked, and what `name` is called there.  Raises Exit."""
    if target.there and target.folder:
        return target.path, name
    if target.there and source_folder:
        raise Exit(1, "cannot copy directory")
    if not target.there and not source_folder and target.path.endswith(("/", "/.")):
        raise Exit(1, "no such directory")
    return split(target.path)


class _Copy:
    def __init__(self, call: Invocation) -> None:
        self._containers: Containers = call.client.containers
        self._options = call.options
        self._quiet = call.options.quiet if "quiet" in call.options.given else not sys.stdout.isatty()
        self._size = 0

    def _counted(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self._size += len(block)
            yield block

    def _done(self, where: str) -> None:
        if not self._quiet:
            from sampan.cli.units import size

            print(f"Successfully copied {size(self._size)} to {where}", file=sys.stderr)

    # Into a container

    def in_(self, source: str, target: End) -> None:
        found = self._target(target)
        if source == "-":
            if not found.folder:
                raise Exit(1, f'destination "{target.container}:{target.path}" must be a directory')
            blocks: Iterable[bytes] = iter(lambda: sys.stdin.buffer.read(1 << 16), b"")
            where = found.path
        else:
            where, blocks = self._local(source, found)
        self._containers.copy_in(target.container, where, self._counted(blocks), as_user=self._options.archive)
        if source != "-":
            self._done(f"{target.container}:{found.path}")

    def _target(self, target: End) -> Target:
        """Ask what the destination is, through one link; what is not there is no failure yet."""
        path = target.path if target.path.startswith("/") else f"/{target.path}"
        try:
            about = self._containers.path_stat(target.container, path)
            if about.mode & _LINK:
                path = about.link_target
                about = self._containers.path_stat(target.container, path)
        except ApiError as error:
            if error.status != 404 or "No such container" in str(error):
                raise
            return Target(path, False, False)
        return Target(path, True, bool(about.mode & _DIRECTORY))

    def _local(self, source: str, target: Target) -> tuple[str, Iterable[bytes]]:
        from sampan.files.tar_write import Source, tree_tar
        from sampan.files.view import View
        from sampan.kernel.fds import open_fd

        asked = source
        if self._options.follow_link:
            source = os.path.realpath(source) + ("/." if source.endswith("/.") else "")
        try:
            inside = source.endswith(("/", "/.")) or source in (".", "..")
            is_folder = stat.S_ISDIR((os.stat if inside else os.lstat)(source).st_mode)
        except OSError as error:
            raise Exit(1, f"lstat {os.path.abspath(source)}: {(error.strerror or '').lower()}") from None
        if source.endswith("/") and not is_folder:
            raise Exit(1, f"{source}: not a directory")
        _, name = split(asked if split(asked)[1] != ".." else os.path.abspath(asked))
        where, called = place(name, is_folder, target)

        def blocks() -> Iterator[bytes]:
            folder, entry = split(source) if not inside else (source, "")
            with View(open_fd(folder, os.O_PATH | os.O_DIRECTORY)) as view:
                yield from _pieces(tree_tar(view, Source(path=entry, name=called, quick=True)))

        return where, blocks()

    # Out of a container

    def out(self, source: End, target: str) -> None:
        path, name = source.path, split(source.path)[1]
        if self._options.follow_link and not path.endswith(("/", "/.")):
            about = self._containers.path_stat(source.container, path)
            if about.mode & _LINK:
                path = about.link_target
        if target != "-":
            _check_output(target)
        about, response = self._containers.copy_out(source.container, path)
        with response:
            from sampan.client.containers import body_of

            blocks = self._counted(body_of(response))
            if target == "-":
                if sys.stdout.isatty():
                    raise Exit(1, "cowardly refusing to copy to a terminal. Redirect the output")
                for block in blocks:
                    sys.stdout.buffer.write(block)
                return
            self._unpack(blocks, about, name, _local_target(target))
        self._done(os.path.abspath(target))

    def _unpack(self, blocks: Iterator[bytes], about: PathStat, name: str, target: Target) -> None:
        """Unpack what should be one thing called `about.name`, as what the destination makes of `name`."""
        from sampan.cli.unpack import unpack

        is_folder = bool(about.mode & _DIRECTORY)
        folder, called = place(about.name if name == ".." else name, is_folder, target)
        unpack(blocks, about.name, folder, called, is_folder=is_folder, archive=self._options.archive)


def _pieces(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Join small blocks: each piece sent has a cost of its own."""
    waiting: list[bytes] = []
    size = 0
    for block in blocks:
        waiting.append(block)
        size += len(block)
        if size >= 1 << 16:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _check_output(target: str) -> None:
    from sampan.cli.output import check_target

    check_target(target.removesuffix("/."))


def _local_target(path: str) -> Target:
    """Return what the destination on this host is, links followed also when they lead to nothing."""
    for _ in range(_LINKS):
        if not os.path.islink(path.rstrip("/") or "/"):
            break
        path = os.path.join(os.path.dirname(path.rstrip("/")), os.readlink(path.rstrip("/")))
    else:
        raise Exit(1, f"{path}: too many symbolic links")
    return Target(path, os.path.exists(path.rstrip("/") or "/"), os.path.isdir(path))
