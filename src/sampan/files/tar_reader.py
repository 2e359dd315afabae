"""A streaming reader of tar archives: v7, ustar, GNU and PAX, sparse files included, within strict bounds.

It never seeks, keeps one chunk in memory, and reads every header exactly once, so that no archive can make it loop.
Python's tarfile is not used: SECURITY.md P13.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from sampan.files import pax
from sampan.files.digests import Readable
from sampan.files.tar_entry import (
    BLOCK,
    MAX_EXTENDED,
    MAX_ID,
    MAX_MAJOR,
    MAX_MINOR,
    MAX_NAME,
    MAX_SECONDS,
    MAX_SIZE,
    BadArchive,
    Entry,
    Kind,
    field_number,
    number,
    seconds,
)

_CHUNK = 1 << 20
_ZEROS = bytes(BLOCK)
_KINDS = {
    b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE, b"1": Kind.HARD_LINK, b"2": Kind.SYMLINK,
    b"3": Kind.CHAR, b"4": Kind.BLOCK, b"5": Kind.DIRECTORY, b"6": Kind.FIFO, b"D": Kind.DIRECTORY,
}  # fmt: skip
_PAX = (b"x", b"X", b"g")
_GNU_LONG = {b"L": "path", b"K": "linkpath"}


# mode, uid, gid, size, mtime, checksum, flag, from byte 100 on
_PLAIN = re.compile(
    rb"([0-7]{7})\0([0-7]{7})\0([0-7]{7})\0([0-7]{11})\0([0-7]{11})\0([0-7]{6})\0 ([05])"
).fullmatch  # fmt: skip


class TarReader:
    """Iterate over it for the entries; `read` gives the content of the one that came last.

    offset: bytes of the archive used so far.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._buffer = memoryview(b"")
        self._left = 0  # content of the current entry not yet read
        self._padding = 0
        self._global: pax.Records = {}
        self.offset = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> Entry | None:
        """Return the next entry, skipping what is left of the last one; None at the end.  Raises BadArchive."""
        self._skip(self._left)
        self._skip_padding()
        self._left = self._padding = 0
        start = self.offset
        try:
            return self._next()
        except BadArchive as error:
            if error.offset:
                raise
            raise BadArchive(error.reason, offset=start, entry=error.entry) from None

    def read(self, size: int = _CHUNK) -> memoryview:
        """Return 1 to `size` bytes of the current entry's stored content; empty at its end."""
        view = self._some(min(size, self._left))
        self._left -= len(view)
        return view

    # Bytes

    def _some(self, size: int) -> memoryview:
        if size <= 0:
            return memoryview(b"")
        if not self._buffer:
            self._buffer = memoryview(self._stream.read(_CHUNK))
            if not self._buffer:
                raise BadArchive("the archive ends in the middle of an entry", offset=self.offset)
        view, self._buffer = self._buffer[:size], self._buffer[size:]
        self.offset += len(view)
        return view

    def _exactly(self, size: int) -> bytes:
        view = self._some(size)
        if len(view) == size:
            return bytes(view)
        parts = [view]
        missing = size - len(view)
        while missing:
            parts.append(self._some(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._some(size))

    def _skip_padding(self) -> None:
        """Skip what fills the last block; at the archive's end it may be missing, as umoci leaves it away."""
        while self._padding and not self._at_end():
            self._padding -= len(self._some(self._padding))

    def _at_end(self) -> bool:
        if not self._buffer:
            self._buffer = memoryview(self._stream.read(_CHUNK))
        return not self._buffer

    # Headers

    def _next(self) -> Entry | None:
        records = self._global
        extended = 0
        while not self._at_end():
            start = self.offset
            block = self._exactly(BLOCK)
            if block == _ZEROS:
                if extended or not (self._at_end() or self._exactly(BLOCK) == _ZEROS):
                    raise BadArchive("a block of zeros in the middle of the archive")
                return None
            if not extended and not self._global and (entry := self._plain(block, start)) is not None:
                return entry
            _verify_checksum(block)
            flag = block[156:157]
            if flag not in _PAX and flag not in _GNU_LONG:
                if flag == b"V":  # GNU's volume label
                    self._skip_content(field_number(block[124:136], "size", 0, MAX_EXTENDED))
                    continue
                return self._entry(block, records, start)
            size = field_number(block[124:136], "size of an extended header", 0, MAX_SIZE)
            extended += size + BLOCK
            if extended > MAX_EXTENDED:
                raise BadArchive(f"extended headers are larger than {MAX_EXTENDED} bytes")
            content = self._content(size)
            if flag in _GNU_LONG:
                records = {**records, _GNU_LONG[flag]: content.partition(b"\0")[0]}
            elif flag == b"g":
                found = pax.parse(content)
                self._global = pax.merge_global(self._global, found)
                records = {**records, **pax.merge_global({}, found)}
            else:
                records = pax.merge_local(records, pax.parse(content))
        if extended and records != self._global:
            raise BadArchive("an extended header without its entry")
        return None

    def _plain(self, block: bytes, start: int) -> Entry | None:
        """Return the entry of a header as nearly every file and folder has it; None for whatever is not exactly so."""
        found = _PLAIN(block, 100, 157)
        if found is None or block[257:263] != b"ustar\0" or block[345] or not block[0]:
            return None
        mode, uid, gid, size, mtime, checksum, flag = found.groups()
        if int(checksum, 8) != sum(block) - sum(block[148:156]) + 8 * 0x20:
            return None
        kind = Kind.FILE
        self._left = int(size, 8)
        if flag == b"5":
            kind, self._left = Kind.DIRECTORY, 0
        self._padding = -self._left % BLOCK
        names = (_text(block[265:297], {}, "uname"), _text(block[297:329], {}, "gname")) if block[265] or block[297] else ("", "")
        return Entry(
            os.fsdecode(block[:100].partition(b"\0")[0]), kind, int(mode, 8) & 0o7777, int(uid, 8), int(gid, 8), self._left,
            int(mtime, 8) * 10**9, "", 0, 0, *names, {}, self._left, None, start,
        )  # fmt: skip

    def _content(self, size: int) -> bytes:
        content = self._exactly(size)
        self._skip(-size % BLOCK)
        return content

    def _skip_content(self, size: int) -> None:
        self._skip(size + -size % BLOCK)

    def _entry(self, block: bytes, records: pax.Records, start: int) -> Entry:
        flag = block[156:157]
        name = os.fsdecode(records["path"]) if "path" in records else _header_name(block)
        try:
            return self._checked_entry(block, records, start, flag, name)
        except BadArchive as error:
            raise BadArchive(error.reason, offset=error.offset, entry=name) from None

    def _checked_entry(self, block: bytes, records: pax.Records, start: int, flag: bytes, name: str) -> Entry:
        if flag not in _KINDS:
            raise BadArchive(f"unknown type {flag!r}")
        kind = _KINDS[flag]
        # Old archives mark a folder by its name only; the whole name counts, not the header's part (CVE-2025-13462).
        if flag == b"\0" and name.endswith("/"):
            kind = Kind.DIRECTORY
        stored = self._begin_content(block, records, kind, flag)
        size, segments = stored, None
        if kind is Kind.FILE:
            size, segments = self._sparse(block, records, flag, stored)
            name = os.fsdecode(records.get("GNU.sparse.name", b"")) or name
        linkname = _linkname(block, records) if kind in (Kind.HARD_LINK, Kind.SYMLINK) else ""
        for text in (name, linkname):
            if len(os.fsencode(text)) > MAX_NAME:
                raise BadArchive(f"a name longer than {MAX_NAME} bytes")
        if not name:
            raise BadArchive("an entry without a name")
        device = kind in (Kind.CHAR, Kind.BLOCK)
        return Entry(
            name=name,
            kind=kind,
            mode=field_number(block[100:108], "mode", 0, (1 << 31) - 1) & 0o7777,
            uid=_id(block[108:116], records, "uid"),
            gid=_id(block[116:124], records, "gid"),
            size=size,
            mtime_ns=_mtime(block, records),
            linkname=linkname,
            devmajor=field_number(block[329:337], "major number", 0, MAX_MAJOR) if device else 0,
            devminor=field_number(block[337:345], "minor number", 0, MAX_MINOR) if device else 0,
            uname=_text(block[265:297], records, "uname"),
            gname=_text(block[297:329], records, "gname"),
            xattrs=pax.xattrs(records) if records else {},
            stored=self._left,
            segments=segments,
            offset=start,
            atime_ns=seconds(records["atime"], "atime") if "atime" in records else None,
        )

    def _begin_content(self, block: bytes, records: pax.Records, kind: Kind, flag: bytes) -> int:
        """Return the bytes of content that follow; only files (and GNU's dump folders) have any."""
        if "size" in records:
            stored = number(records["size"], "size", MAX_SIZE)
        else:
            stored = field_number(block[124:136], "size", 0, MAX_SIZE)
        if kind is not Kind.FILE and flag != b"D":
            stored = 0
        self._left, self._padding = stored, -stored % BLOCK
        return stored

    def _sparse(self, block: bytes, records: pax.Records, flag: bytes, stored: int) -> tuple[int, pax.Segments | None]:
        """Return a file's size when read, and its map of holes, if it has one."""
        if flag == b"S":
            numbers = self._old_gnu_map(block)
            size = field_number(block[483:495], "size of a sparse file", 0, MAX_SIZE)
        elif pax.is_version_1(records):
            size = pax.sparse_size(records, stored)
            numbers = self._leading_map()
        elif "GNU.sparse.map" in records:
            size = pax.sparse_size(records, stored)
            numbers = pax.map_numbers(records["GNU.sparse.map"])
        else:
            return stored, None
        return size, pax.check_segments(numbers, size, self._left)

    def _old_gnu_map(self, block: bytes) -> list[int]:
        """Read the map of type S: 4 pairs in the header, then blocks of 21 pairs while a flag says so."""
        numbers = _pairs(block[386:482])
        more, blocks = block[482], 0
        while more:
            block = self._exactly(BLOCK)
            numbers += _pairs(block[:504])
            more, blocks = block[504], blocks + 1
            if blocks * BLOCK > MAX_EXTENDED:
                raise BadArchive(f"sparse map larger than {MAX_EXTENDED} bytes")
        return numbers

    def _leading_map(self) -> list[int]:
        """Read the map of GNU's version 1.0: lines of decimal numbers before the content, padded to a block."""
        text = bytearray()
        wanted = 1
        while (lines := text.count(b"\n")) < wanted:
            if len(text) >= MAX_EXTENDED or self._left < BLOCK:
                raise BadArchive("sparse map is cut or too large")
            text += self._exactly(BLOCK)
            self._left -= BLOCK
            if wanted == 1 and b"\n" in text:
                wanted = 1 + 2 * number(bytes(text.partition(b"\n")[0]), "sparse map", MAX_EXTENDED)
            elif lines == 0 and len(text) > BLOCK:
                raise BadArchive("sparse map without a length")
        return [number(line, "sparse map") for line in bytes(text).split(b"\n")[1:wanted]]


def _verify_checksum(block: bytes) -> None:
    stated = field_number(block[148:156], "checksum", 0, 1 << 20)
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stated == total:
        return
    # Some old writers summed signed chars.
    if stated != total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        raise BadArchive("the header's checksum is wrong")


def _header_name(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        # star keeps times behind a shorter prefix and signs with "tar".
        prefix = block[345 : 476 if block[508:512] == b"tar\0" else 500].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    return os.fsdecode(name)


def _linkname(block: bytes, records: pax.Records) -> str:
    raw = records.get("linkpath") or block[157:257].partition(b"\0")[0]
    if not raw:
        raise BadArchive("a link without a target")
    return os.fsdecode(raw)


def _id(raw: bytes, records: pax.Records, what: str) -> int:
    if what in records:
        return number(records[what], what, MAX_ID)
    return field_number(raw, what, 0, MAX_ID)


def _mtime(block: bytes, records: pax.Records) -> int:
    if "mtime" in records:
        return seconds(records["mtime"], "mtime")
    return field_number(block[136:148], "mtime", -MAX_SECONDS, MAX_SECONDS) * 10**9


def _text(raw: bytes, records: pax.Records, what: str) -> str:
    return os.fsdecode(records[what] if what in records else raw.partition(b"\0")[0])


def _pairs(raw: bytes) -> list[int]:
    numbers = []
    for at in range(0, len(raw) - 23, 24):
        if raw[at] == 0:
            break
        numbers.append(field_number(raw[at : at + 12], "sparse map", 0, MAX_SIZE))
        numbers.append(field_number(raw[at + 12 : at + 24], "sparse map", 0, MAX_SIZE))
    return numbers
