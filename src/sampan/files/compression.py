"""Decompressing what images come in, in this process and in bounded memory; no program is ever run (SECURITY.md row 19).

Told by its first bytes: gzip (RFC 1952), zstd (RFC 8878), xz, bzip2; everything else is passed on as it is.
"""

from __future__ import annotations

import bz2
import enum
import lzma
from collections.abc import Callable
from typing import Protocol

import zstandard
from isal import igzip_lib

from sampan.files.digests import Readable
from sampan.files.tar_entry import BadArchive

_INPUT = 64 << 10
_OUTPUT = 1 << 20
MAX_WINDOW = 128 << 20  # of zstd (--long=27)
_XZ_MEMORY = 256 << 20  # xz -9 takes 65 MiB
_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"


class Compression(enum.Enum):
    """How a stream is compressed."""

    PLAIN = "plain"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


class _Decompressor(Protocol):
    """What the decompressors of gzip, xz and bzip2 have in common."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


_MAGICS = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (_ZSTD_FRAME, Compression.ZSTD),
    (b"\xfd7zXZ\0", Compression.XZ),
    (b"BZh", Compression.BZIP2),
)
_MAKERS: dict[Compression, Callable[[], _Decompressor]] = {
    Compression.GZIP: lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
    Compression.XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
    Compression.BZIP2: bz2.BZ2Decompressor,
}
# bz2 says OSError and ValueError
_FAULTS: tuple[type[Exception], ...] = (
    igzip_lib.IsalError,  # type: ignore[assignment]  # its stub calls the class an instance
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
)


def detect(head: bytes) -> Compression:
    """Return the compression that the first bytes tell; 6 bytes suffice."""
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5:  # a skippable frame
        return Compression.ZSTD
    return next((kind for magic, kind in _MAGICS if head.startswith(magic)), Compression.PLAIN)


def looked_at(stream: Readable) -> tuple[Compression, Readable]:
    """Return how `stream` is compressed, and a reader of all of it as it is."""
    source = _Source(stream)
    return detect(source.peek(6)), source


def decompressed(stream: Readable, kind: Compression) -> Readable:
    """Return a reader of the plain content; it raises BadArchive when the compressed data is damaged or cut."""
    if kind is Compression.PLAIN:
        return stream
    source = stream if isinstance(stream, _Source) else _Source(stream)
    return _ZstdReader(source) if kind is Compression.ZSTD else _MemberReader(source, kind)


def open_decompressed(stream: Readable) -> tuple[Compression, Readable]:
    """Return how `stream` is compressed, and a reader of its plain content, as `decompressed` gives it."""
    kind, source = looked_at(stream)
    return kind, decompressed(source, kind)


class _Source:
    """A stream whose beginning can be looked at."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._held = b""

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes without taking them; fewer only at the end."""
        while len(self._held) < size and (data := self._stream.read(_INPUT)):
            self._held += data
        return self._held[:size]

    def read(self, size: int = _OUTPUT, /) -> bytes:
        if self._held:
            data, self._held = self._held[:size], self._held[size:]
            return data
        return self._stream.read(size)

    def put_back(self, data: bytes) -> None:
        self._held = data + self._held

    def exactly(self, size: int) -> bytes:
        """Return the next `size` bytes.  Raises BadArchive at the end."""
        parts = []
        while size:
            data = self.read(size)
            if not data:
                raise BadArchive("zstd: the compressed data is cut")
            parts.append(data)
            size -= len(data)
        return b"".join(parts)


class _MemberReader:
    """gzip, xz and bzip2: one or more members after each other, then perhaps zeros (of a tape's last block)."""

    def __init__(self, source: _Source, kind: Compression) -> None:
        self._source = source
        self._kind = kind
        self._decompressor: _Decompressor | None = _MAKERS[kind]()

    def read(self, size: int = _OUTPUT, /) -> bytes:
        while self._decompressor is not None:
            if self._decompressor.eof:
                self._next_member(self._decompressor.unused_data)
                continue
            data = self._source.read(_INPUT) if self._decompressor.needs_input else b""
            if not data and self._decompressor.needs_input:
                raise BadArchive(f"{self._kind.value}: the compressed data is cut")
            try:
                plain = self._decompressor.decompress(data, max_length=size)
            except _FAULTS as error:
                raise BadArchive(f"{self._kind.value}: {error}") from None
            if plain:
                return plain
        return b""

    def _next_member(self, left: bytes) -> None:
        self._source.put_back(left)
        while (head := self._source.peek(6)) and not head.strip(b"\0"):
            self._source.read(len(head))
        if not head:
            self._decompressor = None
        elif detect(head) is self._kind:
            self._decompressor = _MAKERS[self._kind]()
        else:
            raise BadArchive(f"{self._kind.value}: something else after the compressed data")


class _ZstdReader:
    """zstd, block by block: a block gives at most 128 KiB, so neither a bomb nor a cut goes unseen (RFC 8878, 3.1.1)."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._context = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._checksum = False
        self._plain = memoryview(b"")

    def read(self, size: int = _OUTPUT, /) -> bytes:
        while not self._plain:
            try:
                plain = self._block() if self._frame is not None else self._begin()
            except zstandard.ZstdError as error:
                raise BadArchive(f"zstd: {error}") from None
            if plain is None:
                return b""
            self._plain = memoryview(plain)
        data, self._plain = bytes(self._plain[:size]), self._plain[size:]
        return data

    def _begin(self) -> bytes | None:
        """Begin a frame, or skip one that is to be skipped; None at the end."""
        head = self._source.peek(4)
        if not head:
            return None
        if head != _ZSTD_FRAME:
            if len(head) < 4 or detect(head) is not Compression.ZSTD:
                raise BadArchive("zstd: something else after the compressed data")
            self._skip(int.from_bytes(self._source.exactly(8)[4:], "little"))
            return b""
        header = self._source.exactly(5)
        descriptor = header[4]
        single = descriptor >> 5 & 1
        length = (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
        self._checksum = bool(descriptor & 4)
        self._frame = self._context.decompressobj()
        return self._frame.decompress(header + self._source.exactly(length))

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._source.exactly(min(size, _INPUT)))

    def _block(self) -> bytes:
        if self._frame is None:
            return b""
        head = self._source.exactly(3)
        value = int.from_bytes(head, "little")
        last, kind, size = value & 1, value >> 1 & 3, value >> 3
        if size > 128 << 10 or kind == 3:
            raise BadArchive("zstd: an impossible block")
        data = head + self._source.exactly(1 if kind == 1 else size)
        if last and self._checksum:
            data += self._source.exactly(4)
        plain = self._frame.decompress(data)
        if last:
            if not self._frame.eof:
                raise BadArchive("zstd: the compressed data is damaged")
            self._frame = None
        return plain
