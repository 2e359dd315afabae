"""An image keeps the manifest that it came with: annotations, signatures and digests survive a pull, an archive and a push."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.oci import image as oci
from sampan.oci.digest import Digest
from support.images import LAYER, TOP, config, descriptor, docker_archive, index, manifest, oci_archive
from support.places import Place, collect
from support.registry import DOCKER, INDEX, MANIFEST, Registry, digest
from support.tars import archive, member

SIGNATURE = "application/vnd.example.signature+json"
SIGNED = {"org.example.built-by": "somebody"}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


def attached(subject: bytes, size: int = 100, kind: str = SIGNATURE) -> tuple[bytes, tuple[bytes, bytes]]:
    """Return a manifest that attaches something to the manifest `subject`, and its blobs."""
    blobs = (b"{}", b"s" * size)
    value = {
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": descriptor(blobs[0], oci.EMPTY_CONFIG),
        "layers": [descriptor(blobs[1], kind)], "subject": descriptor(subject, MANIFEST),
    }  # fmt: skip
    return json.dumps(value).encode(), blobs


def sign(registry: Registry, repository: str, subject: bytes, kind: str = SIGNATURE) -> bytes:
    """Attach a signature where the registry has no API for it: under the tag that stands in."""
    content, blobs = attached(subject, kind=kind)
    for blob in blobs:
        registry.add(blob)
    registry.put(repository, content, MANIFEST)
    registry.index(repository, digest(subject).replace(":", "-"), descriptor(content, MANIFEST, artifactType=kind))
    return content


def load(place: Place, tar: bytes) -> None:
    place.run(collect(place.images.load(io.BytesIO(tar), quiet=True)))


def save(place: Place, ref: str) -> tuple[bytes, dict[str, bytes]]:
    saved = b"".join(place.run(collect(place.images.save([ref]))))
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        return saved, {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]


def test_annotations_and_signatures_survive_pull_save_load_and_push(place: Place, other: Place, registry: Registry) -> None:
    made = registry.image("a", "1", LAYER, TOP, annotations=SIGNED)
    signature = sign(registry, "a", made.manifest)
    place.pull(f"{registry.host}/a")
    saved, files = save(place, f"{registry.host}/a:1")
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == made.digest and files["blobs/" + made.digest.replace(":", "/")] == made.manifest

    load(other, saved)
    assert save(other, f"{registry.host}/a:1")[0] == saved
    with Registry() as second:
        other.run(other.images.tag(f"{registry.host}/a:1", f"{second.host}/b", "1"))
        other.push(f"{second.host}/b")
        assert second.manifests["b", "1"] == (MANIFEST, made.manifest)
        assert second.manifests["b", digest(signature)] == (MANIFEST, signature)
        (listed,) = json.loads(second.manifests["b", made.digest.replace(":", "-")][1])["manifests"]
        assert (listed["digest"], listed["artifactType"]) == (digest(signature), SIGNATURE)


def test_a_layout_of_another_tool_keeps_its_manifest(place: Place, registry: Registry) -> None:
    """Here with layers that are stored plain: a push compresses them, and what was signed is not what is pushed."""
    document = config(LAYER)
    content = json.dumps({**json.loads(manifest(document, LAYER)), "annotations": SIGNED}).encode()
    signature, blobs = attached(content)
    entry = descriptor(content, oci.OCI_MANIFEST, annotations={"io.containerd.image.name": f"{registry.host}/a:1"})
    tar = oci_archive(index(entry, descriptor(signature, MANIFEST)), content, document, LAYER, signature, *blobs)
    load(place, tar)
    image = place.images.resolve(f"{registry.host}/a:1").id
    assert place.images.catalogue.get(image).manifest == digest(content)
    _, files = save(place, f"{registry.host}/a:1")
    assert json.loads(files["index.json"])["manifests"][0]["digest"] == digest(content)
    assert files["blobs/" + digest(signature).replace(":", "/")] == signature

    said = [one.status for one in place.push(f"{registry.host}/a")]
    assert f"{SIGNATURE} was not pushed: it holds for {digest(content)} only" in said
    assert not [name for name in registry.manifests if name[1] == digest(signature)]


def test_an_image_of_another_manifest_is_not_signed_by_it(place: Place, registry: Registry) -> None:
    registry.image("a", "1", LAYER)
    place.pull(f"{registry.host}/a")
    (record,) = place.images.catalogue.all()
    place.images.catalogue.forget(record.id)
    again = registry.image("b", "1", LAYER, annotations=SIGNED)  # the same image as another manifest has it
    sign(registry, "b", again.manifest)
    place.pull(f"{registry.host}/a")
    place.pull(f"{registry.host}/b")
    assert place.images.catalogue.referrers(record.id) == ()


def test_of_several_platforms_the_manifest_of_the_one_that_is_meant_is_kept(place: Place) -> None:
    """As engines with containerd's store save: index.json names an index, manifest.json the platform that is preferred."""
    documents = [config(layer, architecture=name) for layer, name in ((TOP, "arm64"), (LAYER, "amd64"))]
    manifests = [manifest(documents[0], TOP), manifest(documents[1], LAYER)]
    inner = json.dumps(index(*(descriptor(one, MANIFEST) for one in manifests))).encode()
    table = [{"Config": f"blobs/sha256/{digest(documents[1])[7:]}", "RepoTags": ["a:1"],
              "Layers": [f"blobs/sha256/{digest(LAYER)[7:]}"]}]  # fmt: skip
    files = {f"blobs/sha256/{digest(one)[7:]}": one for one in (inner, *manifests, *documents, LAYER, TOP)}
    files["index.json"] = json.dumps(index(descriptor(inner, INDEX))).encode()
    files |= {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "manifest.json": json.dumps(table).encode()}
    load(place, archive(*(member(name, content=content) for name, content in files.items())))
    (record,) = place.images.catalogue.all()
    assert (record.id, record.manifest) == (digest(documents[1]), digest(manifests[1]))


