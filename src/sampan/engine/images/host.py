"""Base images from this host's own files: chosen programs with their libraries, or an interpreter with its venv.

    host CMD...    the programs, found in the usual folders, and all that they load
    venv PATH      a Python virtual environment, its interpreter and standard library, and all that they load

The same files give the same image: names sorted, owner root, times SOURCE_DATE_EPOCH or 0.  Nothing is executed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from sampan.errors import InvalidRequest, NotFound
from sampan.files.elf import closure
from sampan.files.tar_entry import Entry, Kind
from sampan.files.tar_header import END, header, padding

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MERGED = ("bin", "sbin", "lib", "lib64", "lib32")  # links into usr/ on merged hosts
_FOLDERS = {"dev": 0o755, "etc": 0o755, "proc": 0o555, "root": 0o700, "run": 0o755, "sys": 0o555, "tmp": 0o1777, "var": 0o755}
_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}
_SKIPPED = frozenset(("__pycache__",))
_NOT_STANDARD = frozenset(("site-packages", "dist-packages", "test", "idlelib", "ensurepip"))  # of the interpreter itself
_CHUNK = 1 << 20


def programs(commands: list[str]) -> list[Path]:
    """Return the paths of commands.  Raises NotFound, InvalidRequest."""
    if not commands:
        raise InvalidRequest("host needs at least one command, such as: host sh ls")
    found = []
    for command in commands:
        path = shutil.which(command, path=SEARCH)
        if path is None or not os.path.isfile(path):
            raise NotFound(f"there is no program {command[:200]!r} on this host")
        found.append(Path(path))
    return found


def venv(folder: str) -> tuple[list[Path], list[Path]]:
    """Return (programs, trees) of a virtual environment.  Raises InvalidRequest when it is none."""
    place = Path(folder)
    config = place / "pyvenv.cfg"
    if not place.is_absolute() or not config.is_file():
        raise InvalidRequest(f"{folder[:200]!r} is no virtual environment: an absolute path to one is needed")
    fields = dict(line.partition("=")[::2] for line in config.read_text().splitlines() if "=" in line)
    home = Path({key.strip(): value.strip() for key, value in fields.items()}.get("home", ""))
    python = place / "bin/python3"
    if not python.exists() or not home.is_dir():
        raise InvalidRequest(f"{folder[:200]!r} has no interpreter")
    real = Path(os.path.realpath(python))
    libraries = [path for path in (real.parent.parent / "lib").glob("python3*") if path.is_dir() and path.name == real.name]
    return [python, real], [place, *libraries]


def python_version(folder: str) -> str:
    """Return the version that a virtual environment says its interpreter has, "" when it does not."""
    lines = (line.partition("=") for line in (Path(folder) / "pyvenv.cfg").read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() in ("version", "version_info")), "")


def tar(commands: list[Path], trees: list[Path], epoch: int) -> Iterator[bytes]:
    """Yield the tar of a root file system; of trees after the first, an interpreter's own, what is not standard stays away."""
    members: dict[str, Path | str | None] = dict.fromkeys(_FOLDERS)  # a file, a link's target, or a folder
    for name in _MERGED:
        if os.path.islink(f"/{name}"):
            members[name] = os.readlink(f"/{name}")
    modules: list[Path] = []
    for number, tree in enumerate(trees):
        for path in _walk(tree, _SKIPPED | _NOT_STANDARD if number else _SKIPPED):
            _add(members, path)
            if path.is_file() and not path.is_symlink() and ".so" in path.name:
                modules.append(path)
    for path in closure(commands, modules):
        _add(members, path)
    for name in sorted({*members, *_FILES}):
        yield from _member(name, members.get(name), epoch)
    yield END


def _walk(tree: Path, skipped: frozenset[str]) -> Iterator[Path]:
    for folder, names, files in os.walk(tree):
        names[:] = sorted(name for name in names if name not in skipped)
        yield from (Path(folder) / name for name in sorted(files))
        yield from (Path(folder) / name for name in names if os.path.islink(os.path.join(folder, name)))


def _add(members: dict[str, Path | str | None], path: Path) -> None:
    """Add a file by the path it is used by: links on the way stay links, and what they lead to comes too."""
    for _ in range(40):
        parent = os.path.realpath(path.parent)
        name = os.path.join(parent, path.name).lstrip("/")
        _parents(members, name)
        if not path.is_symlink():
            if path.is_file():
                members.setdefault(name, Path("/") / name)
            return
        target = os.readlink(path)
        members.setdefault(name, target)
        path = Path(parent) / target
    raise InvalidRequest(f"{path}: too many links")


def _parents(members: dict[str, Path | str | None], name: str) -> None:
    while name := name.rpartition("/")[0]:
        members.setdefault(name, None)


def _member(name: str, content: Path | str | None, epoch: int) -> Iterator[bytes]:
    moment = epoch * 10**9
    if name in _FILES:
        data = _FILES[name]
        yield (
            header(Entry(name, Kind.FILE, mode=0o644, size=len(data), mtime_ns=moment, stored=len(data)))
            + data
            + padding(len(data))
        )
    elif content is None:
        yield header(Entry(name + "/", Kind.DIRECTORY, mode=_FOLDERS.get(name, 0o755), mtime_ns=moment))
    elif isinstance(content, str):
        yield header(Entry(name, Kind.SYMLINK, mode=0o777, linkname=content, mtime_ns=moment))
    else:
        with open(content, "rb") as file:
            found = os.fstat(file.fileno())
            mode = stat.S_IMODE(found.st_mode) & 0o755
            yield header(Entry(name, Kind.FILE, mode=mode, size=found.st_size, mtime_ns=moment, stored=found.st_size))
            left = found.st_size
            while left and (data := file.read(min(_CHUNK, left))):
                left -= len(data)
                yield data
            if left:
                raise InvalidRequest(f"{content} was cut while it was read")
            yield padding(found.st_size)


class Stream:
    """The pieces of a tar as a reader."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def read(self, size: int = _CHUNK, /) -> bytes:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._held = piece
        data, self._held = self._held[:size], self._held[size:]
        return data
