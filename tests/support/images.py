"""Archives of images, made by hand: docker-save's and OCI layouts, right ones and wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sampan.content.blobs import Blobs
from sampan.content.images import Catalogue, ImageRecord, LayerRef
from sampan.oci import image as oci
from sampan.oci.digest import encoded, of
from sampan.oci.reference import parse
from sampan.state import State
from support.tars import archive, directory, member

LAYER = archive(directory("etc/"), member("etc/a", content=b"base"))
TOP = archive(directory("etc/"), member("etc/b", content=b"top"))


def config(*layers: bytes, labels: dict[str, str] | None = None, **more: Any) -> bytes:
    steps = [{"created": "2024-01-02T03:04:05Z", "created_by": f"step {n}"} for n in range(len(layers))]
    return json.dumps(
        {"architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z", "config": {"Labels": labels, "Cmd": ["sh"]},
         "rootfs": {"type": "layers", "diff_ids": [of(layer) for layer in layers]}, "history": steps, **more}
    ).encode()  # fmt: skip


def docker_archive(document: bytes, *layers: bytes, tags: list[str] | None = None, **more: Any) -> bytes:
    table = [{"Config": "c.json", "RepoTags": tags, "Layers": [f"{n}/layer.tar" for n in range(len(layers))], **more}]
    files = [member(f"{n}/layer.tar", content=layer) for n, layer in enumerate(layers)]
    return archive(*files, member("c.json", content=document), member("manifest.json", content=json.dumps(table).encode()))


def oci_archive(index: object, *blobs: bytes, version: str = "1.0.0") -> bytes:
    return archive(
        member("oci-layout", content=json.dumps({"imageLayoutVersion": version}).encode()),
        member("index.json", content=json.dumps(index).encode()),
        *(member(f"blobs/sha256/{encoded(of(blob))}", content=blob) for blob in blobs),
    )


def descriptor(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": of(content), "size": len(content), **more}


def manifest(document: bytes, *layers: bytes) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": oci.OCI_MANIFEST, "config": descriptor(document, oci.OCI_CONFIG),
         "layers": [descriptor(layer, oci.OCI_LAYER) for layer in layers]}
    ).encode()  # fmt: skip


def index(*manifests: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": list(manifests)}


def crowd(data_root: Path, images: int, tags: int) -> None:
    """Fill a data root with images of one layer that is not there, each with names of its own."""
    state = State(data_root)
    blobs = Blobs(data_root)
    catalogue = Catalogue(state, blobs)
    layer = LayerRef(
        diff_id=of(LAYER), chain_id=of(LAYER), blob=of(LAYER), blob_size=len(LAYER), size=4, media_type=oci.OCI_LAYER
    )  # fmt: skip
    try:
        with state.batch():
            for number in range(images):
                with blobs.ingest() as ingest:
                    ingest.write(config(LAYER, labels={"n": str(number)}))
                    image = ingest.commit(durable=False)
                catalogue.add(ImageRecord(id=image, layers=(layer,), added=number))
                for tag in range(tags):
                    catalogue.tag(parse(f"example.org/team/image{number}:v{tag}"), image, number)
    finally:
        state.close()
