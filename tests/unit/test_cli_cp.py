"""sampan cp: where things go, and what a hostile daemon's archive cannot do on this host (SECURITY.md row 36)."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.cli.cp import End, Target, place, split
from sampan.cli.main import Exit
from sampan.cli.unpack import unpack


@pytest.mark.parametrize(
    ("word", "container", "path"),
    [("web:/x", "web", "/x"), ("web:x", "web", "x"), ("/a:b", "", "/a:b"), ("./a:b", "", "./a:b"), ("x", "", "x"), ("-", "", "-")],
)
def test_an_argument_is_a_container_s_path_or_this_hosts(word: str, container: str, path: str) -> None:
    assert End.of(word) == End(container, path)


@pytest.mark.parametrize(
    ("path", "folder", "name"),
    [("a", ".", "a"), ("/a", "/", "a"), ("a/b/", "a", "b"), ("a/b/.", "a/b/", "."), (".", ".", "."), ("/", "/", "/")],
)
def test_a_path_is_its_folder_and_its_name(path: str, folder: str, name: str) -> None:
    assert split(path) == (folder, name)


def test_what_a_destination_means_is_dockers_table() -> None:
    assert place("x", False, Target("/to", True, True)) == ("/to", "x")
    assert place("x", False, Target("/to/y", False, False)) == ("/to", "y")
    assert place("x", True, Target("/to/y", False, False)) == ("/to", "y")
    assert place("x", False, Target("/to/y", True, False)) == ("/to", "y")
    for folder, target in ((True, Target("/to/y", True, False)), (False, Target("/to/y/", False, False))):
        with pytest.raises(Exit):
            place("x", folder, target)


def blocks(*entries: tuple[str, bytes, dict[str, Any]]) -> Iterator[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, more in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o755
            content = more.get("content", b"")
            entry.size = len(content)
            for key, value in more.items():
                if key != "content":
                    setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(content))
    yield out.getvalue()


FOLDER = ("x", tarfile.DIRTYPE, {})
BAD = {"content": b"bad"}
HOSTILE = {
    "..": (FOLDER, ("x/../../CANARY", tarfile.REGTYPE, BAD)),
    "beside": (FOLDER, ("other", tarfile.REGTYPE, BAD)),
    "absolute": (FOLDER, ("/etc/CANARY", tarfile.REGTYPE, BAD)),
    "link out, then through it": (FOLDER, ("x/l", tarfile.SYMTYPE, {"linkname": "/"}), ("x/l/CANARY", tarfile.REGTYPE, BAD)),
    "link up, then through it": (FOLDER, ("x/l", tarfile.SYMTYPE, {"linkname": "../.."}), ("x/l/CANARY", tarfile.REGTYPE, BAD)),
    "hard link out": (FOLDER, ("x/h", tarfile.LNKTYPE, {"linkname": "../CANARY"})),
    "hard link beside": (FOLDER, ("x/h", tarfile.LNKTYPE, {"linkname": "mine"})),
    "the root becomes a link": (("x", tarfile.SYMTYPE, {"linkname": "/"}), ("x/CANARY", tarfile.REGTYPE, BAD)),
    "device": (FOLDER, ("x/null", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3})),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("there", [True, False])
def test_row_36_nothing_is_written_beside_the_destination(tmp_path: Path, case: str, there: bool) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine").write_text("mine")
    (tmp_path / "CANARY").write_text("host")
    if there:
        (home / "x").mkdir()

    try:
        unpack(blocks(*HOSTILE[case]), "x", str(home), "x", is_folder=True, archive=False)
    except Exit:
        pass

    assert (tmp_path / "CANARY").read_text() == "host" and (home / "mine").read_text() == "mine"
    assert {path.name for path in home.iterdir()} <= {"mine", "x"} and {path.name for path in tmp_path.iterdir()} == {
        "home",
        "CANARY",
    }
    assert not os.path.lexists("/CANARY") and not os.path.lexists("/etc/CANARY")
    assert not (home / "x").is_symlink() and not (home / "x/null").exists() and not (home / "x/h").exists()


@pytest.mark.parametrize(
    "entries",
    [
        (("x", tarfile.REGTYPE, {}), ("y", tarfile.REGTYPE, {})), (("y", tarfile.REGTYPE, {}),), (("x/y", tarfile.REGTYPE, {}),),
        (("x", tarfile.DIRTYPE, {}),), (("x", tarfile.LNKTYPE, {"linkname": "mine"}),),
        (("x", tarfile.SYMTYPE, {"linkname": "mine"}), ("x", tarfile.REGTYPE, BAD)),
    ],
)  # fmt: skip
def test_row_36_a_file_asked_for_is_one_file(tmp_path: Path, entries: Any) -> None:
    (tmp_path / "mine").write_text("mine")

    with pytest.raises(Exit):
        unpack(blocks(*entries), "x", str(tmp_path), "new", is_folder=False, archive=False)

    assert (tmp_path / "mine").read_text() == "mine" and {path.name for path in tmp_path.iterdir()} <= {"mine", "new"}


def test_row_36_setuid_is_dropped_and_the_owner_is_the_caller(tmp_path: Path) -> None:
    entries = (FOLDER, ("x/s", tarfile.REGTYPE, {"mode": 0o6755, "uid": 12345, "gid": 12345}))

    unpack(blocks(*entries), "x", str(tmp_path), "x", is_folder=True, archive=False)

    found = (tmp_path / "x/s").stat()
    assert (found.st_mode & 0o7777, found.st_uid) == (0o755, os.geteuid())


def test_a_link_at_the_destination_s_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "x").symlink_to("elsewhere")

    with pytest.raises(Exit, match="cannot overwrite"):
        unpack(blocks(FOLDER, ("x/f", tarfile.REGTYPE, {})), "x", str(tmp_path), "x", is_folder=True, archive=False)

    assert not list((tmp_path / "elsewhere").iterdir())
