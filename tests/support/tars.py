"""Tar archives for tests, the malformed ones too, and a root with a canary beside it."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sampan.files.tar_apply import Applied, Budget, Options, Whiteouts, apply

PLAIN_USER = Options(owner=(os.geteuid(), os.getegid()))


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def directory(name: str, **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.DIRTYPE, **attributes)


def symlink(name: str, target: str, **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.SYMTYPE, linkname=target, **attributes)


def hardlink(name: str, target: str, **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, tarfile.LNKTYPE, linkname=target, **attributes)


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def raw_header(
    name: bytes, flag: bytes = b"0", size: bytes = b"00000000000\0", magic: bytes = b"ustar\00000", **fields: bytes
) -> bytes:
    """Return a header with a right checksum and whatever fields a test wants, by ustar's names."""
    block = bytearray(512)
    places = {"mode": 100, "uid": 108, "gid": 116, "mtime": 136, "linkname": 157, "devmajor": 329, "devminor": 337, "tail": 345}
    values = {"mode": b"0000644\0", "uid": b"0000000\0", "gid": b"0000000\0", "mtime": b"00000000000\0", **fields}
    for at, value in ((0, name), (124, size), (156, flag), (257, magic), *((places[k], v) for k, v in values.items())):
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def blocks(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax_header(*records: tuple[bytes, bytes], flag: bytes = b"x") -> bytes:
    body = b""
    for key, value in records:
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        body += b"%d" % length + rest
    return raw_header(b"pax", flag, b"%011o\0" % len(body)) + blocks(body)


END = bytes(1024)


@dataclass
class Yard:
    """A root to apply to, and next to it what must stay as it is."""

    root: Path
    fd: int
    canary: Path

    def apply(
        self, data: bytes, *, whiteouts: Whiteouts = Whiteouts.PLAIN, budget: Budget = Budget(), options: Options = PLAIN_USER
    ) -> Applied:
        return apply(io.BytesIO(data), self.fd, whiteouts=whiteouts, budget=budget, options=options)

    def outside(self) -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for path in (self.root.parent, *sorted(self.root.parent.rglob("*"))):
            if path == self.root or self.root in path.parents:
                continue
            state = path.lstat()
            content = path.read_bytes() if path.is_file() else sorted(os.listdir(path))
            found[str(path)] = (state.st_mode, state.st_uid, state.st_mtime_ns, state.st_nlink, content)
        return found


@contextmanager
def yard(top: Path) -> Iterator[Yard]:
    """Yield a root with a canary beside it; what is outside must be untouched at the end, and no descriptor left."""
    root, canary = top / "root", top / "canary"
    root.mkdir()
    canary.mkdir()
    (canary / "CANARY").write_text("alive")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    made = Yard(root, fd, canary)
    before, fds = made.outside(), open_fds()
    try:
        yield made
        assert made.outside() == before
        assert open_fds() == fds
    finally:
        os.close(fd)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
