"""--platform of verbs on images that are here: an image of another platform is not found."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from sampan.errors import InvalidRequest, NotFound
from sampan.oci import image as oci
from support.images import LAYER, config, descriptor, docker_archive, index, manifest, oci_archive
from support.places import Place, collect

ARM = json.dumps({"os": "linux", "architecture": "arm64", "variant": "v8"})
AMD = json.dumps({"os": "linux", "architecture": "amd64"})


def load(place: Place, tar: bytes, *only: str) -> Any:
    return place.run(collect(place.images.load(io.BytesIO(tar), quiet=True, only=only)))


def of_arm() -> bytes:
    return config(LAYER, architecture="arm64", variant="v8")


@pytest.mark.parametrize("text", [AMD, "linux/amd64", "amd64"])
def test_an_image_of_another_platform_is_not_found(place: Place, text: str) -> None:
    load(place, docker_archive(of_arm(), LAYER, tags=["a:1"]))
    place.run(place.images.provides(["a:1"], [ARM]))
    place.run(place.images.provides(["a:1"], [text, "linux/arm64"]))
    with pytest.raises(NotFound, match="a:1 was found but does not provide the specified platform .linux/amd64."):
        place.run(place.images.provides(["a:1"], [text]))


@pytest.mark.parametrize("text", ["{", '{"os": 1}', "a/b/c/d", "linux//", "{" * 100000, "nonsense"])
def test_what_is_no_platform_is_refused(place: Place, text: str) -> None:
    with pytest.raises(InvalidRequest):
        place.run(place.images.provides(["a:1"], [text]))


def test_only_the_platform_that_is_asked_for_is_loaded(place: Place) -> None:
    with pytest.raises(NotFound, match="does not provide"):
        load(place, docker_archive(of_arm(), LAYER, tags=["a:1"]), AMD)
    assert place.is_clean()
    load(place, docker_archive(of_arm(), LAYER, tags=["a:1"]), AMD, ARM)


def test_of_an_index_the_platform_that_is_asked_for_is_loaded(place: Place) -> None:
    here, there = config(LAYER), of_arm()
    manifests = [manifest(one, LAYER) for one in (here, there)]
    entries = [
        descriptor(one, oci.OCI_MANIFEST, platform={"os": "linux", "architecture": machine})
        for one, machine in zip(manifests, ("amd64", "arm64"), strict=True)
    ]
    inner = json.dumps(index(*entries)).encode()
    name = {"org.opencontainers.image.ref.name": "multi:1"}
    tar = oci_archive(index(descriptor(inner, oci.OCI_INDEX, annotations=name)), inner, here, there, LAYER, *manifests)
    load(place, tar, "linux/arm64")
    assert place.images.resolve("multi:1").architecture == "arm64"
