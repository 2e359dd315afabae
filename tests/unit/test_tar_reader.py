"""What the tar reader understands, and what it refuses."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path

import pytest

from sampan.errors import InvalidRequest
from sampan.files.tar_entry import BadArchive, Entry, Kind
from sampan.files.tar_reader import TarReader
from support.tars import END, archive, blocks, directory, hardlink, member, pax_header, raw_header, symlink

GOLDEN = Path(__file__).parent.parent / "golden" / "tar"


class OneByOne:
    """A stream that gives as little as it may."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, 7))


def read_all(data: bytes, stream: type = io.BytesIO) -> list[tuple[Entry, bytes]]:
    reader = TarReader(stream(data))
    result = []
    for entry in reader:
        content = b""
        while view := reader.read():
            content += view
        if entry.segments is not None:
            whole = bytearray(entry.size)
            at = 0
            for offset, length in entry.segments:
                whole[offset : offset + length] = content[at : at + length]
                at += length
            content = bytes(whole)
        result.append((entry, content))
    return result


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("stream", [io.BytesIO, OneByOne])
def test_every_format_gives_what_was_written(format: int, stream: type) -> None:
    long_name = "/".join(["d" * 40] * 3 + ["f"]) if format == tarfile.USTAR_FORMAT else "/".join(["d" * 100] * 6)
    data = archive(
        directory("etc", mode=0o1777), member("etc/f", content=b"x" * 1000, uid=7, gid=8, mtime=99, mode=0o4755),
        member(long_name, content=b"long"), symlink("l", "etc/f"), hardlink("h", "etc/f"),
        member("c", tarfile.CHRTYPE, devmajor=1, devminor=3), member("p", tarfile.FIFOTYPE), format=format,
    )  # fmt: skip
    found = read_all(data, stream)

    assert [(e.name.rstrip("/"), e.kind) for e, _ in found] == [
        ("etc", Kind.DIRECTORY), ("etc/f", Kind.FILE), (long_name, Kind.FILE), ("l", Kind.SYMLINK), ("h", Kind.HARD_LINK),
        ("c", Kind.CHAR), ("p", Kind.FIFO),
    ]  # fmt: skip
    file, content = found[1]
    assert content == b"x" * 1000
    assert (file.uid, file.gid, file.mtime_ns, file.mode, file.size) == (7, 8, 99 * 10**9, 0o4755, 1000)
    assert found[2][1] == b"long"
    assert (found[5][0].devmajor, found[5][0].devminor) == (1, 3)


def test_pax_carries_times_ids_sizes_and_attributes() -> None:
    ((entry, _),) = read_all(
        pax_header(
            (b"mtime", b"-1.25"), (b"atime", b"7.000000001"), (b"uid", b"3000000000"), (b"uname", b"j\xc3\xb6rg"),
            (b"SCHILY.xattr.user.a", b"raw\0\n=bytes"),
            (b"LIBARCHIVE.xattr.user.b%3Dc", base64.b64encode(b"lib").rstrip(b"=")),
        )
        + raw_header(b"f") + END
    )  # fmt: skip

    assert (entry.mtime_ns, entry.atime_ns, entry.uid, entry.uname) == (-1_250_000_000, 7 * 10**9 + 1, 3_000_000_000, "jörg")
    assert entry.xattrs == {"user.a": b"raw\0\n=bytes", "user.b=c": b"lib"}


def test_a_global_header_holds_until_an_empty_value() -> None:
    data = (
        pax_header((b"uid", b"5"), (b"comment", b"abc"), flag=b"g") + raw_header(b"a")
        + pax_header((b"uid", b"6")) + raw_header(b"b") + pax_header((b"uid", b"")) + raw_header(b"c") + END
    )  # fmt: skip

    assert [entry.uid for entry, _ in read_all(data)] == [5, 6, 0]


def test_base_256_numbers_are_read() -> None:
    size = b"\x80" + (3).to_bytes(11, "big")
    ((entry, content),) = read_all(raw_header(b"f", size=size, mtime=b"\xff" * 12) + blocks(b"abc") + END)

    assert (content, entry.mtime_ns) == (b"abc", -(10**9))


