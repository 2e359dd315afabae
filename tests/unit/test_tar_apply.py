"""What applying an archive does inside its root, and that it does nothing outside (SECURITY.md rows 41-46, 54, 59)."""

from __future__ import annotations

import copy
import io
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidRequest
from sampan.files.tar_apply import BadArchive, Budget, Options, OverBudget, Whiteouts, apply
from sampan.files.tar_write import tree_tar
from support.tars import (
    END,
    PLAIN_USER,
    Yard,
    archive,
    blocks,
    directory,
    hardlink,
    member,
    open_fds,
    pax_header,
    raw_header,
    symlink,
    yard,
)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Yard]:
    with yard(tmp_path) as made:
        yield made


def test_files_folders_and_links_come_out_as_told(at: Yard) -> None:
    done = at.apply(
        archive(
            directory("d", mode=0o750, mtime=5), member("d/f", content=b"abc", mode=0o640, mtime=6),
            symlink("d/l", "/d/f", mtime=7), hardlink("h", "d/f"), member("made/up/f", content=b"x" * 3_000_000),
            member("p", tarfile.FIFOTYPE, mode=0o600),
        )
    )  # fmt: skip

    assert (done.size, done.entries) == (3_000_007, 6), "a link has the length of its target"
    assert (at.root / "d/f").read_bytes() == b"abc"
    assert (at.root / "d").stat().st_mode & 0o7777 == 0o750
    assert [int((at.root / n).lstat().st_mtime) for n in ("d", "d/f", "d/l")] == [5, 6, 7]
    assert (at.root / "d/l").readlink() == Path("/d/f")
    assert (at.root / "h").stat().st_ino == (at.root / "d/f").stat().st_ino
    assert (at.root / "made").stat().st_mode & 0o7777 == 0o755
    assert (at.root / "p").is_fifo()


def test_a_later_entry_replaces_an_earlier_one_of_any_kind(at: Yard) -> None:
    at.apply(archive(directory("x"), member("x/f"), member("x", content=b"file"), symlink("x", "y"), directory("x"), member("x/g")))

    assert sorted(os.listdir(at.root)) == ["x"]
    assert os.listdir(at.root / "x") == ["g"]


def test_a_folder_over_a_folder_changes_attributes_only(at: Yard) -> None:
    at.apply(archive(member("d/kept", content=b"1"), directory("d", mode=0o700), directory("./", mode=0o711)))

    assert (at.root / "d/kept").read_bytes() == b"1"
    assert [path.stat().st_mode & 0o7777 for path in (at.root / "d", at.root)] == [0o700, 0o711]


def test_sparse_files_have_their_holes_again(at: Yard) -> None:
    data = pax_header((b"GNU.sparse.size", b"10485760"), (b"GNU.sparse.map", b"5242880,3")) + raw_header(
        b"s", size=b"00000000003\0"
    )
    at.apply(data + blocks(b"abc") + END)
    made = at.root / "s"

    assert made.stat().st_size == 10485760
    assert made.read_bytes()[5242879:5242884] == b"\0abc\0"
    assert made.stat().st_blocks * 512 < 1 << 20


def test_a_read_only_folder_can_still_be_filled(at: Yard) -> None:
    at.apply(archive(directory("d", mode=0o555), member("d/f"), directory("d/e", mode=0o000), member("d/e/f")))

    assert (at.root / "d").stat().st_mode & 0o7777 == 0o555
    assert (at.root / "d/e").stat().st_mode & 0o7777 == 0
    (at.root / "d/e").chmod(0o700)
    assert os.listdir(at.root / "d/e") == ["f"]


# Row 43: links that lead out.  Everything below checks the canary and the descriptors (see support.tars.yard).

