"""What every storage driver promises (storage/driver.py).  A driver's test file is a fixture `driver` and a subclass."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from sampan.errors import InvalidRequest, NotFound
from sampan.files.tar_apply import Budget
from sampan.kernel.caps import set_fs_ids
from sampan.kernel.fds import Fd
from sampan.kernel.mount import attach, unmount
from sampan.oci.digest import Digest, chain_id, of
from sampan.storage.driver import Driver
from support.tars import archive, directory, member

BASE = archive(directory("etc/"), member("etc/a", content=b"base"), member("etc/b", content=b"gone"))
TOP = archive(directory("etc/"), member("etc/a", content=b"top"), member("etc/.wh.b"))


class Mounted:
    """A detached mount, attached for a look (its descriptor alone is O_PATH)."""

    def __init__(self, tree: Fd, place: Path) -> None:
        self.tree, self.place = tree, place

    def __enter__(self) -> Path:
        self.place.mkdir(exist_ok=True)
        attach(self.tree, str(self.place))
        return self.place

    def __exit__(self, *_: object) -> None:
        unmount(str(self.place), detach=True)
        self.tree.close()


def two_layers(driver: Driver) -> list[Digest]:
    base = driver.apply(None, io.BytesIO(BASE))
    top = driver.apply(base.chain_id, io.BytesIO(TOP))
    return [base.chain_id, top.chain_id]


class DriverContract:
    """Drivers subclass; they add nothing."""

    def test_a_layer_is_known_by_its_chain(self, driver: Driver) -> None:
        base = driver.apply(None, io.BytesIO(BASE))
        top = driver.apply(base.chain_id, io.BytesIO(TOP))

        assert base.diff_id == base.chain_id == of(BASE)
        assert top.chain_id == chain_id(of(BASE), of(TOP))
        assert driver.layer(top.chain_id) == top and base.size == 8
        assert {layer.chain_id for layer in driver.layers()} == {base.chain_id, top.chain_id}

    def test_a_known_layer_is_not_stored_twice(self, driver: Driver) -> None:
        assert driver.apply(None, io.BytesIO(BASE)) == driver.apply(None, io.BytesIO(BASE), of(BASE))
        assert len(driver.layers()) == 1

    def test_a_layer_that_is_not_the_expected_one_leaves_nothing(self, driver: Driver) -> None:
        with pytest.raises(InvalidRequest, match="invalid diffID"):
            driver.apply(None, io.BytesIO(BASE), of(TOP))

        assert driver.layers() == []

    def test_a_cut_or_malformed_tar_leaves_nothing(self, driver: Driver) -> None:
        for bad in (BASE[:700], b"x" * 2048):
            with pytest.raises(InvalidRequest):
                driver.apply(None, io.BytesIO(bad))
        assert driver.layers() == []

    def test_row_54_a_layer_beyond_its_budget_leaves_nothing(self, driver: Driver) -> None:
        with pytest.raises(InvalidRequest):
            driver.apply(None, io.BytesIO(BASE), budget=Budget(max_bytes=7))
        with pytest.raises(InvalidRequest):
            driver.apply(None, io.BytesIO(BASE + bytes(4 << 20)), budget=Budget(max_bytes=8, max_entries=3))
        assert driver.layers() == []

    def test_a_layer_needs_its_parent(self, driver: Driver) -> None:
        with pytest.raises(NotFound):
            driver.apply(of(TOP), io.BytesIO(BASE))

    def test_a_snapshot_shows_the_chain_and_keeps_its_own_changes(self, driver: Driver, tmp_path: Path) -> None:
        driver.prepare("c1", two_layers(driver))
        driver.prepare("c2", two_layers(driver))

        with Mounted(driver.mount("c1"), tmp_path / "m") as root:
            assert (root / "etc/a").read_bytes() == b"top" and not (root / "etc/b").exists()
            (root / "etc/new").write_bytes(b"12345")
            (root / "etc/a").unlink()
        with Mounted(driver.mount("c1"), tmp_path / "m") as root:
            assert sorted(os.listdir(root / "etc")) == ["new"]
        with Mounted(driver.mount("c2"), tmp_path / "m") as root:
            assert sorted(os.listdir(root / "etc")) == ["a"]
        assert driver.usage("c1").size == 5 and driver.usage("c2").size == 0

    def test_views_are_read_only(self, driver: Driver, tmp_path: Path) -> None:
        chain = two_layers(driver)
        driver.prepare("c1", chain)
        with Mounted(driver.mount("c1"), tmp_path / "m") as root:
            (root / "mine").write_bytes(b"x")

        for tree, names in ((driver.view("c1"), {"etc", "mine"}), (driver.view_chain(chain[:1]), {"etc"})):
            with Mounted(tree, tmp_path / "m") as root:
                assert set(os.listdir(root)) == names
                with pytest.raises(OSError, match="Read-only"):
                    (root / "w").write_bytes(b"")

    def test_an_image_without_layers_is_an_empty_root(self, driver: Driver, tmp_path: Path) -> None:
        driver.prepare("c1", [])
        with Mounted(driver.mount("c1"), tmp_path / "m") as root:
            assert os.listdir(root) == [] and root.stat().st_mode & 0o7777 == 0o755

    def test_the_same_container_cannot_be_prepared_twice(self, driver: Driver) -> None:
        driver.prepare("c1", [])
        with pytest.raises(FileExistsError):
            driver.prepare("c1", [])

    def test_an_unknown_layer_or_container_is_not_found(self, driver: Driver) -> None:
        with pytest.raises(NotFound):
            driver.prepare("c1", [of(BASE)])
        assert driver.snapshots() == {}
        for ask in (driver.mount, driver.view, driver.usage):
            with pytest.raises(NotFound):
                ask("c9")
        driver.remove("c9")

    @pytest.mark.parametrize("name", ["..", "a/../b", "%2e%2e", "a\0b", "x" * 300, "", "-a", "‮abc", "é"])
    def test_row_91_a_name_never_becomes_another_path(self, driver: Driver, name: str) -> None:
        with pytest.raises(InvalidRequest):
            driver.prepare(name, [])

    def test_a_removed_snapshot_frees_its_name_at_once(self, driver: Driver) -> None:
        driver.prepare("c1", two_layers(driver))
        driver.remove("c1")
        driver.prepare("c1", [])
        assert driver.snapshots() == {"c1": ()}

    def test_a_layer_in_use_cannot_be_removed(self, driver: Driver) -> None:
        chain = two_layers(driver)
        driver.prepare("c1", chain[:1])

        assert driver.remove_layer(chain[1]) > 0
        assert driver.remove_layer(chain[0]) == 0 and driver.layer(chain[0]) is not None
        driver.remove("c1")
        assert driver.remove_layer(chain[0]) == 8 and driver.layers() == []

    def test_a_snapshot_can_be_written_through_a_user_namespace(self, driver: Driver, tmp_path: Path) -> None:
        chain = two_layers(driver)
        driver.prepare("c1", chain)
        holder = subprocess.Popen(["unshare", "-U", "sh", "-c", "echo; read x"], stdin=-1, stdout=-1)
        assert holder.stdout is not None and holder.stdout.readline()
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{holder.pid}/{kind}").write_text("0 1000000 65536\n")
        with Fd(os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)) as userns:
            tree = driver.mount("c1", uid_base=1000000, userns=userns)
        holder.communicate(b"\n")

        with Mounted(tree, tmp_path / "m") as root:
            assert (root / "etc/a").stat().st_uid == 1000000
            with set_fs_ids(1000000, 1000000):  # the container's root; host root is not in the mapping
                (root / "new").write_bytes(b"x")
            assert (root / "new").stat().st_uid == 1000000
        with Mounted(driver.view("c1"), tmp_path / "m") as root:
            assert (root / "new").stat().st_uid == 0  # what is on the disk
