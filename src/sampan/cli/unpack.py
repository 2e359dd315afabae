"""A tar from a container, unpacked as one file or folder of this host and nothing beside it (SECURITY.md row 36)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgspec.structs import replace

from sampan.cli.main import Exit
from sampan.errors import SampanError
from sampan.files.parents import clean
from sampan.files.tar_apply import Budget, Options, Whiteouts, apply
from sampan.files.tar_entry import BadArchive, Entry, Kind
from sampan.kernel.fds import Fd, open_fd

_BUDGET = Budget(max_bytes=1 << 60, max_entries=1 << 40)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class _Stream:
    """Blocks as a reader."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def read(self, size: int = 1 << 18, /) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data


def unpack(blocks: Iterator[bytes], name: str, folder: str, called: str, *, is_folder: bool, archive: bool) -> None:
    """Unpack the tar of one thing called `name` as `folder`/`called`.  Raises Exit, OSError."""
    if called in ("", "..") or ("/" in called and called != "/"):
        raise Exit(1, f"{called!r} cannot be the name of a file")
    keep = archive and os.geteuid() == 0
    base = "" if name in (".", "/") else name
    above = called in (".", "/")
    options = Options(
        owner=None if keep else (os.geteuid(), os.getegid()), keep_kinds=True, special=keep,
        rename=_FolderNames(base, above) if is_folder else _FileName(base, called),
    )  # fmt: skip
    try:
        with _root(folder, called, is_folder and not above) as root:
            stream = _Stream(blocks)
            apply(stream, root, whiteouts=Whiteouts.PLAIN, budget=_BUDGET, options=options)
            while stream.read():
                pass
    except SampanError as error:
        raise Exit(1, str(error)) from None


def _root(folder: str, called: str, own: bool) -> Fd:
    """Open what is unpacked in: the destination's folder for a file, the destination itself, made if need be, for a folder.

    A link at the destination's own name is not followed: links in the archive then resolve below it, too.
    """
    above = open_fd(folder, _FOLDER)
    if not own:
        return above
    with above:
        try:
            os.mkdir(called, 0o755, dir_fd=above.fileno())
        except FileExistsError:
            pass
        try:
            return open_fd(called, _FOLDER | os.O_NOFOLLOW, at=above)
        except NotADirectoryError:
            raise Exit(1, f'cannot overwrite non-directory "{folder}/{called}" with directory') from None


def _below(base: str, name: str) -> str:
    """Return `name` relative to the thing that was asked for.  Raises BadArchive when it is something else."""
    path = clean(name)
    if not base:
        return path
    if path != base and not path.startswith(f"{base}/"):
        raise BadArchive(f"something that was not asked for: {name[:200]!r}")
    return path[len(base) + 1 :]


class _FolderNames:
    """Takes what is below `base`; with `bare`, not the folder's own entry: the destination keeps its attributes."""

    def __init__(self, base: str, bare: bool) -> None:
        self._base = base
        self._bare = bare

    def __call__(self, entry: Entry) -> Entry | None:
        link = _below(self._base, entry.linkname) if entry.kind is Kind.HARD_LINK else entry.linkname
        name = _below(self._base, entry.name)
        return None if self._bare and not name else replace(entry, name=name or ".", linkname=link)


class _FileName:
    """Takes one entry, of the right name and no folder; everything else in the archive is refused."""

    def __init__(self, base: str, called: str) -> None:
        self._base = base
        self._called = called
        self._seen = False

    def __call__(self, entry: Entry) -> Entry:
        if self._seen or entry.kind in (Kind.DIRECTORY, Kind.HARD_LINK) or _below(self._base, entry.name):
            raise BadArchive(f"something that was not asked for: {entry.name[:200]!r}")
        self._seen = True
        return replace(entry, name=self._called)
