"""A container that swaps folders for links while an archive goes in or out (SECURITY.md rows 32 and 43)."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sampan.files.tar_apply import BadArchive, Options, Whiteouts, apply
from sampan.files.tar_write import Source, tree_tar
from sampan.kernel.fds import open_fd
from support.forked import beside
from support.tars import archive, directory, member, open_fds

ROUNDS = 2000


@contextmanager
def swapping(root: Path, target: Path) -> Iterator[None]:
    """Another process exchanges the folder `p` and a link to `target` as fast as it can."""
    (root / "p").mkdir()
    (root / "link").symlink_to(target)

    def exchange() -> None:
        os.chdir(root)
        while True:
            os.rename("p", "q")
            os.rename("link", "p")
            os.rename("p", "link")
            os.rename("q", "p")

    with beside(exchange):
        yield


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    root, canary = tmp_path / "root", tmp_path / "canary"
    for folder in (root, canary):
        folder.mkdir()
    (canary / "CANARY").write_text("secret-canary")
    return root, canary


@pytest.mark.slow
def test_row_32_the_harness_beats_a_writer_that_goes_by_names(places: tuple[Path, Path]) -> None:
    """The control: without descriptors the race is lost."""
    root, canary = places
    with swapping(root, canary):
        for _ in range(200_000):
            try:
                (root / "p/f").write_text("x")
            except OSError:
                continue
            if (canary / "f").exists():
                return
    pytest.fail("the harness never won")


@pytest.mark.slow
def test_row_32_nothing_is_written_outside_while_folders_are_swapped(places: tuple[Path, Path]) -> None:
    root, canary = places
    data = archive(directory("p", mode=0o777), member("p/f", content=b"x"), member("p/d/g"), member("p/.wh.CANARY"))
    before = open_fds(), (canary.stat().st_mode, canary.stat().st_mtime_ns)
    done = 0
    with swapping(root, canary), open_fd(root, os.O_RDONLY | os.O_DIRECTORY) as fd:
        for turn in range(ROUNDS):
            try:
                apply(io.BytesIO(data), fd, whiteouts=(Whiteouts.PLAIN, Whiteouts.REMOVE)[turn % 2], options=Options())
                done += 1
            except (BadArchive, OSError):
                pass

    assert done
    assert os.listdir(canary) == ["CANARY"]
    assert (open_fds(), (canary.stat().st_mode, canary.stat().st_mtime_ns)) == before


@pytest.mark.slow
def test_row_32_nothing_is_read_outside_while_folders_are_swapped(places: tuple[Path, Path]) -> None:
    root, canary = places
    before = open_fds()
    with swapping(root, canary), open_fd(root, os.O_RDONLY | os.O_DIRECTORY) as fd:
        for turn in range(ROUNDS):
            try:
                data = b"".join(tree_tar(fd, (Source(), Source("p", "p"), Source("p/CANARY", "f"))[turn % 3]))
            except FileNotFoundError:
                continue
            assert b"secret-canary" not in data

    assert open_fds() == before