ESCAPES = {
    "dot dot": [member("../canary/CANARY", content=b"x")],
    "dot dot inside": [member("a/../../canary/CANARY", content=b"x")],
    "absolute": [member("/canary/CANARY", content=b"x")],
    "symlink to the canary": [symlink("a", "{canary}"), member("a/CANARY", content=b"x")],
    "relative symlink": [symlink("a", "../canary"), member("a/CANARY", content=b"x"), directory("a/new")],
    "symlink chain": [symlink("a", "b"), symlink("b", "c/.."), symlink("c", ".."), member("a/canary/CANARY", content=b"x")],
    "symlink as the last part": [symlink("a", "{canary}/CANARY"), member("a", content=b"x")],
    "cve_2025_4517 deep links": [
        directory("d" * 200), *(symlink(f"{'d' * 200}/l{i}", "d" * 200) for i in range(5)),
        symlink("e", f"{'d' * 200}/../../../canary"), member("e/CANARY", content=b"x"),
    ],
    "cve_2025_4330 link through a link": [directory("x"), symlink("x/up", ".."), symlink("e", "x/up/../canary"),
                                          member("e/CANARY")],
    "cve_2025_4138 link target with dots": [symlink("a", "b/../../canary"), directory("b"), member("a/CANARY", content=b"x")],
    "cve_2024_12718 attributes through a link": [symlink("a", "{canary}"), directory("a", mode=0o777, mtime=1)],
    "row_42 chmod through a link": [
        symlink("x", "{canary}/CANARY"), member("x", mode=0o777), symlink("x", "{canary}"), directory("x", mode=0o777),
    ],
    "row_42 hard link entry with a mode": [symlink("x", "{canary}/CANARY"), hardlink("y", "x", mode=0o777),
                                          member("y", mode=0o777)],
    "cve_2026_82049 hard link to a symlink": [symlink("s", "{canary}/CANARY"), hardlink("h", "s"), member("h", content=b"x")],
    "hard link out": [hardlink("h", "../canary/CANARY"), member("h", content=b"x")],
    "hard link absolute": [hardlink("h", "{canary}/CANARY"), member("h", content=b"x")],
    "hard link through a symlink": [symlink("a", "../canary"), hardlink("h", "a/CANARY"), member("h", content=b"x")],
    "hard link to itself": [member("h"), hardlink("h", "h")],
    "pax path over a safe name": [member("safe", content=b"x", pax_headers={"path": "../canary/CANARY"})],
    "pax linkpath over a safe name": [hardlink("safe", "x", pax_headers={"linkpath": "../canary/CANARY"})],
    "the same name twice": [directory("a"), symlink("a", "../canary"), member("a/CANARY", content=b"x")],
    "a name of 4096 bytes": [member("/".join(["a" * 255] * 16), content=b"x")],
    "a part of 256 bytes": [member("a" * 256, content=b"x")],
    "whiteout through a symlink": [symlink("a", "{canary}"), member("a/.wh.CANARY"), member("a/.wh..wh..opq")],
    "whiteout of dot dot": [member(".wh..."), member(".wh..")],
    "magic link": [symlink("a", "/proc/self/root"), member("a/f"), symlink("b", "/proc/self/cwd"), member("b/f")],
    "symlink loop": [symlink("a", "b"), symlink("b", "a"), member("a/f")],
    "row_41 link and file race over layers": [symlink("a", "/"), member("a/CANARY", content=b"x"), member("a/canary/CANARY")],
    "file as a folder": [member("f"), member("f/x")],
    "the root as a file": [member("./", content=b"x"), symlink(".", "{canary}")],
    "NUL in a link": [symlink("a", "x\0y")],
}  # fmt: skip


@pytest.mark.parametrize("mode", [Whiteouts.PLAIN, Whiteouts.REMOVE])
@pytest.mark.parametrize("name", ESCAPES)
def test_row_43_nothing_outside_of_the_root_is_touched(at: Yard, name: str, mode: Whiteouts) -> None:
    members = []
    for info, content in ESCAPES[name]:
        aimed = copy.copy(info)
        aimed.linkname = info.linkname.replace("{canary}", str(at.canary))
        members.append((aimed, content))
    try:
        at.apply(archive(*members), whiteouts=mode)
    except BadArchive as refused:
        assert "entry" in str(refused)


def test_row_43_the_harness_would_see_a_naive_applier(tmp_path: Path) -> None:
    """The control: what follows the links by name does hit the canary."""
    with pytest.raises(AssertionError), yard(tmp_path) as at:
        at.apply(archive(symlink("a", "../canary")))
        (at.root / "a/CANARY").write_text("changed")


def test_row_44_links_are_followed_as_under_chroot(at: Yard) -> None:
    at.apply(
        archive(
            directory("run"), symlink("var/run", "/run"), member("var/run/pid", content=b"1"), symlink("etc", "../../usr/etc"),
            member("etc/made/conf", content=b"2"), member("bin/busybox", content=b"b"), hardlink("bin/sh", "/bin/busybox"),
        )
    )  # fmt: skip

    assert (at.root / "run/pid").read_bytes() == b"1"
    assert (at.root / "usr/etc/made/conf").read_bytes() == b"2"
    assert (at.root / "bin/sh").stat().st_ino == (at.root / "bin/busybox").stat().st_ino


