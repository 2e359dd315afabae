"""Archives of images, made by hand: docker-save's and OCI layouts, right ones and wrong ones."""

from __future__ import annotations

import json
from typing import Any

from sampan.oci import image as oci
from sampan.oci.digest import encoded, of
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
