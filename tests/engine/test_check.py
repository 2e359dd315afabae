"""sampan system check: what is broken is found, named, and with --repair mended or dropped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.oci.digest import Digest, encoded
from support.daemon import Daemon
from support.places import Place
from support.registry import Made, Registry, digest
from support.tars import archive, directory, member, symlink

BASE = archive(directory("etc/"), member("etc/a", content=b"base"), symlink("etc/l", "a"))
TOP = archive(directory("etc/"), member("etc/b", content=b"top"), member("etc/.wh.a"))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


@pytest.fixture
def pulled(place: Place, registry: Registry) -> Made:
    made = registry.image("a", "1", BASE, TOP)
    place.pull(f"{registry.host}/a")
    return made


def look(place: Place, *, repair: bool = False) -> list[Any]:
    return [(one.level, one.subject, one.text) for one in place.run(place.images.check(repair=repair))]


def blob(place: Place, content: bytes) -> Path:
    return place.root / "content/blobs/sha256" / digest(content)[7:]


def spoil(path: Path, content: bytes | None = None) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?" if content is None else content)


def test_what_is_whole_is_called_so(place: Place, pulled: Made) -> None:
    assert look(place) == [("ok", "images", "1 images, 4 blobs, 2 layers")]


def test_a_spoilt_or_missing_layer_blob_is_fetched_again(place: Place, registry: Registry, pulled: Made) -> None:
    spoil(blob(place, pulled.blobs[0]))
    blob(place, pulled.blobs[1]).unlink()
    assert sorted(text[:15] for *_, text in look(place)) == ["has the content", "is missing"]
    mended = look(place, repair=True)
    assert [level for level, *_ in mended] == ["note", "note"]
    assert all(f"fetched again from {registry.host}/a" in text for *_, text in mended)
    assert look(place)[0][0] == "ok"


def test_what_no_registry_has_any_more_is_dropped_with_its_image(place: Place, registry: Registry, pulled: Made) -> None:
    spoil(blob(place, pulled.blobs[0]))
    registry.blobs.clear()
    assert "dropped" in look(place, repair=True)[0][2]
    assert place.images.catalogue.all() == []
    assert look(place) == [("ok", "images", "0 images, 0 blobs, 0 layers")]


def change_content(folder: Path) -> None:
    (folder / "etc/a").write_text("evil")


@pytest.mark.parametrize(
    "change",
    [
        change_content,
        lambda folder: (folder / "etc/a").unlink(),
        lambda folder: (folder / "etc/more").write_text("x"),
        lambda folder: (folder / "etc/a").chmod(0o777),
        lambda folder: os.chown(folder / "etc/a", 5, 5),
        lambda folder: ((folder / "etc/l").unlink(), (folder / "etc/l").symlink_to("/etc/passwd")),
    ],
)
def test_a_layer_that_is_not_what_its_blob_says_is_unpacked_again(
    place: Place, registry: Registry, pulled: Made, change: Any
) -> None:
    change(place.layers.diff(Digest(place.images.resolve(f"{registry.host}/a:1").chain_ids[0])))
    (found,) = look(place)
    assert found[1].startswith("layer ")
    assert "etc/" in found[2]
    assert look(place, repair=True)[0][2].endswith("unpacked again from its blob")
    assert look(place)[0][0] == "ok"


def test_a_layer_in_use_is_told_and_left(place: Place, registry: Registry, pulled: Made) -> None:
    chain = place.images.resolve(f"{registry.host}/a:1").chain_ids
    place.layers.prepare("c", chain)
    change_content(place.layers.diff(Digest(chain[0])))
    (found,) = look(place, repair=True)
    assert found[0] == "error" and "a container uses it" in found[2]
    place.layers.remove("c")


def test_a_spoilt_configuration_or_manifest(place: Place, registry: Registry, pulled: Made) -> None:
    spoil(blob(place, pulled.manifest))
    assert "manifest was dropped" in look(place, repair=True)[0][2]
    place.push(f"{registry.host}/a")
    spoil(blob(place, pulled.config))
    place.again()
    look(place, repair=True)
    assert look(place)[0][0] == "ok"
    assert place.images.catalogue.all() == []


def test_a_layer_whose_folder_is_gone_comes_back(place: Place, registry: Registry, pulled: Made) -> None:
    chain = Digest(place.images.resolve(f"{registry.host}/a:1").chain_ids[0])
    place.layers._trash.throw(place.root / "layers/sha256" / encoded(chain))
    assert look(place)[0][2] == "is missing"
    look(place, repair=True)
    assert look(place)[0][0] == "ok"


def test_the_command_says_what_is_wrong_and_its_exit_code_too(daemon: Daemon) -> None:
    done = daemon.sampan("system", "check")
    assert b"images" in done.stdout and done.returncode == 0