@pytest.mark.parametrize(("parts", "size"), [(1, oci.MAX_DOCUMENT + 1), (5, 10)])
def test_what_is_attached_and_too_large_stays_behind(place: Place, registry: Registry, parts: int, size: int) -> None:
    document = config(LAYER)
    content = manifest(document, LAYER)
    signature, blobs = attached(content, size)
    value = json.loads(signature)
    signature = json.dumps({**value, "layers": value["layers"] * parts}).encode()
    tar = oci_archive(
        index(descriptor(content, MANIFEST), descriptor(signature, MANIFEST)), content, document, LAYER, signature, *blobs
    )
    load(place, tar)
    (record,) = place.images.catalogue.all()
    assert place.images.catalogue.referrers(record.id) == ()


def test_dockers_manifests_are_saved_as_the_oci_has_them(place: Place, registry: Registry) -> None:
    registry.image("a", "1", LAYER, kind=DOCKER, layer_type=f"{oci.DOCKER_LAYER}.gzip")
    place.pull(f"{registry.host}/a")
    _, files = save(place, f"{registry.host}/a:1")
    (entry,) = json.loads(files["index.json"])["manifests"]
    body = json.loads(files["blobs/" + entry["digest"].replace(":", "/")])
    assert [entry["mediaType"], body["layers"][0]["mediaType"]] == [MANIFEST, f"{oci.OCI_LAYER}+gzip"]


def test_layers_named_by_sha512_are_saved_and_loaded(place: Place, other: Place, registry: Registry) -> None:
    made = registry.image("a", "1", LAYER)
    body: dict[str, Any] = json.loads(made.manifest)
    name = "sha512:" + hashlib.sha512(made.blobs[0]).hexdigest()
    body["layers"][0]["digest"] = name
    registry.blobs[name] = made.blobs[0]
    registry.put("a", json.dumps(body).encode(), MANIFEST, "1")
    place.pull(f"{registry.host}/a")
    saved, files = save(place, f"{registry.host}/a:1")
    assert files["blobs/" + name.replace(":", "/")] == made.blobs[0]
    load(other, saved)
    assert other.files(f"{registry.host}/a:1") == place.files(f"{registry.host}/a:1") == {"etc/a": "base"}