def test_row_45_overlays_own_attributes_are_dropped(at: Yard) -> None:
    attributes = {"SCHILY.xattr.user.overlay.redirect": "/x", "SCHILY.xattr.trusted.overlay.redirect": "/../../etc",
                  "SCHILY.xattr.security.selinux": "system_u", "SCHILY.xattr.user.kept": "1"}  # fmt: skip
    at.apply(archive(member("f", pax_headers=attributes), directory("d", pax_headers=attributes)))

    for name in ("f", "d"):
        assert set(os.listxattr(at.root / name)) <= {"user.kept", "security.selinux"}
        assert os.getxattr(at.root / name, "user.kept") == b"1"


def test_row_46_devices_and_setuid_can_be_refused(at: Yard) -> None:
    options = Options(owner=PLAIN_USER.owner, special=False)
    at.apply(archive(member("su", mode=0o6755)), options=options)
    with pytest.raises(BadArchive, match="device"):
        at.apply(archive(member("sda", tarfile.BLKTYPE, devmajor=8)), options=options)

    assert (at.root / "su").stat().st_mode & 0o7777 == 0o755
    assert os.listdir(at.root) == ["su"]


def test_row_54_budgets_hold(at: Yard) -> None:
    with pytest.raises(OverBudget, match="bytes"):
        at.apply(archive(member("f", content=bytes(2000))), budget=Budget(max_bytes=1999))
    with pytest.raises(OverBudget, match="entries"):
        at.apply(archive(*(member(f"f{i}") for i in range(4))), budget=Budget(max_entries=3))
    with pytest.raises(OverBudget):  # a hole counts as well
        hole = pax_header((b"GNU.sparse.size", b"1152921504606846976"), (b"GNU.sparse.map", b"0,0"))
        at.apply(hole + raw_header(b"s") + END)

    assert Budget.for_compressed(10 << 20).max_bytes == 2000 << 20


@pytest.mark.parametrize("mode", [Whiteouts.PLAIN, Whiteouts.REMOVE])
def test_whiteouts_remove_what_is_below_and_spare_their_own_layer(at: Yard, mode: Whiteouts) -> None:
    at.apply(archive(member("gone"), member("dir/old/f"), member("dir/x"), member("opq/old"), member("opq/sub/old")))
    layer = archive(
        member("opq/sub/new"), member("opq/.wh..wh..opq"), member("opq/new"), member(".wh.gone"), member("dir/new"),
        member(".wh.dir"), member(".wh.never"), member(".wh..wh.aufs"), member(".wh..wh.plnk/x"), member("nodir/.wh.x"),
    )  # fmt: skip
    at.apply(layer, whiteouts=mode)
    left = {str(path.relative_to(at.root)) for path in at.root.rglob("*") if not path.is_dir()}

    if mode is Whiteouts.REMOVE:
        assert left == {"opq/sub/new", "opq/new", "dir/new"}
    else:
        assert {"gone", ".wh.gone", "dir/x", "opq/.wh..wh..opq"} <= left


def test_a_whiteout_does_not_follow_a_link(at: Yard) -> None:
    at.apply(archive(member("target/f"), symlink("l", "target")))
    at.apply(archive(member(".wh.l")), whiteouts=Whiteouts.REMOVE)

    assert sorted(os.listdir(at.root)) == ["target"]
    assert os.listdir(at.root / "target") == ["f"]


def test_applying_below_a_folder_keeps_links_in_the_root(at: Yard) -> None:
    at.apply(archive(symlink("data", "/srv"), directory("srv")))
    at.apply(archive(member("f", content=b"1"), hardlink("g", "f")), options=Options(into="/data/sub", owner=PLAIN_USER.owner))
    with pytest.raises(BadArchive, match="out of the root"):
        at.apply(archive(member("../f")), options=Options(into="srv", owner=PLAIN_USER.owner))

    assert sorted(os.listdir(at.root / "srv/sub")) == ["f", "g"]


def test_kinds_can_be_kept(at: Yard) -> None:
    at.apply(archive(member("f", content=b"1"), member("d/f")))
    options = Options(keep_kinds=True, owner=PLAIN_USER.owner)
    for bad in (directory("f"), member("d")):
        with pytest.raises(InvalidRequest, match="cannot overwrite"):
            at.apply(archive(bad), options=options)
    at.apply(archive(member("f", content=b"2")), options=options)

    assert (at.root / "f").read_bytes() == b"2"


