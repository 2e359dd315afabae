"""A root and its places as one tree: what is found, and what is never left."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.files.tar_apply import Options, Whiteouts, apply
from sampan.files.tar_write import Source, tree_tar
from sampan.files.view import View
from sampan.kernel.fds import open_fd

FOLDER = os.O_PATH | os.O_DIRECTORY


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    """root/{a/b/file, link -> /a, up -> ../../../../.., out -> /etc/passwd, vol/hidden}; volume at /vol, a file at /a/hosts."""
    root, volume = tmp_path / "root", tmp_path / "volume"
    (root / "a/b").mkdir(parents=True)
    (root / "vol").mkdir()
    (root / "vol/hidden").write_text("hidden")
    (root / "a/b/file").write_text("in")
    (root / "a/hosts").write_text("placeholder")
    for name, target in (("link", "/a"), ("up", "../../../../.."), ("out", "/etc/passwd"), ("loop", "loop"), ("gone", "no/where")):
        (root / name).symlink_to(target)
    volume.mkdir()
    (volume / "data").write_text("volume")
    (volume / "back").symlink_to("/a/b")
    (tmp_path / "hosts").write_text("names")
    (tmp_path / "CANARY").write_text("host")
    places = {"/vol": open_fd(volume, FOLDER), "/link/hosts": open_fd(tmp_path / "hosts", os.O_PATH)}
    with View(open_fd(root, FOLDER), places, guarded=("/proc",)) as made:
        yield made


def real_of(view: View, path: str, *, follow: bool = True) -> str:
    held, real = view.open(path, follow=follow)
    held.close()
    return real


def content_of(view: View, path: str) -> str:
    held, _ = view.open(path)
    with held, open(held.path) as file:
        return file.read()


def test_links_resolve_in_the_root_and_places_stand_where_their_target_leads(view: View) -> None:
    assert real_of(view, "/link/b/file") == "a/b/file"
    assert real_of(view, "link", follow=False) == "link"
    assert real_of(view, "a/../vol/back/file") == "a/b/file"
    assert content_of(view, "/vol/data") == "volume"
    assert content_of(view, "/a/hosts") == "names"
    assert (view.place_of("vol/data"), view.place_of("a/b")) == ("vol", None)


def test_row_32_no_path_leads_out_of_the_root(view: View) -> None:
    assert real_of(view, "up") == real_of(view, "../../..") == real_of(view, "up/..") == ""
    assert real_of(view, "up/a/b") == "a/b"
    for path in ("out", "up/CANARY", "vol/../../CANARY", "vol/back/../../../CANARY"):
        with pytest.raises(FileNotFoundError):
            view.open(path)
    with pytest.raises(OSError, match="links"):
        view.open("loop")
    with pytest.raises(NotADirectoryError):
        view.open("a/b/file/x")


def test_where_a_link_would_lead_is_told_though_nothing_is_there(view: View) -> None:
    assert view.where("gone") == "no/where"
    assert view.where("out") == "etc/passwd"
    assert view.where("nope/x/y") == "nope/x/y"


def test_a_tar_of_the_view_has_what_is_in_the_places_and_not_what_they_cover(view: View) -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(tree_tar(view, Source(name="/"))))) as tar:
        names = {member.name: member for member in tar}
        hosts = tar.extractfile(names["/a/hosts"])
        assert hosts is not None and hosts.read() == b"names"

    assert "/vol/data" in names and "/vol/hidden" not in names


def made(*entries: tuple[str, bytes, str]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.uid, entry.gid = kind, os.getuid(), os.getgid()
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                entry.linkname = content
            else:
                entry.size = len(content)
            entry.mode = 0o777
            tar.addfile(entry, io.BytesIO(content.encode()) if entry.isreg() else None)
    out.seek(0)
    return out


def test_a_tar_goes_into_the_places(view: View, tmp_path: Path) -> None:
    apply(made(("vol/new", tarfile.REGTYPE, "x"), ("vol", tarfile.DIRTYPE, "")), view, whiteouts=Whiteouts.PLAIN)
    apply(made(("new2", tarfile.REGTYPE, "y")), view, whiteouts=Whiteouts.PLAIN, options=Options(into="vol"))

    assert (tmp_path / "volume/new").read_text() == "x" and (tmp_path / "volume/new2").read_text() == "y"
    assert (tmp_path / "volume").stat().st_mode & 0o777 == 0o777
    assert not (tmp_path / "root/vol/new").exists()


@pytest.mark.parametrize("name", ["vol", "a/hosts", "link/hosts", "a", "proc", "./vol"])
def test_what_is_mounted_is_neither_replaced_nor_removed(view: View, tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="busy"):
        apply(made((name, tarfile.REGTYPE, "x")), view, whiteouts=Whiteouts.PLAIN)

    assert (tmp_path / "root/vol/hidden").exists() and (tmp_path / "root/a/hosts").read_text() == "placeholder"


def test_row_35_a_link_then_an_entry_of_its_name_changes_nothing_outside(view: View, tmp_path: Path) -> None:
    canary = tmp_path / "CANARY"
    canary.chmod(0o600)

    apply(
        made(("x", tarfile.SYMTYPE, str(canary)), ("x", tarfile.REGTYPE, "own"), ("y", tarfile.SYMTYPE, "/../CANARY"),
             ("y", tarfile.DIRTYPE, "")), view, whiteouts=Whiteouts.PLAIN,
    )  # fmt: skip

    assert canary.stat().st_mode & 0o777 == 0o600 and canary.read_text() == "host"
    assert (tmp_path / "root/x").read_text() == "own" and (tmp_path / "root/y").is_dir()
