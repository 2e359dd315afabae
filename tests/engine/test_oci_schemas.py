"""Every document that is written for images is one by the OCI's own JSON schemas."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
from referencing.jsonschema import DRAFT4

from sampan.oci import image as oci
from sampan.oci.digest import of
from sampan.registry import repository, upload
from support.daemon import Daemon
from support.places import Place, collect
from support.served import Served
from support.tars import archive, member

SCHEMAS = Path("/work/shared/spec/schemas/image-spec")
BASES = ("https://opencontainers.org/schema/image/", "https://opencontainers.org/schema/")  # what relative names are relative to
pytestmark = pytest.mark.skipif(not SCHEMAS.is_dir(), reason=f"needs the OCI's schemas in {SCHEMAS}")


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    """Return name -> validator."""
    found = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    made: Any = referencing.Registry()
    for name, schema in found.items():
        made = made.with_resources((base + name, DRAFT4.create_resource(schema)) for base in BASES)
    return {name: jsonschema.Draft4Validator(schema, registry=made) for name, schema in found.items()}


@pytest.fixture
def images(daemon: Daemon) -> Iterator[list[str]]:
    """An image of each way that makes one: import, commit, build."""
    context = archive(
        member("Dockerfile", content=b"FROM busybox\nLABEL a=b\nEXPOSE 80/tcp\nVOLUME /v\nSTOPSIGNAL 9\nRUN true\nCMD x\n")
    )
    daemon.ok("POST", "/build?t=schema:built", context, headers={"Content-Type": "application/x-tar"}, timeout=120)
    container = daemon.create("sh", "-c", "echo a > /a")
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/wait")
    daemon.ok("POST", f"/commit?container={container}&repo=schema&tag=committed&author=me&comment=c")
    daemon.ok("DELETE", f"/containers/{container}")
    yield ["busybox:latest", "schema:committed", "schema:built"]
    for name in ("schema:committed", "schema:built"):
        daemon.ok("DELETE", f"/images/{name}?force=1")


def test_what_is_saved_is_valid_by_the_schemas(daemon: Daemon, images: list[str], schemas: dict[str, Any]) -> None:
    query = "&".join(f"names={name}" for name in images)
    with tarfile.open(fileobj=io.BytesIO(daemon.ok("GET", f"/images/get?{query}"))) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]
    index = json.loads(files["index.json"])
    schemas["image-index-schema.json"].validate(index)
    schemas["image-layout-schema.json"].validate(json.loads(files["oci-layout"]))
    assert len(index["manifests"]) == len(images)
    for descriptor in index["manifests"]:
        schemas["content-descriptor.json"].validate(descriptor)
        manifest = json.loads(files["blobs/" + descriptor["digest"].replace(":", "/")])
        schemas["image-manifest-schema.json"].validate(manifest)
        schemas["config-schema.json"].validate(json.loads(files["blobs/" + manifest["config"]["digest"].replace(":", "/")]))


def test_what_the_registry_lists_and_what_is_pushed_to_it_is_valid_by_the_schemas(tmp_path: Path, schemas: dict[str, Any]) -> None:
    with Served() as registry, Place(tmp_path) as place:
        name = f"{registry.host}/schema"
        place.run(collect(place.images.bootstrap("host true", tag=f"{name}:1")))
        place.push(name)
        _, headers, manifest = registry.ask("GET", "/v2/schema/manifests/1", Accept="*/*")
        digest = headers["Docker-Content-Digest"]
        index = json.loads(registry.ask("GET", f"/v2/schema/referrers/{digest}")[2])
        (attached,) = index["manifests"]
        artifact = registry.ask("GET", f"/v2/schema/manifests/{attached['digest']}", Accept="*/*")[2]
        config = registry.ask("GET", f"/v2/schema/blobs/{json.loads(manifest)['config']['digest']}")[2]
    schemas["image-index-schema.json"].validate(index)
    stands_in = upload.index_of([upload.referrer(repository.Document(artifact, oci.OCI_MANIFEST, of(artifact)))])
    schemas["image-index-schema.json"].validate(json.loads(stands_in.content))  # where a registry has no referrers API
    schemas["content-descriptor.json"].validate(attached)
    schemas["image-manifest-schema.json"].validate(json.loads(artifact))
    schemas["image-manifest-schema.json"].validate(json.loads(manifest))
    schemas["config-schema.json"].validate(json.loads(config))


def test_the_schemas_refuse_what_is_wrong(schemas: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        schemas["image-manifest-schema.json"].validate({"schemaVersion": 2, "config": {}, "layers": []})
