"""What a 64-bit ELF program needs to run: its loader and its shared libraries, found as ld.so(8) would.

Read only; nothing is executed.  Sources: elf(5), ld.so(8): DT_RPATH/DT_RUNPATH with $ORIGIN, then the configured folders.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sampan.errors import InvalidRequest

MAX_FILES = 5000
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29
_DEFAULT = ("/lib", "/usr/lib", "/lib64", "/usr/lib64")


@dataclass(frozen=True)
class Elf:
    """interpreter: the loader, "" for a static program; needed: names of libraries; search: folders of its own, in order."""

    interpreter: str
    needed: tuple[str, ...]
    search: tuple[str, ...]


def read(path: Path) -> Elf | None:
    """Return what an ELF file needs; None for any other file.  Raises InvalidRequest for a damaged or a foreign one."""
    with open(path, "rb") as file:
        data = file.read(64)
        if data[:4] != b"\x7fELF":
            return None
        if data[4:6] != b"\x02\x01":
            raise InvalidRequest(f"{path} is not a 64-bit little-endian ELF file")
        try:
            offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
            file.seek(offset)
            table = file.read(size * count)
            rows = [struct.unpack_from("<IIQQQQQQ", table, number * size) for number in range(count)]

            def content(kind: int) -> bytes:
                row = next((row for row in rows if row[0] == kind), None)
                if row is None or row[5] > 1 << 20:
                    return b""
                file.seek(row[2])
                return file.read(row[5])

            interpreter = content(_PT_INTERP).rstrip(b"\0").decode()
            return Elf(interpreter, *_dynamic(file, rows, content(_PT_DYNAMIC), path))
        except (struct.error, UnicodeDecodeError, OSError, ValueError) as error:
            raise InvalidRequest(f"{path} is a damaged ELF file: {error}") from None


def _dynamic(file: object, rows: list[tuple[int, ...]], table: bytes, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    pairs = [struct.unpack_from("<QQ", table, at) for at in range(0, len(table) - 15, 16)]
    address = next((value for tag, value in pairs if tag == _STRTAB), 0)
    segment = next((row for row in rows if row[0] == _PT_LOAD and row[3] <= address < row[3] + row[5]), None)
    if segment is None:
        return (), ()

    def text(at: int) -> str:
        file.seek(segment[2] + address - segment[3] + at)  # type: ignore[attr-defined]
        return str(file.read(4096).partition(b"\0")[0].decode())  # type: ignore[attr-defined]

    needed = tuple(text(value) for tag, value in pairs if tag == _NEEDED)
    words = [text(value) for tag, value in pairs if tag in (_RPATH, _RUNPATH)]
    origin = os.path.dirname(os.path.realpath(path))
    search = [one.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for word in words for one in word.split(":") if one]
    return needed, tuple(search)


def configured_folders(config: Path = Path("/etc/ld.so.conf")) -> list[str]:
    """Return the loader's folders: ld.so.conf and what it includes, then the usual ones."""
    found: list[str] = []
    waiting = [config]
    seen: set[Path] = set()
    while waiting and len(seen) < 100:
        one = waiting.pop(0)
        if one in seen or not one.is_file():
            continue
        seen.add(one)
        for line in one.read_text(errors="replace").splitlines():
            words = line.partition("#")[0].split()
            if len(words) == 2 and words[0] == "include":
                waiting += sorted(one.parent.glob(words[1]) if not words[1].startswith("/") else Path("/").glob(words[1][1:]))
            elif words and words[0].startswith("/"):
                found.append(words[0])
    return [*found, *_DEFAULT]


def closure(programs: Iterable[Path], modules: Iterable[Path] = ()) -> list[Path]:
    """Return the programs with all that they need, as the paths they are found by.

    modules: libraries that programs may load; one whose own libraries are not here comes alone, as it is here too.
    Raises InvalidRequest when a program's library is not to be found.
    """
    folders = configured_folders()
    found: dict[str, None] = {}
    waiting: list[tuple[str, tuple[str, ...], bool]] = [(str(one), (), False) for one in modules]
    waiting += [(str(program), (), True) for program in programs]
    while waiting:
        name, inherited, must = waiting.pop()
        if name in found:
            continue
        found[name] = None
        if len(found) > MAX_FILES:
            raise InvalidRequest(f"more than {MAX_FILES} files are needed")
        path = Path(name)
        made = read(path)
        if made is None:
            waiting += [(one, (), must) for one in _script_interpreter(path)]
            continue
        search = (*made.search, *inherited)
        if made.interpreter:
            waiting.append((made.interpreter, (), must))
        for library in made.needed:
            place = _library(library, (*search, *folders))
            if place:
                waiting.append((place, search, must))
            elif must:
                raise InvalidRequest(f"{path} needs {library}, which is not to be found")
    return [Path(name) for name in sorted(found)]


def _library(name: str, folders: Iterable[str]) -> str:
    if "/" in name:
        return name
    return next((place for folder in folders if os.path.isfile(place := os.path.join(folder, name))), "")


def _script_interpreter(path: Path) -> list[str]:
    """Return what runs a #! script; /usr/bin/env's own argument is looked up as a program."""
    with open(path, "rb") as file:
        line = file.readline(256)
    if not line.startswith(b"#!"):
        return []
    words = line[2:].decode("utf-8", "replace").split()
    return words[:1] if words and words[0].startswith("/") else []
