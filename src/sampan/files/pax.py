"""PAX extended headers and the maps of sparse files.

Sources: POSIX pax ("pax Extended Header"), the GNU tar manual ("Storing Sparse Files"), star(1) for SCHILY.*,
libarchive's archive_write_set_format_pax for LIBARCHIVE.xattr.*.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable

from sampan.files.tar_entry import MAX_EXTENDED, MAX_SIZE, BadArchive, number

Records = dict[str, bytes]
Segments = tuple[tuple[int, int], ...]

_NOT_FOR_ALL = ("path", "linkpath", "size")  # in a global header they would give every entry one name
_TEXT = ("path", "linkpath", "uname", "gname", "GNU.sparse.name")


def parse(data: bytes) -> list[tuple[str, bytes]]:
    """Return the records of an extended header in their order.  Raises BadArchive."""
    records = []
    position = 0
    while position < len(data):
        if not data[position:].strip(b"\0"):  # some writers pad within the stated size
            break
        space = data.find(b" ", position, position + 8)
        length = number(data[position:space], "length of a pax record", MAX_EXTENDED) if space > 0 else 0
        end = position + length
        if space < 0 or end > len(data) or end < space + 4 or data[end - 1] != 0x0A:
            raise BadArchive("malformed pax record")
        keyword, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not keyword or b"\0" in keyword:
            raise BadArchive("malformed pax record")
        key = os.fsdecode(keyword)
        if key in _TEXT and b"\0" in value:
            raise BadArchive(f"pax record {key} contains a NUL byte")
        records.append((key, value))
        position = end
    return records


def merge_global(known: Records, records: Iterable[tuple[str, bytes]]) -> Records:
    """Return the records that hold for all later entries; an empty value takes one back."""
    merged = dict(known)
    for key, value in records:
        if key in _NOT_FOR_ALL or key.startswith("GNU.sparse."):
            raise BadArchive(f"global pax header sets {key}")
        if value:
            merged[key] = value
        else:
            merged.pop(key, None)
    if sum(len(key) + len(value) for key, value in merged.items()) > MAX_EXTENDED:
        raise BadArchive(f"global pax headers are larger than {MAX_EXTENDED} bytes")
    return merged


def merge_local(known: Records, records: Iterable[tuple[str, bytes]]) -> Records:
    """Return the records that hold for one entry.  Version 0.0 of GNU's sparse maps repeats keys: they are joined."""
    merged = dict(known)
    old_map: list[bytes] = []
    for key, value in records:
        if key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            if (key == "GNU.sparse.offset") != (len(old_map) % 2 == 0):
                raise BadArchive("sparse map: offsets and lengths do not alternate")
            old_map.append(value)
        elif value:
            merged[key] = value
        else:
            merged.pop(key, None)
    if old_map:
        merged["GNU.sparse.map"] = b",".join(old_map)
    return merged


def xattrs(records: Records) -> dict[str, bytes]:
    """Return the extended attributes: star's SCHILY.xattr (raw) over libarchive's (base64).  Raises BadArchive."""
    found: dict[str, bytes] = {}
    for key, value in records.items():
        if key.startswith("LIBARCHIVE.xattr."):
            name = _unquote(key.removeprefix("LIBARCHIVE.xattr."))
            try:
                found.setdefault(name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True))
            except binascii.Error:
                raise BadArchive(f"extended attribute {name!r} is not base64") from None
    for key, value in records.items():
        if key.startswith("SCHILY.xattr."):
            found[key.removeprefix("SCHILY.xattr.")] = value
    for name in found:
        if not 0 < len(name) <= 255 or "\0" in name:
            raise BadArchive("extended attribute with an impossible name")
    return found


def _unquote(text: str) -> str:
    """Undo %XX, as libarchive writes it."""
    head, *rest = os.fsencode(text).split(b"%")
    result = [head]
    for part in rest:
        try:
            result += [binascii.unhexlify(part[:2]), part[2:]]
        except binascii.Error:
            raise BadArchive("extended attribute with a malformed name") from None
    return os.fsdecode(b"".join(result))


def check_segments(numbers: list[int], size: int, stored: int) -> Segments:
    """Return the sparse map as (offset, length) pairs.

    Raises BadArchive unless it ascends without overlap within `size` and covers exactly `stored` bytes.
    """
    if len(numbers) % 2:
        raise BadArchive("sparse map: odd length")
    segments = []
    end = total = 0
    for offset, length in zip(numbers[::2], numbers[1::2], strict=True):
        if offset < end or offset + length > size:
            raise BadArchive("sparse map: segments overlap or lie outside of the file")
        end = offset + length
        total += length
        if length:
            segments.append((offset, length))
    if total != stored:
        raise BadArchive(f"sparse map: segments hold {total} bytes, the archive {stored}")
    return tuple(segments)


def map_numbers(value: bytes) -> list[int]:
    """Return the numbers of GNU.sparse.map, "offset,length,offset,length"."""
    return [number(part, "sparse map") for part in value.split(b",")] if value else []


def sparse_size(records: Records, stored: int) -> int:
    """Return a sparse file's size when read."""
    for key in ("GNU.sparse.realsize", "GNU.sparse.size"):
        if key in records:
            return number(records[key], key, MAX_SIZE)
    return stored


def is_version_1(records: Records) -> bool:
    """Return whether the map stands at the beginning of the content.  Raises BadArchive on versions nobody knows."""
    version = records.get("GNU.sparse.major"), records.get("GNU.sparse.minor")
    if version in ((None, None), (b"0", b"0"), (b"0", b"1")):
        return False
    if version != (b"1", b"0"):
        raise BadArchive(f"unknown version of sparse map: {version[0]!r}.{version[1]!r}")
    return True
