"""Atomic writes, folders, and removal that never leaves its tree; digests of what passes by."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from sampan.files.atomic import empty_folder, make_dirs, remove_tree, write_atomic
from sampan.files.digests import HashingReader, HashingWriter
from sampan.kernel.fds import open_fd
from support.tars import open_fds


def test_a_write_replaces_whole_and_leaves_no_other_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", b"1" * 100_000)
    write_atomic(tmp_path / "f", b"2", 0o640)

    assert (tmp_path / "f").read_bytes() == b"2"
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o640
    assert os.listdir(tmp_path) == ["f"]


def test_row_38_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("alive")
    (tmp_path / "f").symlink_to("canary")
    write_atomic(tmp_path / "f", b"new")

    assert (tmp_path / "canary").read_text() == "alive"
    assert not (tmp_path / "f").is_symlink()


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    before = open_fds()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "f", b"x")

    assert os.listdir(tmp_path) == ["f"]
    assert open_fds() == before


def test_make_dirs_gives_the_mode_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        make_dirs(tmp_path / "a/b", 0o711)
        make_dirs(tmp_path / "a/b", 0o700)
    finally:
        os.umask(old)

    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o711, 0o711]


def test_make_dirs_refuses_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError):
        make_dirs(tmp_path / "link")


def test_a_tree_goes_away_without_following_links(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "f").write_text("alive")
    tree = tmp_path / "tree"
    (tree / "d/e").mkdir(parents=True)
    (tree / "d/e/f").write_text("")
    (tree / "l").symlink_to("../canary")
    (tree / "d/m").symlink_to(canary)
    os.mkfifo(tree / "p")
    (tree / "zero").mkdir()
    (tree / "zero/f").write_text("")
    (tree / "zero").chmod(0)
    (tree / "d").chmod(0o500)
    before = open_fds()
    with open_fd(tmp_path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        remove_tree(folder, "tree")
        remove_tree(folder, "tree")

    assert os.listdir(tmp_path) == ["canary"]
    assert (canary / "f").read_text() == "alive"
    assert open_fds() == before


@pytest.mark.slow
def test_a_tree_of_any_depth_goes_away(tmp_path: Path) -> None:
    held = [os.open(tmp_path, os.O_RDONLY)]
    for _ in range(1500):
        os.mkdir("d", dir_fd=held[0])
        deeper = os.open("d", os.O_RDONLY, dir_fd=held[0])
        os.close(held.pop())
        held.append(deeper)
    os.close(held.pop())
    with open_fd(tmp_path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        empty_folder(folder)

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/"])
def test_only_an_entry_of_the_folder_can_be_removed(tmp_path: Path, name: str) -> None:
    with open_fd(tmp_path, os.O_RDONLY | os.O_DIRECTORY) as folder, pytest.raises(ValueError):
        remove_tree(folder, name)


def test_digests_of_what_passes_by() -> None:
    reader = HashingReader(io.BytesIO(b"abc" * 1000))
    assert reader.read(7) == b"abcabca"
    reader.drain()
    out = io.BytesIO()
    writer = HashingWriter(out)
    writer.write(b"abc" * 1000)

    assert reader.count == writer.count == len(out.getvalue()) == 3000
    assert reader.digest == writer.digest == "sha256:" + hashlib.sha256(b"abc" * 1000).hexdigest()
