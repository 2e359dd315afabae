"""Tar headers as Docker writes them: ustar, with a PAX header where ustar cannot say it.

Whole seconds, no atime, no user or group names, folders end in `/`: the same tree always gives the same bytes.
"""

from __future__ import annotations

import os

from sampan.files.tar_entry import BLOCK, Entry, Kind

_MAX_OCTAL_SIZE = 8**11 - 1
_MAX_OCTAL_ID = 8**7 - 1
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


def _octal(value: int, width: int) -> bytes:
    limit = 8 ** (width - 1) - 1
    return b"%0*o\0" % (width - 1, value if 0 <= value <= limit else 0)


def _block(entry: Entry, name: bytes, prefix: bytes, link: bytes, mtime: int, flag: bytes = b"") -> bytes:
    raw = bytearray(BLOCK)
    raw[0 : len(name)] = name
    raw[100:108] = _octal(entry.mode & 0o7777, 8)
    raw[108:116] = _octal(entry.uid, 8)
    raw[116:124] = _octal(entry.gid, 8)
    raw[124:136] = _octal(entry.stored, 12)
    raw[136:148] = _octal(mtime, 12)
    raw[148:156] = b" " * 8
    raw[156:157] = flag or entry.kind.value.encode()
    raw[157 : 157 + len(link)] = link
    raw[257:265] = b"ustar\00000"
    if entry.kind in (Kind.CHAR, Kind.BLOCK):
        raw[329:337] = _octal(entry.devmajor, 8)
        raw[337:345] = _octal(entry.devminor, 8)
    raw[345 : 345 + len(prefix)] = prefix
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)
