"""Pushing: what the registry has afterwards, what is not sent twice, and how a broken upload goes on."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import Broken, InvalidRequest, NotFound, Unauthorized
from sampan.oci import image as oci
from sampan.oci.digest import of
from sampan.registry.client import ANONYMOUS
from sampan.registry.repository import Document
from support.places import Place, collect
from support.registry import MANIFEST, Handler, Registry, config_of, descriptor, digest
from support.tars import archive, directory, member

BASE = archive(directory("etc/"), member("etc/a", content=b"base"))
TOP = archive(directory("etc/"), member("etc/b", content=b"top"))
LARGE = archive(member("large", content=os.urandom(20 << 20)))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


def import_(place: Place, tar: bytes, repo: str) -> None:
    place.run(collect(place.images.import_(io.BytesIO(tar), repo=repo, tag="1", message="", changes=[], platform="")))


def test_what_was_pulled_goes_back_under_the_same_digest(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", BASE, TOP, annotations={"org.example": "kept"})
    place.pull(f"{registry.host}/a")
    with Registry() as other:
        place.run(place.images.tag(f"{registry.host}/a:1", f"{other.host}/b", "2"))
        said = place.push(f"{other.host}/b", "2")
        assert other.manifests["b", "2"] == (MANIFEST, made.manifest)
        assert set(other.blobs) == {digest(blob) for blob in (*made.blobs, made.config)}
    assert said[0].status == f"The push refers to repository [{other.host}/b]"
    assert said[-2].status == f"2: digest: {made.digest} size: {len(made.manifest)}"
    assert said[-1].aux == {"Tag": "2", "Digest": made.digest, "Size": len(made.manifest)}
    assert f"{other.host}/b@{made.digest}" in place.images.resolve(f"{other.host}/b:2").digests


def test_a_plain_layer_is_compressed_on_the_way_the_same_each_time(place: Place, registry: Registry, tmp_path: Path) -> None:
    import_(place, LARGE, f"{registry.host}/a")
    place.push(f"{registry.host}/a")
    manifest = json.loads(registry.manifests["a", "1"][1])
    layer = manifest["layers"][0]

    assert manifest["mediaType"] == oci.DOCKER_MANIFEST
    assert gzip.decompress(registry.blobs[layer["digest"]]) == LARGE
    assert len(registry.blobs[layer["digest"]]) == layer["size"]
    (tmp_path / "other").mkdir()
    with Registry() as second, Place(tmp_path / "other") as other:
        import_(other, LARGE, f"{second.host}/a")
        other.push(f"{second.host}/a")
        assert json.loads(second.manifests["a", "1"][1])["layers"] == manifest["layers"]
    registry.log.clear()
    place.push(f"{registry.host}/a")
    assert registry.asked("PATCH", "") == registry.asked("POST", "") == []


def test_a_layer_is_mounted_from_a_repository_that_has_it(place: Place, registry: Registry) -> None:
    made = registry.image("a/b", "1", BASE)
    place.pull(f"{registry.host}/a/b")
    place.run(place.images.tag(f"{registry.host}/a/b:1", f"{registry.host}/c", "1"))
    registry.hooks.append(lambda h: h.command == "HEAD" and "/v2/c/" in h.path and h.error(404, "BLOB_UNKNOWN") is None)
    said = [one.status for one in place.push(f"{registry.host}/c")]

    assert "Mounted from a/b" in said
    (mount,) = registry.asked("POST", "mount=")
    assert f"mount={digest(made.blobs[0])}&from=a/b" in mount.path


@pytest.mark.parametrize("kept", [0, 3_000_000])
def test_a_broken_upload_goes_on_from_where_the_registry_is(place: Place, registry: Registry, kept: int) -> None:
    broken: list[str] = []

    def cut(handler: Handler) -> bool:
        if handler.command == "PATCH" and not handler.headers["Content-Range"].startswith("0-") and not broken:
            broken.append(handler.path)
            name = handler.path.rpartition("/")[2].partition("?")[0]
            registry.uploads[name] += handler.rfile.read(kept)
            handler.cut()
            return True
        return False

    registry.hooks.append(cut)
    import_(place, LARGE, f"{registry.host}/a")
    place.push(f"{registry.host}/a")

    assert broken
    layer = json.loads(registry.manifests["a", "1"][1])["layers"][0]
    assert gzip.decompress(registry.blobs[layer["digest"]]) == LARGE


def test_a_whole_blob_whose_connection_breaks_is_sent_again(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", LARGE)
    place.pull(f"{registry.host}/a")
    broken: list[str] = []

    def cut(handler: Handler) -> bool:
        if handler.command == "PUT" and "/uploads/" in handler.path and not broken:
            broken.append(handler.path)
            handler.rfile.read(1000)
            handler.cut()
            return True
        return False

    with Registry() as other:
        other.hooks.append(cut)
        place.run(place.images.tag(f"{registry.host}/a:1", f"{other.host}/a", "1"))
        place.push(f"{other.host}/a")
        assert broken and other.blobs[digest(made.blobs[0])] == made.blobs[0]


def test_a_push_without_rights_is_told_and_leaves_nothing(place: Place, registry: Registry) -> None:
    import_(place, BASE, f"{registry.host}/a")
    registry.auth = "bearer"
    with pytest.raises(NotFound, match="denied: requested access to the resource is denied"):
        place.push(f"{registry.host}/a")
    wrong = base64.b64encode(b'{"username":"user","password":"wrong"}').decode()
    with pytest.raises(Unauthorized):
        place.push(f"{registry.host}/a", auth=wrong)
    assert registry.blobs == {}
    right = base64.b64encode(b'{"username":"user","password":"secret"}').decode()
    place.push(f"{registry.host}/a", auth=right)
    token = next(seen.path for seen in registry.log if seen.path.startswith("/token"))
    assert "scope=repository:a:pull,push" in token


def test_names_that_cannot_be_pushed(place: Place, registry: Registry) -> None:
    with pytest.raises(NotFound, match=f"tag does not exist: {registry.host}/a:9"):
        place.push(f"{registry.host}/a", "9")
    with pytest.raises(NotFound, match=f"An image does not exist locally with the tag: {registry.host}/a"):
        place.push(f"{registry.host}/a", "")
    with pytest.raises(InvalidRequest, match="cannot push a digest reference"):
        place.push(f"{registry.host}/a@sha256:{'a' * 64}", "")


def test_every_tag_of_a_repository_is_pushed(place: Place, registry: Registry) -> None:
    import_(place, BASE, f"{registry.host}/a")
    place.run(place.images.tag(f"{registry.host}/a:1", f"{registry.host}/a", "2"))
    place.push(f"{registry.host}/a", "")
    assert {tag for name, tag in registry.manifests if ":" not in tag} == {"1", "2"}


def test_a_registry_that_stores_something_else_is_found_out(place: Place, registry: Registry) -> None:
    import_(place, BASE, f"{registry.host}/a")
    registry.hooks.append(
        lambda h: (
            h.command == "PUT"
            and "/manifests/" in h.path
            and (h.body(), h.reply(201, Docker_Content_Digest=digest(b"other")))[1] is None
        )
    )
    with pytest.raises(Broken, match="the registry stored"):
        place.push(f"{registry.host}/a")


def test_referrers_are_listed_where_the_registry_has_no_api_for_them(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", BASE)
    empty = b"{}"
    registry.add(empty)
    content = json.dumps(
        {
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/spdx+json",
            "config": descriptor("application/vnd.oci.empty.v1+json", empty), "layers": [],
            "subject": descriptor(MANIFEST, made.manifest),
        }
    ).encode()  # fmt: skip

    async def main() -> list[oci.Descriptor]:
        from sampan.oci.reference import parse

        async with place.images.registries.uploads(parse(f"{registry.host}/a"), ANONYMOUS) as (repository, uploads):
            for _ in range(2):
                await uploads.manifest(Document(content, MANIFEST, of(content)), of(content))
            assert await repository.referrers(of(made.manifest), "other/type") == []
            return await repository.referrers(of(made.manifest))

    (found,) = place.run(main())
    assert (found.digest, found.artifact_type) == (digest(content), "application/spdx+json")
    assert ("a", made.digest.replace(":", "-")) in registry.manifests


def test_an_image_without_layers_goes_there_and_back(place: Place, registry: Registry) -> None:
    registry.image("a", "1", config=config_of())
    place.pull(f"{registry.host}/a")
    place.push(f"{registry.host}/a")
    assert place.files(f"{registry.host}/a:1") == {}