@pytest.mark.parametrize("how", ["pull", "load", "import"])
def test_a_layer_is_on_the_disk_before_any_record_names_it(
    place: Place, registry: Registry, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    done: list[str] = []

    def watch(holder: Any, name: str, what: str) -> None:
        inner = getattr(holder, name)
        monkeypatch.setattr(holder, name, lambda *given: (done.append(what), inner(*given))[1])

    watch(place.layers._syncs, "sync", "sync")
    watch(place.layers._layer_records, "put", "layer")
    watch(place.images.catalogue._kept, "put", "kept")
    watch(place.images.catalogue._images, "put", "image")
    if how == "pull":
        registry.image("a", "1", LAYER)
        place.pull(f"{registry.host}/a")
    elif how == "load":
        load(place, docker_archive(config(LAYER), LAYER, tags=["a:1"]))
    else:
        more = {"tag": "1", "message": "", "changes": [], "platform": ""}
        place.run(collect(place.images.import_(io.BytesIO(LAYER), repo="a", **more)))
    assert done == ["sync", "layer", *(["kept"] if how == "pull" else []), "image"]


def test_a_list_opens_no_configuration(place: Place) -> None:
    document = config(LAYER, labels={"a": "b"})
    content = manifest(document, LAYER)
    load(place, oci_archive(index(descriptor(content, MANIFEST)), content, document, LAYER))
    place.again()
    place.images.blobs.delete(Digest(digest(document)))
    (one,) = place.run(place.images.list(all=False, filters={}, shared_size=False))
    assert (one.labels, one.created) == ({"a": "b"}, 1704164645)
    place.run(place.images.prune({"dangling": ("false",), "label": ("a=b",)}))  # and a damaged image can be taken away
    assert place.is_clean()


def test_records_without_facts_are_listed_all_the_same(place: Place) -> None:
    document = config(LAYER, labels={"a": "b"})
    load(place, oci_archive(index(descriptor(manifest(document, LAYER), MANIFEST)), manifest(document, LAYER), document, LAYER))
    place.state.write("UPDATE records SET body = json_remove(body, '$.facts') WHERE kind = 'image'")
    (one,) = place.run(place.images.list(all=False, filters={}, shared_size=False))
    assert (one.labels, one.created) == ({"a": "b"}, 1704164645)


def test_a_list_tells_the_manifest_of_each_image(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", LAYER, config=config(LAYER, architecture="arm64", variant="v9"))
    place.pull(f"{registry.host}/a", platform="linux/arm64/v9")
    load(place, docker_archive(config(TOP), TOP, tags=["b:1"]))
    found = {
        one.repo_tags[0]: one for one in place.run(place.images.list(all=False, filters={}, shared_size=False, manifests=True))
    }
    (one,), (other,) = (found[name].manifests for name in (f"{registry.host}/a:1", "b:1"))
    content = sum(map(len, (made.manifest, made.config, *made.blobs)))
    assert (one.id, one.size.content, one.size.total) == (made.digest, content, content + found[f"{registry.host}/a:1"].size)
    assert (one.image_data.platform.architecture, one.image_data.platform.variant) == ("arm64", "v9")
    _, files = save(place, "b:1")
    assert json.loads(files["index.json"])["manifests"][0]["digest"] == other.id == other.descriptor.digest


def test_an_index_is_kept_as_the_name_and_one_platform_as_the_image(place: Place, registry: Registry) -> None:
    made = registry.image("a", "amd", LAYER)
    listed = registry.index("a", "1", descriptor(made.manifest, MANIFEST, platform={"os": "linux", "architecture": "amd64"}))
    place.pull(f"{registry.host}/a", digest(listed), platform="linux/amd64")
    image = place.images.resolve(f"{registry.host}/a@{digest(listed)}")
    assert place.images.catalogue.get(Digest(image.id)).manifest == made.digest
    assert registry.manifests["a", "1"][0] == INDEX
