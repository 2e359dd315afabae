"""Layers as root: owners, devices, capabilities, overlay whiteouts, and back into archives."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import Unsupported
from sampan.files.atomic import remove_tree
from sampan.files.tar_apply import BadArchive, Options, Whiteouts, apply
from sampan.files.tar_reader import TarReader
from sampan.files.tar_write import diff_tar, tree_tar
from sampan.kernel.fds import open_fd
from sampan.kernel.mount import attach, new_mount, unmount
from support.tars import Yard, archive, directory, hardlink, member, symlink, yard

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NET_RAW = b"\x01\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # security.capability, revision 2, cap_net_raw=ep
AS_TOLD = Options()


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Yard]:
    with yard(tmp_path) as made:
        yield made


def layer(at: Yard, *members: tuple[tarfile.TarInfo, bytes], whiteouts: Whiteouts = Whiteouts.OVERLAY) -> None:
    at.apply(archive(*members), whiteouts=whiteouts, options=AS_TOLD)


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path) and os.getxattr(path, "trusted.overlay.opaque") == b"y"


def test_row_46_owners_setuid_devices_and_capabilities_come_out_as_told(at: Yard) -> None:
    capability = {"SCHILY.xattr.security.capability": os.fsdecode(NET_RAW)}
    layer(
        at,
        member("su", uid=0, gid=7, mode=0o4755),
        member("ping", uid=5, gid=6, pax_headers=capability),
        symlink("l", "su", uid=8, gid=9),
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, uid=3),
        member("sda", tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o660),
        directory("d", uid=10, gid=11, mode=0o2770),
        member("d/f", uid=1, gid=2),
    )

    assert stat.S_IMODE((at.root / "su").stat().st_mode) == 0o4755
    assert os.getxattr(at.root / "ping", "security.capability") == NET_RAW
    owners = {name: ((at.root / name).lstat().st_uid, (at.root / name).lstat().st_gid) for name in ("l", "d", "d/f", "null")}
    assert owners == {"l": (8, 9), "d": (10, 11), "d/f": (1, 2), "null": (3, 0)}
    assert (at.root / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE((at.root / "null").stat().st_mode) == 0o666
    assert stat.S_ISBLK((at.root / "sda").stat().st_mode)
    assert stat.S_IMODE((at.root / "d").stat().st_mode) == 0o2770


def test_ids_can_be_shifted(at: Yard) -> None:
    at.apply(archive(member("f", uid=1, gid=2), symlink("l", "f")), options=Options(id_shift=100_000))

    assert ((at.root / "f").stat().st_uid, (at.root / "f").stat().st_gid) == (100_001, 100_002)
    assert (at.root / "l").lstat().st_uid == 100_000


def test_row_45_overlay_attributes_are_dropped_also_for_root(at: Yard) -> None:
    attributes = {f"SCHILY.xattr.{prefix}.overlay.{name}": "/../../etc"
                  for prefix in ("trusted", "user") for name in ("redirect", "metacopy", "opaque", "whiteout")}  # fmt: skip
    layer(at, member("f", pax_headers=attributes), directory("d", pax_headers=attributes))

    for name in ("f", "d"):
        assert [key for key in os.listxattr(at.root / name) if "overlay" in key] == []


def test_whiteouts_become_what_overlayfs_understands(at: Yard) -> None:
    layer(
        at,
        member(".wh.gone"),
        directory("o"),
        member("o/.wh..wh..opq"),
        member("o/new"),
        member("made/.wh.x"),
        member(".wh..wh.aufs"),
        directory("before"),
        member("before/f"),
        member(".wh.before"),
        member(".wh.after"),
        directory("after"),
        member("after/f"),
        member(".wh.implicit"),
        member("implicit/f"),
        member("file"),
        member(".wh.file"),
        member(".wh.later"),
        member("later", content=b"1"),
    )

    assert is_whiteout(at.root / "gone")
    assert is_whiteout(at.root / "made/x")
    assert not list(at.root.rglob(".wh.*"))
    assert os.listdir(at.root / "o") == ["new"]
    # a whiteout never hides what its own layer brings, only what is below that
    assert all(is_opaque(at.root / name) and not is_whiteout(at.root / name) for name in ("o", "before", "after", "implicit"))
    assert [os.listdir(at.root / name) for name in ("before", "after", "implicit")] == [["f"]] * 3
    assert (at.root / "file").is_file()
    assert (at.root / "later").read_bytes() == b"1"


@pytest.mark.parametrize(
    "members",
    [
        [member(".wh.")],
        [member(".wh..")],
        [member(".wh...")],
        [member(".wh.a/b")],
        [member("c", tarfile.CHRTYPE, devmajor=0, devminor=0)],
        [member(".wh.a"), hardlink("b", "a")],
    ],
)
def test_marks_that_only_overlayfs_may_make_are_refused(at: Yard, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(BadArchive):
        layer(at, *members)


@pytest.mark.parametrize("target", ["{canary}", "../canary", "/"])
def test_row_43_a_whiteout_through_a_link_stays_inside(at: Yard, target: str) -> None:
    link = symlink("a", target.replace("{canary}", str(at.canary)))
    for mode in (Whiteouts.OVERLAY, Whiteouts.REMOVE):
        layer(at, link, member("a/.wh.CANARY"), member("a/.wh..wh..opq"), member("a/.wh.canary"), whiteouts=mode)


def overlay(top: Path, lowers: list[Path], upper: Path | None = None) -> int:
    options: dict[str, str | None] = {"lowerdir": ":".join(map(str, lowers)), "redirect_dir": "off", "metacopy": "off"}
    if upper is not None:
        (top / "work").mkdir()
        options |= {"upperdir": str(upper), "workdir": str(top / "work")}
    return new_mount("overlay", options).take()


def tree(fd: int) -> list[tuple[str, str, int, bytes]]:
    found = []
    reader = TarReader(io.BytesIO(b"".join(tree_tar(fd))))
    for entry in reader:
        found.append((entry.name, entry.kind.name, entry.mode, b"".join(bytes(v) for v in iter(reader.read, b""))))
    return found


def test_layers_mean_the_same_in_overlayfs_and_in_one_folder(tmp_path: Path) -> None:
    """Two drivers, one meaning; and what a container then changes survives the way through a layer archive."""
    base = archive(directory("keep"), member("keep/f", content=b"1"), directory("opq"), member("opq/old"), directory("dir"),
                   member("dir/old"), member("gone"), member("swap", content=b"file"), directory("back"))  # fmt: skip
    second = archive(member(".wh.gone"), directory("opq"), member("opq/.wh..wh..opq"), member("opq/new"), member(".wh.dir"),
                     directory("dir"), member("dir/new"), directory("swap"), member("swap/in"),
                     member("back", content=b"f"))  # fmt: skip
    layers = []
    merged = tmp_path / "merged"
    merged.mkdir()
    for name, data in (("1", base), ("2", second)):
        (tmp_path / name).mkdir()
        layers.insert(0, tmp_path / name)
        for folder, mode in ((tmp_path / name, Whiteouts.OVERLAY), (merged, Whiteouts.REMOVE)):
            with open_fd(folder, os.O_RDONLY | os.O_DIRECTORY) as root:
                apply(io.BytesIO(data), root, whiteouts=mode)
    upper = tmp_path / "upper"
    upper.mkdir()
    mounted = overlay(tmp_path, layers, upper)
    with open_fd(merged, os.O_RDONLY | os.O_DIRECTORY) as one:
        try:
            assert tree(mounted) == tree(one)

            os.unlink("keep/f", dir_fd=mounted)
            os.unlink("opq/new", dir_fd=mounted)
            os.rmdir("opq", dir_fd=mounted)
            os.mkdir("opq", dir_fd=mounted)
            os.close(os.open("opq/made", os.O_CREAT | os.O_WRONLY, dir_fd=mounted))
            with open_fd(upper, os.O_RDONLY | os.O_DIRECTORY) as changed:
                diff = b"".join(diff_tar(changed))
            apply(io.BytesIO(diff), one, whiteouts=Whiteouts.REMOVE)
            assert [entry.name for entry in TarReader(io.BytesIO(diff))] == [
                "keep/", "keep/.wh.f", "opq/", "opq/.wh..wh..opq", "opq/made",
            ]  # fmt: skip
            assert tree(mounted) == tree(one)
        finally:
            os.close(mounted)


def test_a_diff_refuses_what_a_layer_cannot_say(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", "trusted.overlay.redirect", b"/elsewhere")
    with open_fd(tmp_path, os.O_RDONLY | os.O_DIRECTORY) as root, pytest.raises(Unsupported, match=r"d: overlayfs"):
        list(diff_tar(root))


def test_capabilities_of_a_user_namespace_are_written_as_dockers(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    os.setxattr(tmp_path / "f", "security.capability", NET_RAW[:3] + b"\3" + NET_RAW[4:] + (100_000).to_bytes(4, "little"))
    with open_fd(tmp_path, os.O_RDONLY | os.O_DIRECTORY) as root:
        (entry,) = TarReader(io.BytesIO(b"".join(tree_tar(root))))

    assert entry.xattrs == {"security.capability": NET_RAW}


def test_a_mount_in_a_tree_is_neither_entered_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "t/m").mkdir(parents=True)
    (tmp_path / "t/f").write_text("")
    with new_mount("tmpfs") as mounted:
        attach(mounted, str(tmp_path / "t/m"))
    try:
        (tmp_path / "t/m/secret").write_text("")
        with open_fd(tmp_path, os.O_RDONLY | os.O_DIRECTORY) as root:
            names = [entry.name for entry in TarReader(io.BytesIO(b"".join(tree_tar(root))))]
            with pytest.raises(OSError):
                remove_tree(root, "t")
        assert names == ["t/", "t/f", "t/m/"]
        assert os.listdir(tmp_path / "t/m") == ["secret"]
    finally:
        unmount(str(tmp_path / "t/m"))
