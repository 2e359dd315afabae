"""The verbs on images, on a data root of their own."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.engine.images.images import Images
from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.oci import image as oci
from sampan.oci.digest import Digest, encoded, of
from sampan.state import State
from sampan.storage.overlay import Overlay
from sampan.wire.images import Progress
from support.images import LAYER, TOP, config, descriptor, docker_archive, index, manifest, oci_archive
from support.tars import archive, directory, member, symlink


class Place:
    """Images on a data root, with the containers a test pretends there are, and the events seen."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = State(root)
        self.layers = Overlay(root, self.state)
        self.users: dict[str, list[tuple[str, bool]]] = {}
        self.events: list[tuple[str, str]] = []
        self.images = Images(root, self.state, self.layers, in_use=lambda i: self.users.get(i, []), emit=self._emit)

    def _emit(self, kind: str, action: str, actor: str, attributes: Any) -> None:
        assert kind == "image"
        self.events.append((action, attributes.get("name", "")))

    def load(self, tar: bytes, *, quiet: bool = True) -> list[Progress]:
        return run(collect(self.images.load(io.BytesIO(tar), quiet=quiet)))

    def import_(self, tar: bytes, **wanted: Any) -> str:
        given = {"repo": "", "tag": "", "message": "", "changes": [], "platform": "", **wanted}
        return run(collect(self.images.import_(io.BytesIO(tar), **given)))[-1].status

    def save(self, *refs: str) -> bytes:
        return b"".join(run(collect(self.images.save(list(refs)))))

    def is_empty(self) -> bool:
        folders = ("content/ingest", "content/blobs/sha256", "layers/sha256", "layers/tmp")
        return not any(os.listdir(self.root / folder) for folder in folders) and not self.images.catalogue.all()


def run(work: Any) -> Any:
    return asyncio.run(work)


