"""Tar headers as Docker writes them: ustar, with a PAX header where ustar cannot say it.

Whole seconds, no atime, no user or group names, folders end in `/`: the same tree always gives the same bytes.
"""

from __future__ import annotations

import os

from sampan.files.tar_entry import BLOCK, Entry, Kind

_MAX_OCTAL_SIZE = 8**11 - 1
_MAX_OCTAL_ID = 8**7 - 1
_FLAGS = {kind: kind.value.encode() for kind in Kind}
_MAGIC = b"ustar\00000" + bytes(64)  # and no names of user and group
_NO_DEVICE = bytes(16)
_PLAIN = b"0" + bytes(100) + _MAGIC + _NO_DEVICE + bytes(155 + 12)
_PLAIN_SUM = sum(_PLAIN) + 8 * 0x20
END = bytes(2 * BLOCK)


def header(entry: Entry) -> bytes:
    """Return the blocks that stand before the entry's content; its name must be as it shall stand there."""
    name, link = os.fsencode(entry.name), os.fsencode(entry.linkname)
    mtime = entry.mtime_ns // 10**9
    records: list[tuple[bytes, bytes]] = []
    prefix = b""
    if len(name) > 100 or _needs_pax(name):
        prefix, short = _split(name)
        if not short or _needs_pax(name):
            prefix, short = b"", name[:100]
            records.append((b"path", name))
        name = short
    if len(link) > 100 or _needs_pax(link):
        records.append((b"linkpath", link))
    for key, value, limit in (
        (b"size", entry.stored, _MAX_OCTAL_SIZE),
        (b"uid", entry.uid, _MAX_OCTAL_ID),
        (b"gid", entry.gid, _MAX_OCTAL_ID),
        (b"mtime", mtime, _MAX_OCTAL_SIZE),
    ):
        if not 0 <= value <= limit:
            records.append((key, b"%d" % value))
    records += [(b"SCHILY.xattr." + os.fsencode(key), value) for key, value in sorted(entry.xattrs.items())]
    main = _block(entry, name, prefix, link[:100], mtime)
    if not records:
        return main
    content = b"".join(_record(key, value) for key, value in records)
    extended = Entry(name=f"PaxHeaders.0/{os.path.basename(entry.name.rstrip('/'))}", kind=Kind.FILE, stored=len(content))
    before = _block(extended, os.fsencode(extended.name)[:100], b"", b"", 0, b"x")
    return before + content + padding(len(content)) + main


def plain_file(name: bytes, mode: int, owner: tuple[int, int], size: int, mtime: int) -> bytes | None:
    """Return the block before a file's content when one block can say it all, as it nearly always can; else None."""
    if len(name) > 100 or not name.isascii() or size > _MAX_OCTAL_SIZE or not 0 <= mtime <= _MAX_OCTAL_SIZE:
        return None
    if owner[0] > _MAX_OCTAL_ID or owner[1] > _MAX_OCTAL_ID:
        return None
    before = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, *owner, size, mtime)
    return b"%b%06o\0 %b" % (before, sum(before) + _PLAIN_SUM, _PLAIN)


def padding(size: int) -> bytes:
    """Return the zeros that fill content of `size` bytes up to whole blocks."""
    return bytes(-size % BLOCK)


def _needs_pax(name: bytes) -> bool:
    """UTF-8 beyond ASCII goes into PAX, as the standard has it; other bytes stand raw in the header, as everywhere."""
    if name.isascii():
        return False
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Split a long name into ustar's (prefix of at most 155, name of at most 100) bytes; (b"", b"") if that can't be."""
    at = name.rfind(b"/", 0, 156)
    if at > 0 and 0 < len(name) - at - 1 <= 100:
        return name[:at], name[at + 1 :]
    return b"", b""


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    if len(str(length)) + len(body) != length:
        length += 1
    return b"%d" % length + body


def _octal(value: int, limit: int) -> int:
    return value if 0 <= value <= limit else 0


def _block(entry: Entry, name: bytes, prefix: bytes, link: bytes, mtime: int, flag: bytes = b"") -> bytes:
    before = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"), entry.mode & 0o7777, _octal(entry.uid, _MAX_OCTAL_ID), _octal(entry.gid, _MAX_OCTAL_ID),
        _octal(entry.stored, _MAX_OCTAL_SIZE), _octal(mtime, _MAX_OCTAL_SIZE),
    )  # fmt: skip
    device = _NO_DEVICE
    if entry.kind in (Kind.CHAR, Kind.BLOCK):
        device = b"%07o\0%07o\0" % (_octal(entry.devmajor, _MAX_OCTAL_ID), _octal(entry.devminor, _MAX_OCTAL_ID))
    after = b"%b%b%b%b%b%b" % (
        flag or _FLAGS[entry.kind], link.ljust(100, b"\0"), _MAGIC, device, prefix.ljust(155, b"\0"), bytes(12)
    )  # fmt: skip
    return b"%b%06o\0 %b" % (before, sum(before) + sum(after) + 8 * 0x20, after)
