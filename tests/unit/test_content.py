"""The blob store and the catalogue of images."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.content.blobs import Blobs
from sampan.content.images import Catalogue, Facts, ImageRecord
from sampan.errors import Broken, Conflict, InvalidRequest, NotFound
from sampan.oci.digest import Digest, encoded, of, parse
from sampan.oci.reference import parse as reference
from sampan.state import State


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path)


@pytest.fixture
def catalogue(tmp_path: Path, blobs: Blobs) -> Iterator[Catalogue]:
    state = State(tmp_path)
    yield Catalogue(state, blobs)
    state.close()


def test_a_blob_has_the_content_of_its_name(blobs: Blobs) -> None:
    digest = blobs.put(b"hello")

    assert digest == of(b"hello") and blobs.read(digest) == b"hello" and blobs.size(digest) == 5
    assert list(blobs.digests()) == [digest]
    assert blobs.path(digest).stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize(("expected", "size"), [(of(b"other"), None), (of(b"hello"), 4), (of(b"hello"), 6), (None, 9)])
def test_row_48_wrong_content_or_size_leaves_no_file(blobs: Blobs, expected: Digest | None, size: int | None) -> None:
    with pytest.raises(InvalidRequest), blobs.ingest() as ingest:
        ingest.write(b"hello")
        ingest.commit(expected, size)

    assert list(blobs.digests()) == [] and os.listdir(blobs.ingest_folder) == []


def test_a_blob_may_be_named_by_sha512(blobs: Blobs) -> None:
    import hashlib

    wanted = parse("sha512:" + hashlib.sha512(b"hello").hexdigest())
    assert blobs.put(b"hello", wanted) == wanted and blobs.read(wanted) == b"hello"


def test_more_than_the_limit_is_refused(blobs: Blobs) -> None:
    with pytest.raises(InvalidRequest), blobs.ingest(limit=4) as ingest:
        ingest.write_from(io.BytesIO(b"hello"))
    assert os.listdir(blobs.ingest_folder) == []


def test_a_damaged_blob_is_not_read(blobs: Blobs) -> None:
    digest = blobs.put(b"hello")
    blobs.path(digest).chmod(0o600)
    blobs.path(digest).write_bytes(b"hellO")
    with pytest.raises(Broken):
        blobs.read(digest)
    with pytest.raises(NotFound):
        blobs.read(of(b"none"))


_DIES = """
import os, sys
from pathlib import Path
from sampan.content.blobs import Blobs
ingest = Blobs(Path(sys.argv[1])).ingest()
ingest.write(b"x" * 100)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_is_swept_and_was_never_a_blob(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", _DIES, str(tmp_path)], check=False).returncode == -9

    blobs = Blobs(tmp_path)
    assert list(blobs.digests()) == [] and blobs.sweep() == 1 and os.listdir(blobs.ingest_folder) == []


def image(catalogue: Catalogue, name: bytes) -> Digest:
    catalogue.add(ImageRecord(id=of(name), layers=(), facts=Facts()))
    return of(name)


def test_an_image_is_found_by_name_by_id_and_by_the_start_of_its_id(catalogue: Catalogue) -> None:
    one = image(catalogue, b"one")
    catalogue.tag(reference("busybox:latest"), one, 1)

    for text in ("busybox", "docker.io/library/busybox:latest", one, encoded(one), encoded(one)[:12], one[:20]):
        assert catalogue.resolve(text)[0] == one
    for text, words in (("nosuch", "^No such image: nosuch:latest$"), ("busybox:2", "^No such image: busybox:2$")):
        with pytest.raises(NotFound, match=words):
            catalogue.resolve(text)


def test_an_id_that_fits_two_images_is_ambiguous(catalogue: Catalogue) -> None:
    for letter in "ab":
        catalogue.add(ImageRecord(id=Digest("sha256:" + "0" * 63 + letter), layers=(), facts=Facts()))
    with pytest.raises(Conflict):
        catalogue.resolve("sha256:0000")


def test_row_57_a_digest_belongs_to_its_repository(catalogue: Catalogue) -> None:
    evil = image(catalogue, b"evil")
    digest = of(b"manifest of evil")
    catalogue.tag(reference("good:1"), image(catalogue, b"good"), 1)
    catalogue.tag(reference(f"evil@{digest}"), evil, 1)

    assert catalogue.resolve(f"evil@{digest}")[0] == evil
    for text in (f"good@{digest}", f"good:1@{digest}"):
        with pytest.raises(NotFound):
            catalogue.resolve(text)


def test_a_name_moves_to_another_image_and_says_who_lost_it(catalogue: Catalogue) -> None:
    one, two = image(catalogue, b"one"), image(catalogue, b"two")
    name = reference("a:b")

    assert catalogue.tag(name, one, 1) is None and catalogue.tag(name, two, 2) == one
    assert catalogue.tags(one) == [] and catalogue.tags(two) == [name] and catalogue.last_tagged(two) == 2
    catalogue.forget(two)
    assert catalogue.named(name) is None


def test_nothing_is_garbage_while_somebody_adds(catalogue: Catalogue) -> None:
    with catalogue.adding(), catalogue.collecting() as free:
        assert not free
    with catalogue.collecting() as free:
        assert free
