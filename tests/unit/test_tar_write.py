"""Archives of trees: the same bytes each time, readable by others, nothing followed."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from sampan.files.atomic import remove_tree
from sampan.files.tar_entry import Entry, Kind
from sampan.files.tar_header import END, header
from sampan.files.tar_reader import TarReader
from sampan.files.tar_write import Source, tree_tar, write_tree
from sampan.kernel.fds import open_fd
from support.tars import open_fds


def packed(folder: Path, source: Source = Source()) -> bytes:
    before = open_fds()
    with open_fd(folder, os.O_RDONLY | os.O_DIRECTORY) as root:
        data = b"".join(tree_tar(root, source))
    assert open_fds() == before
    return data


def tree(top: Path) -> Path:
    top.mkdir()
    (top / "b").mkdir(mode=0o750)
    (top / "b/long").mkdir()
    (top / "b/long" / ("n" * 200)).write_bytes(b"x" * 600_000)
    (top / "a").write_bytes(b"abc")
    os.link(top / "a", top / "b/hard")
    (top / "s").symlink_to("/etc/" + "t" * 150)
    (top / "ü").write_text("")
    os.mkfifo(top / "p")
    os.setxattr(top / "a", "user.mark", b"\0\n=")
    for name in ("a", "b", "b/long", f"b/long/{'n' * 200}", "s", "ü", "p", "."):
        os.utime(top / name, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return top


def test_the_archive_is_the_same_each_time_and_python_reads_it(tmp_path: Path) -> None:
    data = packed(tree(tmp_path / "t"))

    assert data == packed(tmp_path / "t") == packed(tree(tmp_path / "u"))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["a", "b", "b/hard", "b/long", "b/long/" + "n" * 200, "p", "s", "ü"]
        assert tar.getmember("b/hard").linkname == "a"
        assert tar.getmember("s").linkname == "/etc/" + "t" * 150
        assert tar.getmember("a").mtime == 1_700_000_000
        assert tar.getmember("b").mode == 0o750
        found = tar.extractfile("b/long/" + "n" * 200)
        assert found is not None and found.read() == b"x" * 600_000


def test_our_own_reader_finds_the_attributes(tmp_path: Path) -> None:
    entries = {entry.name: entry for entry in TarReader(io.BytesIO(packed(tree(tmp_path / "t"))))}

    assert entries["a"].xattrs == {"user.mark": b"\0\n="}
    assert entries["b/"].kind is Kind.DIRECTORY
    assert entries["p"].kind is Kind.FIFO


def test_a_part_of_the_tree_has_the_name_it_is_given(tmp_path: Path) -> None:
    top = tree(tmp_path / "t")
    (top / "in").symlink_to("/b")

    def names(source: Source) -> list[str]:
        return [entry.name for entry in TarReader(io.BytesIO(packed(top, source)))]

    assert names(Source("/b", "copy")) == ["copy/", "copy/hard", "copy/long/", "copy/long/" + "n" * 200]
    assert names(Source("in/hard", "f")) == ["f"]
    assert names(Source("in", "in")) == ["in"]
    with pytest.raises(FileNotFoundError):
        names(Source("nowhere", "x"))


def test_row_32_links_in_the_tree_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary/CANARY").write_text("secret-canary")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/l").symlink_to("../canary")
    (tmp_path / "t/abs").symlink_to(tmp_path / "canary")

    assert b"secret-canary" not in packed(tmp_path / "t")
    for path in ("l/CANARY", "abs/CANARY", "../canary/CANARY"):
        with pytest.raises(FileNotFoundError):
            packed(tmp_path / "t", Source(path, "x"))


def test_sockets_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        old = Path.cwd()
        os.chdir(tmp_path / "t")
        server.bind("s")
        os.chdir(old)

    assert packed(tmp_path / "t") == END


@pytest.mark.slow
def test_a_very_deep_tree_costs_no_descriptors(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    os.mkdir(path)
    for _ in range(1500):
        path += "/d"
        os.mkdir(path)
    Path(path, "f").write_text("x")
    entries = list(TarReader(io.BytesIO(packed(tmp_path / "t"))))
    with open_fd(tmp_path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        remove_tree(folder, "t")  # shutil, with which pytest cleans up, cannot

    assert len(entries) == 1501
    assert entries[-1].name == "d/" * 1500 + "f"


def test_what_vanishes_or_shrinks_meanwhile_does_not_break_the_archive(tmp_path: Path) -> None:
    for name in ("a", "b/c", "d"):
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / name).write_bytes(b"x" * 1_000_000)
    with open_fd(tmp_path / "t", os.O_RDONLY | os.O_DIRECTORY) as root:
        chunks = tree_tar(root)
        parts = [next(chunks)]
        os.truncate(tmp_path / "t/a", 10)
        (tmp_path / "t/b/c").unlink()
        (tmp_path / "t/b").rmdir()
        parts += chunks
    entries = [(entry.name, entry.size) for entry in TarReader(io.BytesIO(b"".join(parts)))]

    assert entries == [("a", 1_000_000), ("d", 1_000_000)]


@pytest.mark.parametrize(
    "entry",
    [
        Entry("f", Kind.FILE, uid=3_000_000_000, gid=2_097_152, size=1 << 40, stored=1 << 40, mtime_ns=-5 * 10**9),
        Entry("p" * 150 + "/" + "n" * 90, Kind.SYMLINK, linkname="é" * 60),
        Entry("d/" * 120, Kind.DIRECTORY, mode=0o1777),
        Entry("c", Kind.CHAR, devmajor=300, devminor=70_000),
        Entry("x" * 98, Kind.FILE, xattrs={"user.x": b"v" * 985}),
        Entry("x" * 98, Kind.FILE, xattrs={"user.x": b"v" * 75}),
        Entry(os.fsdecode(b"\xff\xfe" * 80), Kind.FILE),
    ],
    ids=str,
)
def test_what_a_header_says_is_read_back(entry: Entry) -> None:
    (first,) = [TarReader(io.BytesIO(header(entry))).next()]

    assert first is not None
    for name in ("name", "kind", "mode", "uid", "gid", "size", "mtime_ns", "linkname", "devmajor", "devminor", "xattrs"):
        assert getattr(first, name) == getattr(entry, name), name


def test_write_tree_says_how_long_it_was(tmp_path: Path) -> None:
    out = io.BytesIO()
    with open_fd(tree(tmp_path / "t"), os.O_RDONLY | os.O_DIRECTORY) as root:
        assert write_tree(root, out) == len(out.getvalue())