def test_p13_an_old_archives_folder_is_told_by_its_whole_name() -> None:
    """CVE-2025-13462: the header's 100 bytes may end in a slash where the name does not."""
    name = b"d" * 99 + b"/file"
    data = pax_header((b"path", name)) + raw_header(name[:100], b"\0", b"00000000003\0") + blocks(b"abc")
    data += raw_header(b"old/", b"\0", magic=bytes(8)) + END
    first, second = read_all(data)

    assert (first[0].kind, first[1], second[0].kind) == (Kind.FILE, b"abc", Kind.DIRECTORY)


@pytest.mark.parametrize("version", ["old", "0.0", "0.1", "1.0"])
def test_sparse_files_of_all_four_kinds(version: str) -> None:
    whole = bytes(4096) + b"A" * 512 + bytes(4096) + b"B" * 100 + bytes(92)
    stored = b"A" * 512 + b"B" * 100
    pairs = [(4096, 512), (8704, 100)]
    size = len(whole)
    if version == "old":
        tail = bytearray(167)
        for i, pair in enumerate(pairs):
            tail[41 + 24 * i : 65 + 24 * i] = b"%011o\0%011o\0" % pair
        tail[138:150] = b"%011o\0" % size
        data = raw_header(b"s", b"S", b"%011o\0" % len(stored), b"ustar  \0", tail=bytes(tail)) + blocks(stored)
    elif version == "0.0":
        records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"2")]
        for offset, length in pairs:
            records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
        data = pax_header(*records) + raw_header(b"s", size=b"%011o\0" % len(stored)) + blocks(stored)
    elif version == "0.1":
        records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.map", b"4096,512,8704,100"), (b"GNU.sparse.name", b"s")]
        data = pax_header(*records) + raw_header(b"GNUSparseFile.0/s", size=b"%011o\0" % len(stored)) + blocks(stored)
    else:
        records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"s")]
        records.append((b"GNU.sparse.realsize", b"%d" % size))
        body = blocks(b"2\n4096\n512\n8704\n100\n") + stored
        data = pax_header(*records) + raw_header(b"GNUSparseFile.0/s", size=b"%011o\0" % len(body)) + blocks(body)
    first, second = read_all(data + raw_header(b"next") + END)

    assert (first[0].name, first[0].size, first[0].segments) == ("s", size, tuple(pairs))
    assert first[1] == whole
    assert second[0].name == "next"


def test_p24_names_that_are_not_utf_8_round_trip() -> None:
    ((entry, _),) = read_all(raw_header(b"caf\xe9") + END)

    assert entry.name.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_the_end_of_an_archive_may_be_short() -> None:
    assert [len(read_all(data)) for data in (b"", END, bytes(512), raw_header(b"f"), raw_header(b"f") + bytes(512))] == [
        0,
        0,
        0,
        1,
        1,
    ]


def sparse(records: dict[str, str], stored: bytes = b"") -> bytes:
    """A sparse file of kind 0.1 or 1.0; "map" stands for GNU.sparse.map and so on."""
    header = pax_header(*((f"GNU.sparse.{key}".encode(), value.encode()) for key, value in records.items()))
    return header + raw_header(b"f", size=b"%011o\0" % len(stored)) + blocks(stored) + END


