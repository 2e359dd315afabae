"""The manifests that are written for what came without one: an image's, and those that attach documents to an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sampan.content.images import LayerRef
from sampan.errors import InvalidRequest
from sampan.oci import image as oci
from sampan.oci.digest import Digest, of

EMPTY = b"{}"  # the configuration of an artifact


def encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def manifest(config: Digest, config_size: int, layers: Sequence[LayerRef], kind: str = oci.OCI_CONFIG) -> bytes:
    """Return the manifest of layers as they are stored; the same image gives the same bytes."""
    return encoded(
        {
            "schemaVersion": 2,
            "mediaType": oci.OCI_MANIFEST,
            "config": {"mediaType": kind, "digest": config, "size": config_size},
            "layers": [{"mediaType": layer_type(one.media_type), "digest": one.blob, "size": one.blob_size} for one in layers],
        }
    )


def layer_type(media_type: str) -> str:
    """Return the OCI's name of a layer's type."""
    if media_type.startswith(oci.DOCKER_LAYER):
        return oci.OCI_LAYER + media_type.removeprefix(oci.DOCKER_LAYER).replace(".", "+")
    return media_type


def fits(value: oci.Manifest | oci.Index, layers: Sequence[LayerRef]) -> bool:
    """Return whether a document is the manifest of just these blobs: then it is kept, with all that it says beside them."""
    return isinstance(value, oci.Manifest) and [one.digest for one in value.layers] == [one.blob for one in layers]


def artifact(kind: str, content: bytes, subject: dict[str, Any], annotations: dict[str, str]) -> bytes:
    """Return the manifest that attaches a document to `subject`, a descriptor."""
    return encoded(
        {
            "schemaVersion": 2,
            "mediaType": oci.OCI_MANIFEST,
            "artifactType": kind,
            "config": {"mediaType": oci.EMPTY_CONFIG, "digest": of(EMPTY), "size": len(EMPTY)},
            "layers": [{"mediaType": kind, "digest": of(content), "size": len(content)}],
            "subject": subject,
            "annotations": annotations,
        }
    )


def described(content: bytes, media_type: str = oci.OCI_MANIFEST) -> dict[str, Any]:
    """Return the descriptor of a manifest."""
    return {"mediaType": media_type, "digest": of(content), "size": len(content)}


def moved(content: bytes, subject: dict[str, Any]) -> bytes:
    """Return an artifact's manifest for another form of its image; unchanged when it is attached to that already."""
    value = oci.strict(content, "manifest")
    if not isinstance(value, dict) or not isinstance(value.get("subject"), dict):
        raise InvalidRequest("the manifest refers to nothing")
    if value["subject"].get("digest") == subject["digest"]:
        return content
    return encoded({**value, "subject": subject})
