"""The overlay driver passes the drivers' contract, and what is special to it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.storage_driver import BASE, DriverContract, Mounted, two_layers
from sampan.kernel.mount import Attr, attach, new_mount, unmount
from sampan.kernel.paths import open_in
from sampan.state import State
from sampan.storage import mounts
from sampan.storage.overlay import Overlay
from support.tars import archive, directory, member


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Overlay]:
    (tmp_path / "data").mkdir(mode=0o700)
    state = State(tmp_path / "data")
    made = Overlay(tmp_path / "data", state)
    yield made
    made.close()
    state.close()
    assert not os.listdir(made.root / "trash")


class TestOverlay(DriverContract):
    pass


class TestOverlayByMount(DriverContract):
    """As on Linux 5.15 to 6.4: mount(2), layers attached for the moment; and nothing of that stays."""

    @pytest.fixture(autouse=True)
    def older(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(mounts, "kernel_version", lambda: (5, 15))
        yield
        assert (
            not list(Path("/run").glob("sampan-mount-*")) and "/run/sampan-mount-" not in Path("/proc/self/mountinfo").read_text()
        )


@pytest.mark.parametrize("version", [(6, 1), (6, 15)])
def test_a_part_of_a_mount_is_a_mount_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: tuple[int, int]) -> None:
    monkeypatch.setattr(mounts, "kernel_version", lambda: version)
    with new_mount("tmpfs", {"size": "64k"}) as memory:
        (Path(memory.path) / "a").mkdir()
        (Path(memory.path) / "a/b").write_text("part")
        with mounts.part(memory, lambda top: open_in(top, "a/b", os.O_PATH)) as found:
            assert Path(found.path).read_text() == "part"
    with pytest.raises(FileNotFoundError), new_mount("tmpfs") as memory:
        mounts.part(memory, lambda top: open_in(top, "none", os.O_PATH))

    assert list(Path("/run").glob("sampan-mount-*")) == []


def test_mounts_that_a_killed_process_left_are_taken_away_and_no_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mounts, "_STAGES", tmp_path)
    with subprocess.Popen(["sleep", "600"]) as dead:
        left = tmp_path / f"sampan-mount-{dead.pid}-{mounts._birth(dead.pid)}-0"
        recycled = tmp_path / f"sampan-mount-{os.getpid()}-{mounts._birth(dead.pid)}0-1"
        mine = tmp_path / f"sampan-mount-{os.getpid()}-{mounts._birth(os.getpid())}-2"
        for place in (left, recycled, mine):
            place.mkdir()
            with new_mount("tmpfs") as memory:
                attach(memory, str(place))
        assert mounts.sweep_stages() == [recycled.name]
        dead.kill()

    assert mounts.sweep_stages() == [left.name]
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    unmount(str(mine))


def test_row_45_overlay_xattrs_of_an_image_mean_nothing(driver: Overlay, tmp_path: Path) -> None:
    evil = {"SCHILY.xattr.trusted.overlay.redirect": "/../../../secret", "SCHILY.xattr.trusted.overlay.metacopy": "x"}
    base = driver.apply(None, io.BytesIO(archive(directory("secret/"), member("secret/key", content=b"k"))))
    tar = archive(directory("d/", pax_headers=evil), member("f", content=b"own", pax_headers=evil))
    top = driver.apply(base.chain_id, io.BytesIO(tar))
    driver.prepare("c1", [base.chain_id, top.chain_id])

    with Mounted(driver.mount("c1"), tmp_path / "m") as root:
        assert os.listdir(root / "d") == [] and (root / "f").read_bytes() == b"own"
        line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {root} " in line)
    assert "redirect_dir=nofollow" in line or "redirect_dir=off" in line
    assert "metacopy=on" not in line and "index=on" not in line


def test_row_88_nobody_else_can_reach_the_files(driver: Overlay) -> None:
    driver.prepare("c1", two_layers(driver))

    for folder in (driver.root, driver.root / "sha256", driver.root / "snapshots", driver.root / "snapshots/c1"):
        assert folder.stat().st_mode & 0o777 == 0o700
    for layer in (driver.root / "sha256").iterdir():
        assert layer.stat().st_mode & 0o777 == 0o700


def test_two_hundred_layers_can_be_mounted(driver: Overlay, tmp_path: Path) -> None:
    chain = []
    for number in range(200):
        tar = archive(member(f"f{number}", content=b"x"))
        chain.append(driver.apply(chain[-1] if chain else None, io.BytesIO(tar)).chain_id)
    driver.prepare("c1", chain)

    with Mounted(driver.mount("c1"), tmp_path / "m") as root:
        assert len(os.listdir(root)) == 200


def test_the_classic_mount_gives_the_same(driver: Overlay, tmp_path: Path) -> None:
    driver.prepare("c1", two_layers(driver))
    place = driver.root / "snapshots/c1"
    lowers = [str(driver.diff(chain)) for chain in reversed(driver.snapshots()["c1"])]

    with Mounted(
        mounts._classic("", lowers, (f"{place}/upper", f"{place}/work"), Attr.NONE, volatile=False), tmp_path / "m"
    ) as root:
        assert (root / "etc/a").read_bytes() == b"top" and not (root / "etc/b").exists()
        (root / "w").write_bytes(b"")


def test_a_mount_leaves_no_descriptor_behind(driver: Overlay) -> None:
    driver.prepare("c1", two_layers(driver))
    driver.mount("c1").close()
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(3):
        driver.mount("c1").close()

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lost_folder_of_a_recorded_snapshot_is_made_again(driver: Overlay, tmp_path: Path) -> None:
    driver.prepare("c1", two_layers(driver))
    place = driver.root / "snapshots/c1"
    (place / "upper").rmdir(), (place / "work").rmdir(), place.rmdir()

    with Mounted(driver.mount("c1"), tmp_path / "m") as root:
        assert (root / "etc/a").exists()


_DIES_UNPACKING = """
import io, os, sys
from pathlib import Path
from sampan.state import State
from sampan.storage.overlay import Overlay
class Dies(io.BytesIO):
    def read(self, size=-1):
        data = super().read(min(size, 1024))
        if self.tell() > 1024:
            os.kill(os.getpid(), 9)
        return data
root = Path(sys.argv[1])
Overlay(root, State(root)).apply(None, Dies(bytes.fromhex(sys.argv[2])))
"""


def test_a_layer_half_unpacked_by_a_killed_daemon_is_swept(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _DIES_UNPACKING, str(tmp_path), BASE.hex()], check=False)
    assert done.returncode == -9 and len(os.listdir(tmp_path / "layers/tmp")) == 1

    state = State(tmp_path)
    driver = Overlay(tmp_path, state)
    (driver.root / "sha256" / ("0" * 64)).mkdir()  # renamed, never recorded
    (driver.root / "snapshots/orphan/upper").mkdir(parents=True)
    driver.prepare("kept", [])
    driver.prepare("dropped", [])
    found = driver.sweep(keep=["kept"])
    driver.close()
    state.close()

    assert len(found) == 4
    for folder in ("tmp", "sha256", "trash"):
        assert os.listdir(driver.root / folder) == []
    assert os.listdir(driver.root / "snapshots") == ["kept"]
