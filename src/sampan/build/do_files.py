"""COPY, ADD and WORKDIR: from evaluated steps to layers.  Everything here blocks and runs in threads."""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from sampan.build import inputs, remote
from sampan.build.copying import Stream, Target, apply_stream, copy, destination, owner, write_inline
from sampan.build.digests import Digests
from sampan.build.select import Picked, Root, Source, pick, resolve
from sampan.build.steps import CopyOp, FolderOp
from sampan.errors import InvalidRequest
from sampan.files.compression import open_decompressed
from sampan.files.ignore import Ignore, PatternError
from sampan.files.tar_entry import BadArchive
from sampan.files.tar_reader import TarReader
from sampan.kernel.fds import Fd
from sampan.kernel.paths import open_in

Check = Callable[[], None]


@dataclass
class Copying:
    """A COPY or ADD whose sources are known.  inputs: all that goes into it; archives: sources to be unpacked."""

    op: CopyOp
    root: Root
    picked: list[Picked]
    archives: list[Source]
    fetched: list[remote.Fetched]
    inputs: dict[str, str]
    into_folder: bool
    now: int = field(default_factory=time.time_ns)


def prepare(op: CopyOp, root: Root, top: str, digests: Digests, fetched: list[remote.Fetched]) -> Copying:
    """Find the sources and what identifies them.  Raises NotFound, InvalidRequest."""
    local = [text for text in op.sources if not (op.adds and remote.is_remote(text))]
    try:
        exclude = Ignore(op.exclude)
        sources = [one for text in local for one in resolve(root, text, parents=op.parents)]
    except PatternError as error:
        raise InvalidRequest(str(error)) from None
    archives = [one for one in sources if op.adds and op.unpack is not False and not one.folder and is_archive(root, one.path)]
    plain = [one for one in sources if one not in archives]
    several = len(sources) + len(op.inline) + len(fetched) > 1
    if several and not op.destination.endswith("/"):
        word = "ADD" if op.adds else "COPY"
        raise InvalidRequest(
            f"When using {word} with more than one source file, the destination must be a directory and end with a /"
        )
    into_folder = (
        several or op.parents or any(thing.archive for thing in fetched) or bool(archives) or any(one.folder for one in plain)
    )
    picked = list(pick(root, plain, parents=op.parents, exclude=exclude, into_folder=True))
    found = inputs.of_copy(op, top)
    found |= inputs.of_files(root, picked, digests)
    for one in archives:
        found[f"archive {one.path}"] = digests.entry(root, Picked(one.path, "", root.follow(one.path)))
    for thing in fetched:
        found[f"remote {thing.source}"] = thing.digest
    return Copying(op, root, picked, archives, fetched, found, into_folder)


def is_archive(root: Root, path: str) -> bool:
    """Whether a file's content is a tar, compressed or not."""
    try:
        with open_in(root.fd, path, os.O_RDONLY | os.O_NONBLOCK) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return False
            return _is_tar(file)
    except OSError:
        return False


def _is_tar(file: Fd) -> bool:
    try:
        plain = open_decompressed(Stream(_pieces(file), lambda: None))[1]
        return next(iter(TarReader(plain)), None) is not None
    except (BadArchive, InvalidRequest):
        return False


def _pieces(file: Fd) -> Iterator[bytes]:
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    while data := os.read(file.fileno(), 1 << 18):
        yield data


def write(copying: Copying, tree: Fd, check: Check) -> None:
    """Put the files where they belong.  Raises InvalidRequest, OSError."""
    op = copying.op
    who = owner(tree, op.chown)
    real, folder = destination(tree, op.destination, many=copying.into_folder)
    target = Target(real, folder, who, op.chmod)
    if folder:
        _make(tree, real, who)
    if copying.picked:
        picked = copying.picked
        if not folder and len(picked) == 1:
            picked = [Picked(picked[0].path, "", picked[0].found)]
        copy(copying.root, picked, tree, target, check)
    for one in copying.archives:
        _unpack(copying.root, one.path, tree, Target(real, True, None), check)  # --chown is for what the archive goes into
    if op.inline:
        write_inline(op.inline, tree, target, copying.now)
    for thing in copying.fetched:
        thing.write(tree, target, unpack=op.unpack is True, check=check)


def _make(tree: Fd, path: str, owner: tuple[int, int] = (0, 0)) -> None:
    """Make a folder and its parents: 0755, of the owner; what is there stays as it is."""
    made = ""
    for part in path.split("/") if path else ():
        made = f"{made}/{part}".strip("/")
        with contextlib.suppress(FileExistsError), open_in(tree, posixpath.dirname(made) or ".", os.O_PATH | os.O_DIRECTORY) as at:
            os.mkdir(part, 0o755, dir_fd=at.fileno())
            os.chmod(part, 0o755, dir_fd=at.fileno())
            os.chown(part, *owner, dir_fd=at.fileno(), follow_symlinks=False)


def _unpack(root: Root, path: str, tree: Fd, target: Target, check: Check) -> None:
    with ExitStack() as held:
        file = held.enter_context(open_in(root.fd, path, os.O_RDONLY | os.O_NONBLOCK))
        plain = open_decompressed(Stream(_pieces(file), check))[1]

        def pieces() -> Iterator[bytes]:
            while data := plain.read(1 << 18):
                yield data

        apply_stream(Stream(pieces(), check), tree, target)


def make_folder(op: FolderOp, tree: Fd) -> None:
    """WORKDIR: make the folder and its parents for the step's user.  Raises InvalidRequest when something else is there."""
    real, _ = destination(tree, op.path + "/", many=True)
    parts = real.split("/")
    first = next((n for n in range(len(parts)) if not exists(tree, "/".join(parts[: n + 1]))), len(parts))
    _make(tree, real)
    user = owner(tree, op.user) if op.user else (0, 0)
    for depth in range(first, len(parts)):
        path = "/".join(parts[: depth + 1])
        with open_in(tree, path, os.O_RDONLY | os.O_DIRECTORY) as folder:
            os.fchown(folder.fileno(), *user)


def exists(tree: Fd, path: str) -> bool:
    """Whether a folder is there, links followed inside the tree."""
    try:
        with open_in(tree, path.strip("/") or ".", os.O_PATH | os.O_DIRECTORY):
            return True
    except OSError:
        return False
