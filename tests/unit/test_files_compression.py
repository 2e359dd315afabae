"""Decompression: told by magic, streamed, and never believed when cut or damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard

from sampan.files.compression import Compression, open_decompressed
from sampan.files.tar_entry import BadArchive

DATA = random.Random(1).randbytes(200_000) + b"abc" * 200_000 + bytes(2_000_000)


def zstd_streamed(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    return compressor.compress(data) + compressor.flush()


COMPRESSORS: dict[str, tuple[Compression, Callable[[bytes], bytes]]] = {
    "gzip": (Compression.GZIP, gzip.compress),
    "bzip2": (Compression.BZIP2, bz2.compress),
    "xz": (Compression.XZ, lzma.compress),
    "zstd": (Compression.ZSTD, zstandard.ZstdCompressor(write_checksum=True).compress),
    "zstd_streamed": (Compression.ZSTD, zstd_streamed),
    "zstd_skippable": (Compression.ZSTD, lambda d: b"\x50\x2a\x4d\x18\3\0\0\0abc" + zstd_streamed(d)),
}


class OneByOne:
    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, 3001))


def read_all(data: bytes) -> bytes:
    _, reader = open_decompressed(OneByOne(data))
    parts = []
    while part := reader.read(1 << 16):
        assert len(part) <= 1 << 16
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_every_kind_gives_the_plain_content_also_of_several_members(name: str) -> None:
    kind, compress = COMPRESSORS[name]
    packed = compress(DATA)

    assert open_decompressed(io.BytesIO(packed))[0] is kind
    assert read_all(packed) == DATA
    assert read_all(packed + compress(b"more")) == DATA + b"more"


@pytest.mark.parametrize("name", COMPRESSORS)
def test_row_54_what_is_cut_damaged_or_followed_by_garbage_is_refused(name: str) -> None:
    packed = COMPRESSORS[name][1](DATA)
    for cut in (len(packed) // 3, len(packed) // 2, len(packed) - 5, len(packed) - 1):
        with pytest.raises(BadArchive):
            read_all(packed[:cut])
    for place in (len(packed) // 3, len(packed) // 2):
        damaged = bytearray(packed)
        damaged[place] ^= 0x55
        with pytest.raises(BadArchive):
            read_all(bytes(damaged))
    with pytest.raises(BadArchive):
        read_all(packed + b"garbage")


def test_plain_content_passes() -> None:
    for data in (b"", b"x", b"plain" * 1000):
        assert open_decompressed(io.BytesIO(data))[0] is Compression.PLAIN
        assert read_all(data) == data


def test_zeros_after_the_last_member_are_padding() -> None:
    assert read_all(gzip.compress(b"abc") + bytes(5000)) == b"abc"


def test_row_54_a_zstd_window_of_2_gib_is_refused() -> None:
    with pytest.raises(BadArchive, match="zstd"):
        read_all(b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\x00\x00")


@pytest.mark.parametrize("name", ["gzip", "zstd_streamed", "xz", "bzip2"])
def test_row_54_a_bomb_is_met_in_bounded_memory(name: str) -> None:
    packed = COMPRESSORS[name][1](bytes(30 << 20))
    _, reader = open_decompressed(io.BytesIO(packed))
    tracemalloc.start()
    try:
        while reader.read(1 << 16):
            pass
        assert tracemalloc.get_traced_memory()[1] < 16 << 20  # xz's dictionary alone is 8 MiB
    finally:
        tracemalloc.stop()