async def collect(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.layers.close()
    made.state.close()


# Load


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_an_archive_loads_in_any_compression_outside_and_inside(place: Place, squeeze: Any) -> None:
    document = config(LAYER, TOP)
    said = place.load(squeeze(docker_archive(document, squeeze(LAYER), squeeze(TOP), tags=["app:1", "app:2"])))

    assert [message.stream for message in said] == ["Loaded image: app:1\n", "Loaded image: app:2\n"]
    image = place.images.resolve("app:1")
    assert image.id == of(document) and image.size == 7 and image.config.cmd == ["sh"]
    assert ("load", image.id) in place.events and ("tag", "app:1") in place.events
    again = saved_and_loaded(place)
    assert again == image.id


def saved_and_loaded(place: Place) -> str:
    """Save, remove, load: the same image again."""
    saved = place.save("app")
    run(place.images.remove("app:1", force=False, prune=True))
    run(place.images.remove("app:2", force=False, prune=True))
    assert place.is_empty()
    place.load(saved)
    return place.images.resolve("app:2").id


def test_an_untagged_image_is_named_by_its_id(place: Place) -> None:
    assert place.load(docker_archive(config(LAYER), LAYER))[0].stream == f"Loaded image ID: {of(config(LAYER))}\n"


def test_a_tag_moves_and_the_loser_dangles(place: Place) -> None:
    place.load(docker_archive(config(LAYER), LAYER, tags=["a:1"]))
    said = place.load(docker_archive(config(TOP), TOP, tags=["a:1"]))

    assert said[0].stream.startswith("The image a:1 already exists, renaming the old one with ID sha256:")
    assert len(run(place.images.list(all=False, filters={"dangling": ("true",)}, shared_size=False))) == 1


def test_progress_is_told_unless_quiet(place: Place) -> None:
    said = place.load(docker_archive(config(LAYER), LAYER), quiet=False)
    assert said[0].status == "Loading layer" and said[0].id == of(LAYER)[7:19]


def test_the_old_layout_with_links_loads(place: Place) -> None:
    table = [{"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["one/layer.tar", "two/layer.tar"]}]
    tar = archive(
        directory("one/"), member("one/VERSION", content=b"1.0"), member("one/layer.tar", content=LAYER),
        symlink("two/layer.tar", "../one/layer.tar"), member("c.json", content=config(LAYER, LAYER)),
        member("manifest.json", content=json.dumps(table).encode()),
    )  # fmt: skip
    place.load(tar)
    assert len(place.images.resolve("old:1").chain_ids) == 2


def test_an_oci_layout_gives_the_image_for_this_machine(place: Place) -> None:
    mine, other = config(LAYER), config(TOP, architecture="other")
    one, two = manifest(mine, LAYER), manifest(other, TOP)
    inner = json.dumps(index(
        descriptor(two, oci.OCI_MANIFEST, platform={"os": "linux", "architecture": "nothere"}),
        descriptor(one, oci.OCI_MANIFEST, platform={"os": "unknown", "architecture": "unknown"}),
        descriptor(one, oci.OCI_MANIFEST),
    )).encode()  # fmt: skip
    name = {"io.containerd.image.name": "docker.io/library/app:3"}
    place.load(oci_archive(index(descriptor(inner, oci.OCI_INDEX, annotations=name)), inner, one, two, mine, other, LAYER, TOP))

    assert place.images.resolve("app:3").id == of(mine)


@pytest.mark.parametrize(
    ("tar", "words"),
    [
        (archive(member("x", content=b"y")), "does not contain a manifest.json"),
        (archive(member("manifest.json", content=b"null")), r"manifest cannot be null \(but can be \[\]\)"),
        (oci_archive(index(), version="2"), "unsupported OCI version 2"),
        (archive(member("oci-layout", content=b'{"imageLayoutVersion":"1.0.0"}')), "missing index.json in OCI layout 1.0.0"),
        (docker_archive(config(LAYER), LAYER, TOP), "layers length mismatch: expected 1, got 2"),
        (docker_archive(config(LAYER), TOP), f'invalid diffID for layer 0: expected "{of(LAYER)}", got "{of(TOP)}"'),
        (docker_archive(config(LAYER), LAYER, tags=["../x:1"]), "invalid reference format"),
        (docker_archive(config(LAYER), LAYER, tags=["UP:1"]), "must be lowercase"),
        (docker_archive(config(LAYER), LAYER, Config="../../etc/passwd"), "is missing"),
        (docker_archive(config(LAYER, os="windows"), LAYER), "windows"),
        (archive(member("../x", content=b"y")), "invalid archive"),
        (archive(symlink("a/layer.tar", "../../../etc/passwd")), "points out of the archive"),
        (docker_archive(config(LAYER, TOP), LAYER, TOP[:600]), "layer 1"),
        (docker_archive(config(LAYER), LAYER)[:-9000], "invalid archive"),
        (b"", "manifest.json|empty|invalid"),
        (gzip.compress(LAYER)[:-4], "invalid archive"),
    ],
)
def test_a_bad_archive_is_refused_and_leaves_nothing(place: Place, tar: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        place.load(tar)
    assert place.is_empty()


def test_row_47_48_blobs_of_a_layout_have_the_content_of_their_names(place: Place) -> None:
    document = config(LAYER)
    good = manifest(document, LAYER)
    both = json.dumps(json.loads(good) | {"manifests": []}).encode()
    wrong = descriptor(good, oci.OCI_MANIFEST) | {"digest": of(b"other")}
    cases = [
        oci_archive(index(descriptor(both, oci.OCI_MANIFEST)), both, document, LAYER),
        oci_archive(index(descriptor(good, oci.OCI_INDEX)), good, document, LAYER),
        oci_archive(index(descriptor(good, oci.OCI_MANIFEST) | {"size": 7}), good, document, LAYER),
        oci_archive(index(wrong | {"digest": "sha256:../../x"}), good, document, LAYER),
        oci_archive(index(descriptor(good, oci.OCI_MANIFEST)), good, document),
        oci_archive(index(descriptor(good, oci.OCI_MANIFEST)), good, document, LAYER)
        .replace(encoded(of(LAYER)).encode(), b"0" * 64),
    ]  # fmt: skip
    for tar in cases:
        with pytest.raises(InvalidRequest):
            place.load(tar)
        assert place.is_empty()


def test_row_53_an_index_of_indexes_ends_soon(place: Place) -> None:
    level = json.dumps(index()).encode()
    blobs = []
    for _ in range(30):
        blobs.append(level)
        level = json.dumps(index(*[descriptor(level, oci.OCI_INDEX)] * 2)).encode()
    begun = time.perf_counter()
    with pytest.raises(InvalidRequest):
        place.load(oci_archive(index(descriptor(level, oci.OCI_INDEX)), level, *blobs))
    assert time.perf_counter() - begun < 2 and place.is_empty()


def test_row_54_a_bomb_is_refused_within_its_budget(place: Place) -> None:
    info = tarfile.TarInfo("zeros")
    info.size = 3 << 30
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as bomb:
        bomb.write(info.tobuf())
        for _ in range(1 << 6):
            bomb.write(bytes(1 << 20))
    with pytest.raises(InvalidRequest, match="more than"):
        place.load(docker_archive(config(LAYER), out.getvalue()))
    assert place.is_empty()


def test_all_or_nothing_is_per_image(place: Place) -> None:
    table = [
        {"Config": "a.json", "RepoTags": ["a:1"], "Layers": ["l"]},
        {"Config": "b.json", "RepoTags": ["b:1"], "Layers": ["l"]},
    ]
    tar = archive(
        member("l", content=LAYER), member("a.json", content=config(LAYER)), member("b.json", content=config(TOP)),
        member("manifest.json", content=json.dumps(table).encode()),
    )  # fmt: skip
    with pytest.raises(InvalidRequest):
        place.load(tar)
    assert [image.id for image in place.images.catalogue.all()] == [of(config(LAYER))]
    with pytest.raises(NotFound):
        place.images.resolve("b:1")


def test_a_load_whose_client_went_away_leaves_nothing(place: Place) -> None:
    async def leave() -> None:
        tar = docker_archive(config(LAYER), LAYER, tags=[f"a:{n}" for n in range(100)])
        stream = place.images.load(io.BytesIO(tar), quiet=False)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    run(leave())
    assert not place.images.catalogue.tags() or len(place.images.catalogue.tags()) < 100
    assert os.listdir(place.root / "content/ingest") == [] == os.listdir(place.root / "layers/tmp")


def test_row_55_labels_of_an_image_are_only_data(place: Place) -> None:
    labels = {"sampan.userns": "host", "com.docker.x": "1", "containerd.io/y": "2", "org.opencontainers.image.z": "3"}
    place.load(docker_archive(config(LAYER, labels=labels), LAYER, tags=["l:1"]))
    place.load(docker_archive(config(LAYER), LAYER, tags=["n:1"]))
    with_labels, without = place.images.resolve("l:1"), place.images.resolve("n:1")

    assert with_labels.config.labels == labels
    assert with_labels.chain_ids == without.chain_ids and with_labels.config.cmd == without.config.cmd


# Lists, tags, removal


def test_filters_choose_images(place: Place) -> None:
    place.load(docker_archive(config(LAYER, labels={"k": "v"}), LAYER, tags=["a/one:1", "two:1"]))
    place.load(docker_archive(config(TOP, created="2025-01-01T00:00:00Z"), TOP, tags=["three:1"]))

    def names(**filters: str) -> list[list[str]]:
        given = {key: (value,) for key, value in filters.items()}
        return [image.repo_tags for image in run(place.images.list(all=False, filters=given, shared_size=True))]

    assert names() == [["three:1"], ["a/one:1", "two:1"]]
    assert names(label="k") == names(label="k=v") == [["a/one:1", "two:1"]] and names(label="k=w") == []
    assert names(reference="*one*") == [] and names(reference="*/one") == [["a/one:1"]] == names(reference="a/one:1")
    assert names(reference="t*") == [["three:1"], ["two:1"]]
    assert names(since="two:1") == names(until="2099-01-01")[:1] == [["three:1"]]
    assert names(before="three:1") == names(until="1720000000") == [["a/one:1", "two:1"]]
    assert names(dangling="1") == []
    for bad in ({"x": "y"}, {"dangling": "maybe"}, {"until": "never"}):
        with pytest.raises(InvalidRequest):
            names(**bad)


def test_history_and_inspection_tell_what_the_image_is(place: Place) -> None:
    place.load(docker_archive(config(LAYER, TOP), LAYER, TOP, tags=["a:1"]))
    steps = run(place.images.history("a:1"))
    seen = run(place.images.inspect("a:1"))

    assert [(step.created_by, step.size) for step in steps] == [("step 1", 3), ("step 0", 4)]
    assert steps[0].id == seen.id and steps[0].tags == ["a:1"] and steps[1].id == "<missing>"
    assert seen.root_fs.layers == [of(LAYER), of(TOP)] and seen.created == "2024-01-02T03:04:05Z" and seen.size == 7


def test_removal_untags_first_and_deletes_with_the_last_name(place: Place) -> None:
    place.load(docker_archive(config(LAYER), LAYER, tags=["a:1"]))
    run(place.images.tag("a:1", "b/c", ""))
    image = place.images.resolve("b/c").id
    words = r"unable to delete \w{12} \(must be forced\) - image is referenced in multiple repositories"
    with pytest.raises(Conflict, match=words):
        run(place.images.remove(image, force=False, prune=True))

    assert [gone.untagged for gone in run(place.images.remove("a:1", force=False, prune=True))] == ["a:1"]
    done = run(place.images.remove(image[7:19], force=False, prune=True))
    assert [(gone.untagged, gone.deleted) for gone in done] == [("b/c:latest", ""), ("", image), ("", of(LAYER))]
    assert place.is_empty() and place.events[-2:] == [("untag", "b/c:latest"), ("delete", image)]


def test_what_containers_use_is_kept_in_dockers_words(place: Place) -> None:
    place.load(docker_archive(config(LAYER), LAYER, tags=["a:1"]))
    image, short = of(config(LAYER)), of(config(LAYER))[7:19]
    container = "c" * 64
    by = "image is being used by"
    cases = [
        (False, "a:1", False, f'unable to remove repository reference "a:1" \\(must force\\) - container {"c" * 12} is using '
                              f"its referenced image {short}"),
        (False, image, False, f"unable to delete {short} \\(must be forced\\) - {by} stopped container {'c' * 12}"),
        (True, image, True, f"unable to delete {short} \\(cannot be forced\\) - {by} running container {'c' * 12}"),
    ]  # fmt: skip
    for running, ref, force, words in cases:
        place.users = {image: [(container, running)]}
        with pytest.raises(Conflict, match=f"conflict: {words}"):
            run(place.images.remove(ref, force=force, prune=True))
    place.users = {image: [(container, False)]}
    run(place.images.remove("a:1", force=True, prune=True))
    with pytest.raises(NotFound, match="No such image: a:1"):
        run(place.images.remove("a:1", force=True, prune=True))


def test_a_snapshot_keeps_the_layers_of_a_removed_image(place: Place) -> None:
    place.load(docker_archive(config(LAYER), LAYER, tags=["a:1"]))
    place.layers.prepare("c1", place.images.resolve("a:1").chain_ids)
    run(place.images.remove("a:1", force=True, prune=True))

    place.layers.mount("c1").close()
    place.layers.remove("c1")
    assert place.images.sweep() == [f"layer {of(LAYER)} of no image"] and place.is_empty()


def test_prune_takes_what_dangles_or_is_unused(place: Place) -> None:
    place.load(docker_archive(config(LAYER), LAYER))
    place.load(docker_archive(config(TOP), TOP, tags=["a:1"]))
    result = run(place.images.prune({}))
    assert result.space_reclaimed == 4 and next(d.deleted for d in result.images_deleted) == of(config(LAYER))

    place.users = {of(config(TOP)): [("c", False)]}
    assert run(place.images.prune({"dangling": ("false",)})).images_deleted is None
    place.users = {}
    assert len(run(place.images.prune({"dangling": ("false",)})).images_deleted) == 3 and place.is_empty()


# Import, save


def test_import_makes_one_layer_with_the_changes(place: Place) -> None:
    changes = [
        'CMD ["a", "b"]', "ENTRYPOINT run it", 'ENV A=1 B="2 3"', "ENV A 4 5", "EXPOSE 80 90/udp", "LABEL k=v", "USER u:g",
        'VOLUME ["/v"]', "WORKDIR /a", "WORKDIR ../b/c", "STOPSIGNAL SIGRTMIN+3", "ONBUILD RUN x",
        "HEALTHCHECK --interval=1m30s --retries=2 CMD true",
    ]  # fmt: skip
    image = place.import_(gzip.compress(LAYER), repo="i", tag="1", message="why", changes=changes, platform="linux/arm64/v8")
    seen = run(place.images.inspect("i:1"))
    c = seen.config

    assert seen.id == image and seen.comment == "why" and (seen.architecture, seen.variant) == ("arm64", "v8")
    assert seen.root_fs.layers == [of(LAYER)] and c is not None
    assert (c.cmd, c.entrypoint) == (["a", "b"], ["/bin/sh", "-c", "run it"])
    assert (c.env, c.labels, c.user, c.volumes) == (["B=2 3", "A=4 5"], {"k": "v"}, "u:g", {"/v": {}})
    assert (c.working_dir, c.stop_signal, c.on_build) == ("/b/c", "SIGRTMIN+3", ["RUN x"])
    assert c.exposed_ports == {"80/tcp": {}, "90/udp": {}} and c.healthcheck.test == ["CMD-SHELL", "true"]
    assert c.healthcheck.interval == 90 * 10**9 and c.healthcheck.retries == 2


@pytest.mark.parametrize(
    "wanted",
    [{"changes": ["RUN x"]}, {"changes": ["CMD"]}, {"changes": ["EXPOSE 99999"]}, {"changes": ["ENV =x"]}, {"repo": "UP"},
     {"repo": "a", "tag": "b c"}, {"platform": "windows/amd64"}, {"platform": "linux/a b"}, {"changes": ["USER a\0b"]}],
)  # fmt: skip
def test_an_import_that_asks_for_nonsense_leaves_nothing(place: Place, wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        place.import_(LAYER, **wanted)
    assert place.is_empty()
    for bad in (b"", b"x" * 5000, LAYER[:700]):
        with pytest.raises(InvalidRequest):
            place.import_(bad)
        assert place.is_empty()


def test_the_same_images_are_saved_as_the_same_bytes(place: Place) -> None:
    place.load(docker_archive(config(LAYER), LAYER, tags=["a:1"]))
    place.load(docker_archive(config(LAYER, TOP), LAYER, TOP, tags=["a:2", "b:1"]))
    saved = place.save("a", "b:1")

    assert saved == place.save("a", "b:1")
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        table = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert {entry.mtime for entry in tar} == {0}
    assert [item["RepoTags"] for item in table] == [["a:1"], ["a:2", "b:1"]]
    untagged = place.save(of(config(LAYER)))
    with tarfile.open(fileobj=io.BytesIO(untagged)) as tar:
        assert json.loads(tar.extractfile("manifest.json").read())[0]["RepoTags"] is None  # type: ignore[union-attr]
    with pytest.raises(NotFound, match="No such image: none:latest"):
        place.save("none")


def test_a_busybox_is_made_without_a_registry(place: Place) -> None:
    said = run(collect(place.images.bootstrap("busybox", tag="")))
    image = place.images.resolve("busybox")

    assert said[-1].status == image.id and image.config.cmd == ["sh"]
    root = place.layers.diff(image.chain_ids[-1])
    assert (root / "bin/sh").readlink() == Path("/bin/busybox") and (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    again = Digest(run(collect(place.images.bootstrap("busybox", tag="other:1")))[-1].status)
    assert again == image.id


@pytest.mark.parametrize("recipe", ["", "alpine", "busybox:1", "debian:../x", "debian:-x", "debian:$(id)"])
def test_an_unknown_recipe_is_refused(place: Place, recipe: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown recipe"):
        run(collect(place.images.bootstrap(recipe, tag="")))


def test_slow_clients_of_save_hold_nobody_else_up(place: Place) -> None:
    big = archive(member("big", content=os.urandom(40 << 20)))
    place.load(docker_archive(config(big), big, tags=["big:1"]))

    async def crowd() -> None:
        slow = [place.images.save(["big:1"]) for _ in range(40)]
        for stream in slow:
            await anext(stream)
        await asyncio.wait_for(place.images.inspect("big:1"), 5)
        for stream in slow:
            await stream.aclose()  # type: ignore[attr-defined]

    run(crowd())
