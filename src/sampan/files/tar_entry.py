"""What a tar archive says about one file, and the refusal of archives that say nonsense."""

from __future__ import annotations

import enum

import msgspec

from sampan.errors import InvalidRequest

BLOCK = 512
MAX_NAME = 4095  # PATH_MAX without its NUL, linux/limits.h
MAX_COMPONENT = 255  # NAME_MAX
MAX_EXTENDED = 1 << 20  # all extended headers of one entry together, and a map of holes
MAX_SIZE = 1 << 60
MAX_ID = (1 << 32) - 2  # (uid_t) -1 means "leave it" to chown(2)
MAX_SECONDS = 1 << 40
MAX_MAJOR = (1 << 12) - 1
MAX_MINOR = (1 << 20) - 1


class BadArchive(InvalidRequest):
    """The archive is malformed, cut, or asks for what may not be.

    offset: bytes from the archive's start to the header of the entry at fault.
    """

    def __init__(self, reason: str, *, offset: int = 0, entry: str = "") -> None:
        name = f" entry {entry[:200].encode(errors='backslashreplace').decode()!r}:" if entry else ""
        super().__init__(f"invalid archive:{name} {reason} (at byte {offset})")
        self.reason = reason
        self.offset = offset
        self.entry = entry


class Kind(enum.Enum):
    """What an entry is; the values are ustar's type flags."""

    FILE = "0"
    HARD_LINK = "1"
    SYMLINK = "2"
    CHAR = "3"
    BLOCK = "4"
    DIRECTORY = "5"
    FIFO = "6"


class Entry(msgspec.Struct, frozen=True):
    """One file of an archive.

    name, linkname: as the archive has them, bytes that are not UTF-8 as surrogates (os.fsencode gives them back).
    size: of the file as it will be read, holes included; 0 for everything but files.
    stored: bytes of content in the archive.
    segments: where the stored bytes belong, as (offset, length), ascending; None when there are no holes.
    offset: of the entry's header in the archive.
    """

    name: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: str = ""
    devmajor: int = 0
    devminor: int = 0
    uname: str = ""
    gname: str = ""
    xattrs: dict[str, bytes] = {}
    stored: int = 0
    segments: tuple[tuple[int, int], ...] | None = None
    offset: int = 0
    atime_ns: int | None = None


def number(value: bytes, what: str, limit: int = MAX_SIZE) -> int:
    """Return the ASCII decimal `value`, 0 to `limit`.  Raises BadArchive."""
    if not value.isdigit() or len(value) > 20 or (result := int(value)) > limit:  # bytes.isdigit knows ASCII only
        raise BadArchive(f"{what} is not a number from 0 to {limit}: {value[:30]!r}")
    return result


def seconds(value: bytes, what: str) -> int:
    """Return the decimal fraction of seconds `value` ("-1.5") in nanoseconds.  Raises BadArchive."""
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if fraction and not fraction.isdigit():
        raise BadArchive(f"{what} is not a time: {value[:30]!r}")
    nanoseconds = number(whole, what, MAX_SECONDS) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if value.startswith(b"-") else nanoseconds


def field_number(raw: bytes, what: str, low: int, high: int) -> int:
    """Return a header's number: octal, or GNU's base 256 (first bit set).  Raises BadArchive outside low..high."""
    if raw[-1] in b"\0 " and (digits := raw[:-1]).isdigit() and digits.isascii() and not (b"8" in digits or b"9" in digits):
        value = int(digits, 8)  # as nearly every writer has it
    elif raw[0] & 0x80:
        value = int.from_bytes(raw, "big")
        # 0x80 begins a positive number; 0xff (two's complement over the whole field) a negative one.
        value = value - (1 << 8 * len(raw)) if raw[0] & 0x40 else value - (0x80 << 8 * (len(raw) - 1))
    else:
        digits = raw.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
        try:
            value = int(digits, 8) if digits.isdigit() else 0
        except ValueError:
            value = low - 1
        if digits and not digits.isdigit():
            value = low - 1
    if not low <= value <= high:
        raise BadArchive(f"{what} is not a number from {low} to {high}")
    return value
