"""Manifests, indexes and configurations are read in one way or not at all."""

from __future__ import annotations

import json
import time

import pytest

from sampan.errors import InvalidRequest
from sampan.oci import image
from sampan.oci.digest import of

DESCRIPTOR = {"mediaType": image.OCI_CONFIG, "digest": of(b"x"), "size": 1}
MANIFEST = {"schemaVersion": 2, "mediaType": image.OCI_MANIFEST, "config": DESCRIPTOR, "layers": [DESCRIPTOR]}
INDEX = {"schemaVersion": 2, "mediaType": image.OCI_INDEX, "manifests": [DESCRIPTOR]}


def read(value: object, media_type: str = image.OCI_MANIFEST) -> image.Manifest | image.Index:
    return image.read_manifest(json.dumps(value).encode(), media_type, "test")


def test_manifest_and_index_are_read_by_their_type() -> None:
    assert isinstance(read(MANIFEST), image.Manifest)
    assert isinstance(read(INDEX, image.OCI_INDEX), image.Index)


@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        (MANIFEST | {"manifests": [DESCRIPTOR]}, image.OCI_MANIFEST),
        (INDEX | {"layers": []}, image.OCI_INDEX),
        (INDEX | {"config": DESCRIPTOR}, image.OCI_INDEX),
        (MANIFEST, image.OCI_INDEX),
        (INDEX, image.OCI_MANIFEST),
        ({k: v for k, v in INDEX.items() if k != "mediaType"}, image.OCI_MANIFEST),
        (MANIFEST | {"schemaVersion": 1}, image.OCI_MANIFEST),
        (MANIFEST, "text/plain"),
        ([], image.OCI_MANIFEST),
    ],
)
def test_row_47_a_document_that_could_be_two_things_is_refused(value: object, media_type: str) -> None:
    with pytest.raises(InvalidRequest):
        read(value, media_type)


def test_row_49_ambiguous_json_is_refused_fast() -> None:
    corpus = [
        b'{"a":1,"a":2}', b'{"x":{"a":1,"a":2}}', b"[NaN]", b"[Infinity]", b"[" * 100_000, b"[" * 70 + b"]" * 70,
        b'{"a":' * 100_000, b"9" * 1_000_000, b"\xff", b"", b'"\\ud800"', b"[1,", b" " * (image.MAX_DOCUMENT + 1),
        b"[" + b"[]," * 1_000_000 + b"[]]",
    ]  # fmt: skip
    for content in corpus:
        begun = time.process_time()
        with pytest.raises(InvalidRequest):
            image.strict(content, "test")
        assert time.process_time() - begun < 0.1


def test_row_49_a_key_in_other_letters_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="letters"):
        read(MANIFEST | {"Layers": []})


def test_null_is_absent_and_unknown_is_ignored() -> None:
    content = b'{"architecture":"amd64","os":"linux","author":null,"config":null,"rootfs":{"type":"layers","diff_ids":null},"x":1}'
    config = image.decode(content, image.ImageConfig, "test")

    assert config.diff_ids() == () and config.author == "" and config.config is None


@pytest.mark.parametrize("rootfs", [{"type": "other"}, {"type": "layers", "diff_ids": ["sha256:../x"]},
                                    {"type": "layers", "diff_ids": [of(b"x")] * 1001}])  # fmt: skip
def test_a_configuration_with_impossible_layers_is_refused(rootfs: dict[str, object]) -> None:
    content = json.dumps({"architecture": "a", "os": "linux", "rootfs": rootfs}).encode()
    with pytest.raises(InvalidRequest):
        image.decode(content, image.ImageConfig, "test").diff_ids()
