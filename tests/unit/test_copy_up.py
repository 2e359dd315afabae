"""Filling a volume from the image: once, whole, and never through a link that somebody swaps in."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from sampan.files import copy_tree as copying
from sampan.files.copy_tree import copy_tree
from sampan.kernel.fds import Fd, open_fd
from sampan.storage import copy_up as filling
from sampan.storage.copy_up import copy_up


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "sub/deep/file").write_text("content")
    (folder / "big").write_bytes(os.urandom(300_000))
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo")
    os.chmod(folder / "big", 0o640)
    os.utime(folder / "big", ns=(10**18, 2 * 10**18))
    os.chmod(folder, 0o711)
    return folder


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    (made / "_data").mkdir(parents=True)
    return made


def opened(folder: Path) -> Fd:
    return open_fd(folder, os.O_RDONLY | os.O_DIRECTORY)


def test_row_15_an_empty_volume_is_filled_once_and_never_again(image: Path, volume: Path) -> None:
    copy_up(volume, lambda: opened(image))
    data = volume / "_data"

    assert (data / "sub/deep/file").read_text() == "content" and (data / "big").read_bytes() == (image / "big").read_bytes()
    assert os.readlink(data / "link") == "/etc/passwd" and stat.S_ISFIFO((data / "fifo").stat().st_mode)
    assert (data / "big").stat().st_mode & 0o777 == 0o640 and (data / "big").stat().st_mtime_ns == 2 * 10**18
    assert data.stat().st_mode & 0o777 == 0o711 and sorted(os.listdir(volume)) == ["_data"]
    (data / "big").write_text("mine")
    copy_up(volume, lambda: opened(image))
    assert (data / "big").read_text() == "mine"


def test_what_is_in_a_volume_stays_alone(image: Path, volume: Path) -> None:
    (volume / "_data/mine").write_text("x")
    copy_up(volume, lambda: opened(image))

    assert os.listdir(volume / "_data") == ["mine"]


def test_nothing_to_copy_is_no_error(volume: Path) -> None:
    copy_up(volume, lambda: None)

    assert os.listdir(volume) == ["_data"] and os.listdir(volume / "_data") == []


def test_a_failed_copy_leaves_the_volume_empty_for_the_next(image: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = copying._file

    def full(source: Fd, target: Fd, name: str, found: os.stat_result) -> None:
        if name == "file":
            raise OSError(28, "No space left on device")
        real(source, target, name, found)

    monkeypatch.setattr(copying, "_file", full)
    with pytest.raises(OSError, match="No space left"):
        copy_up(volume, lambda: opened(image))
    assert os.listdir(volume) == ["_data"] and os.listdir(volume / "_data") == []
    monkeypatch.setattr(copying, "_file", real)
    copy_up(volume, lambda: opened(image))
    assert (volume / "_data/sub/deep/file").exists()


def test_a_daemon_killed_meanwhile_goes_on_where_it_stopped(image: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (volume / "filling").mkdir()
    (volume / "filling/half").write_text("")
    moved: list[str] = []
    real = os.rename

    def killed(old: str, new: str, **where: int) -> None:
        if old != "filling":
            moved.append(old)
            if len(moved) == 2:
                raise KeyboardInterrupt
        real(old, new, **where)

    monkeypatch.setattr(filling.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        copy_up(volume, lambda: opened(image))
    monkeypatch.setattr(filling.os, "rename", real)
    assert len(os.listdir(volume / "_data")) == 1
    copy_up(volume, lambda: None)

    assert sorted(os.listdir(volume / "_data")) == ["big", "fifo", "link", "sub"] and os.listdir(volume) == ["_data"]


def test_row_14_links_that_others_make_in_the_volume_are_never_followed(image: Path, volume: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    data = volume / "_data"
    with opened(image) as source, opened(data) as target:
        (data / "sub").symlink_to(canary)
        with pytest.raises(FileExistsError):
            copy_tree(source, target)
        os.unlink(data / "sub")
        for name in os.listdir(data):
            os.unlink(data / name)
        (data / "big").symlink_to(canary / "written")
        with pytest.raises(FileExistsError):
            copy_tree(source, target)

    assert os.listdir(canary) == []


def test_row_1_a_race_with_a_container_never_leaves_the_volume(image: Path, volume: Path, tmp_path: Path) -> None:
    canary, over = tmp_path / "canary", threading.Event()
    canary.mkdir()
    data = volume / "_data"

    def attack() -> None:
        while not over.is_set():
            for name in ("sub", "big", "link", "fifo"):
                try:
                    os.symlink(canary, data / name)
                    os.unlink(data / name)
                except OSError:
                    continue

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        for _ in range(50):
            copy_up(volume, lambda: opened(image))
            for name in ("filled", "filling"):
                assert not (volume / name).exists()
            with opened(volume) as folder, opened(data) as inside:
                del folder
                filling.empty_folder(inside)
    finally:
        over.set()
        thread.join(10)

    assert os.listdir(canary) == []


def test_many_containers_at_once_fill_a_volume_once(image: Path, volume: Path) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            copy_up(volume, lambda: opened(image))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert errors == [] and (volume / "_data/sub/deep/file").read_text() == "content"