def test_p24_latin_1_names_round_trip_byte_for_byte(at: Yard) -> None:
    name = os.fsdecode(b"caf\xe9/" + b"\xff" * 120 + b"/\xfc")
    at.apply(
        archive(member(name, content=b"1"), symlink(os.fsdecode(b"l\xe9"), os.fsdecode(b"\xe8" * 130)), format=tarfile.GNU_FORMAT)
    )
    first = b"".join(tree_tar(at.fd))
    at.apply(archive(directory("again")))
    at.apply(first, options=Options(into="again", owner=PLAIN_USER.owner))
    with open_folder(at.root / "again") as again:
        second = b"".join(tree_tar(again))

    assert (at.root / "again" / name).read_bytes() == b"1"
    assert first == second


class open_folder:
    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def corpus() -> bytes:
    return archive(
        directory("d"), member("d/f", content=b"abc" * 400), symlink("l", "../canary"), member("l/CANARY", content=b"x"),
        hardlink("h", "d/f"), member("n" * 150 + "/x", content=b"long"), member("d/.wh.f"), member("d/.wh..wh..opq"),
        member("u", pax_headers={"mtime": "1.5", "SCHILY.xattr.user.a": "b", "path": "d/é"}), symlink("r", "/"),
        member("r/d/g", content=b"y" * 600), hardlink("r/i", "r/d/g"), member("p", tarfile.FIFOTYPE),
    )  # fmt: skip


def mutate(data: bytes, seed: int) -> bytes:
    """Change a few bytes, mend the checksums of the headers most of the time, cut or repeat now and then."""
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        header = rng.randrange(len(changed) // 512) * 512
        place = header + rng.choice(
            [rng.randrange(100), 124 + rng.randrange(12), 156, 157 + rng.randrange(100), rng.randrange(512)]
        )
        changed[place] = rng.choice([0, 0x2E, 0x2F, 0x30, 0x31, 0x32, 0x35, 0x37, 0x78, 0x4C, 0x53, 0x80, 0xFF, rng.randrange(256)])
        if rng.random() < 0.9:
            block = changed[header : header + 512]
            block[148:156] = b" " * 8
            changed[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    action = rng.random()
    if action < 0.1:
        del changed[rng.randrange(len(changed)) :]
    elif action < 0.2:
        at = rng.randrange(len(changed) // 512) * 512
        changed[at:at] = changed[at : at + 1024]
    return bytes(changed)


@pytest.mark.parametrize("group", range(6))
@pytest.mark.slow
def test_row_43_and_p13_mutated_archives_stay_inside_or_are_refused(tmp_path: Path, group: int) -> None:
    data = corpus()
    refused = 0
    for seed in range(group * 50, group * 50 + 50):
        place = tmp_path / str(seed)
        place.mkdir()
        with yard(place) as at:
            try:
                at.apply(mutate(data, seed), whiteouts=Whiteouts.REMOVE, budget=Budget(max_bytes=1 << 30))
            except (BadArchive, OverBudget):
                refused += 1
            except PermissionError:
                assert os.geteuid() != 0  # a device

    assert 5 < refused < 50


@pytest.mark.slow
def test_row_59_and_p19_two_thousand_bad_layers_leave_no_descriptor(at: Yard) -> None:
    bad = [archive(directory("d"), member("d/e/f"), hardlink("h", "nowhere")), archive(member("d/f", content=bytes(900)))[:1300],
           archive(symlink("d/a", "a"), member("d/a/f")), raw_header(b"d/f", b"~") + END]  # fmt: skip
    before = open_fds()
    for i in range(2000):
        with pytest.raises(BadArchive):
            apply(io.BytesIO(bad[i % 4]), at.fd, whiteouts=Whiteouts.PLAIN, options=PLAIN_USER)

    assert open_fds() == before


def test_an_owner_out_of_range_is_refused(at: Yard) -> None:
    with pytest.raises(BadArchive, match="out of range"):
        at.apply(archive(member("f", uid=1)), options=Options(id_shift=(1 << 32) - 2))
    with pytest.raises(BadArchive, match="out of range"):
        at.apply(archive(member("g")), options=Options(id_shift=-1))