VERSION_1 = {"major": "1", "minor": "0"}
BAD = {
    "checksum": b"x" * 512,
    "cut header": raw_header(b"f")[:300],
    "cut content": raw_header(b"f", size=b"00000002000\0") + bytes(100),
    "cve_2025_8194_negative_size": raw_header(b"f", size=b"\xff" * 12) + END,
    "absurd size": raw_header(b"f", size=b"\x80" + b"\x7f" * 11) + END,
    "size with a sign": raw_header(b"f", size=b"-0000000001\0") + END,
    "size with an underscore": raw_header(b"f", size=b"0000000_001\0") + END,
    "not octal": raw_header(b"f", size=b"00000000009\0") + END,
    "row_22_uid": raw_header(b"f", uid=b"\x80\0\0\0\xff\xff\xff\xff") + END,
    "pax negative size": pax_header((b"size", b"-1")) + raw_header(b"f") + END,
    "p16_arabic digits": pax_header((b"size", "٣".encode())) + raw_header(b"f") + END,
    "pax NUL in path": pax_header((b"path", b"a\0b")) + raw_header(b"f") + END,
    "pax zero length record": raw_header(b"p", b"x", b"00000000010\0") + blocks(b"0 path=a\n") + raw_header(b"f") + END,
    "pax record beyond its header": raw_header(b"p", b"x", b"00000000013\0") + blocks(b"99 path=ab\n") + raw_header(b"f") + END,
    "row_54_pax header of 2 MiB": raw_header(b"p", b"x", b"00010000000\0") + bytes(1 << 21) + END,
    "row_54_long name of 8 GiB": raw_header(b"p", b"L", b"77777777777\0") + END,
    "header without entry": pax_header((b"path", b"a")),
    "global path": pax_header((b"path", b"a"), flag=b"g") + raw_header(b"f") + END,
    "row_43_name of 4096 bytes": pax_header((b"path", b"a/" * 2048)) + raw_header(b"f") + END,
    "no name": raw_header(b"") + END,
    "link without target": raw_header(b"l", b"2") + END,
    "unknown type": raw_header(b"f", b"~") + END,
    "zeros inside": bytes(512) + raw_header(b"f") + END,
    "time": pax_header((b"mtime", b"1e400")) + raw_header(b"f") + END,
    "time beyond": pax_header((b"mtime", b"9" * 19)) + raw_header(b"f") + END,
    "row_54_sparse beyond size": sparse({"size": "10", "map": "8,5"}, bytes(5)),
    "row_54_sparse of 16 EiB": sparse({"size": "18446744073709551615", "map": "0,0"}),
    "sparse overlap": sparse({"size": "100", "map": "0,5,3,5"}, bytes(10)),
    "sparse more than stored": sparse({"size": "100", "map": "0,50"}, bytes(5)),
    "sparse version": sparse({"major": "2", "minor": "0"}),
    "sparse map without end": sparse(VERSION_1, b"1" * 1024),
    "sparse map count": sparse(VERSION_1, b"999999999999\n" + bytes(1011)),
    "xattr base64": pax_header((b"LIBARCHIVE.xattr.user.a", b"!")) + raw_header(b"f") + END,
    "xattr name": pax_header((b"SCHILY.xattr.", b"x")) + raw_header(b"f") + END,
    "device number": raw_header(b"f", b"3", devmajor=b"7777777\0") + END,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_row_54_and_p13_a_malformed_archive_is_a_clear_error(name: str) -> None:
    with pytest.raises(BadArchive, match=r"^invalid archive:.*\(at byte \d+\)$") as refused:
        read_all(BAD[name])

    assert isinstance(refused.value, InvalidRequest)


def test_a_refusal_names_the_entry_and_where_it_is() -> None:
    data = raw_header(b"good") + raw_header(b"bad", b"~") + END
    with pytest.raises(BadArchive) as refused:
        read_all(data)

    assert (refused.value.offset, refused.value.entry) == (512, "bad")


def test_row_54_a_thousand_extended_headers_of_64_kib_stay_bounded() -> None:
    one = pax_header((b"comment", b"x" * 65000))
    assert len(read_all((one + raw_header(b"f")) * 50 + END)) == 50
    with pytest.raises(BadArchive, match="larger than"):
        read_all(one * 20 + raw_header(b"f") + END)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.tar")), ids=lambda path: path.stem)
def test_golden_archives_list_as_recorded(path: Path) -> None:
    lines = [
        f"{e.kind.value} {e.mode:04o} {e.uid}:{e.gid} {e.size} {e.mtime_ns} {e.name!a} {e.linkname!a}"
        for e, _ in read_all(path.read_bytes())
    ]

    assert "\n".join(lines) + "\n" == path.with_suffix(".txt").read_text()


def test_the_last_blocks_padding_may_be_missing_as_umoci_writes_it_but_no_content() -> None:
    whole = archive(member("a", content=b"one"), member("b", content=b"by umoci\n"))
    end = whole.index(b"by umoci\n") + len(b"by umoci\n")

    for size in (end, end + 7):
        reader = TarReader(io.BytesIO(whole[:size]))
        assert [(entry.name, bytes(reader.read())) for entry in reader] == [("a", b"one"), ("b", b"by umoci\n")]
    with pytest.raises(BadArchive, match="in the middle"):
        list(TarReader(io.BytesIO(whole[: end - 1])))
