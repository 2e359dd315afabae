"""docker save: one tar that is an OCI layout and has docker-save's manifest.json; the same images give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from sampan.content.images import ImageRecord
from sampan.engine.images import documents as written
from sampan.engine.images import referrers
from sampan.engine.images.context import Event, Stores
from sampan.engine.images.streams import Reporter
from sampan.errors import NotFound
from sampan.oci import image as oci
from sampan.oci.digest import Digest, encoded, is_hex, of
from sampan.oci.reference import Reference, parse

_CHUNK = 1 << 20


def save(stores: Stores, refs: list[str], reporter: Reporter[bytes | Event]) -> None:
    """Report the archive of every image named: by ID untagged, `name` with all its tags, `name:tag` with that one.

    Raises NotFound before the first byte.
    """
    chosen = choose(stores, refs)
    with stores.catalogue.adding():  # nothing is collected while it is read
        for record, _ in chosen.values():
            stores.catalogue.get(record.id)
        for block in _archive(stores, list(chosen.values())):
            reporter.report(block)
    for record, _ in chosen.values():
        reporter.report(stores.event("save", record.id))


def save_artifact(stores: Stores, make: Callable[[], ImageRecord], kind: str, reporter: Reporter[bytes | Event]) -> None:
    """Report an OCI layout with what `make` stores: something made of layers whose configuration is of type `kind`."""
    with stores.catalogue.adding():
        for block in _archive(stores, [(make(), [])], kind):
            reporter.report(block)


def choose(stores: Stores, refs: list[str]) -> dict[Digest, tuple[ImageRecord, list[Reference]]]:
    """Return the images to save with the names to save them under."""
    chosen: dict[Digest, tuple[ImageRecord, list[Reference]]] = {}

    def take(image: Digest, *names: Reference) -> None:
        _, known = chosen.setdefault(image, (stores.catalogue.get(image), []))
        known.extend(name for name in names if name not in known)

    for ref in refs:
        bare = not ref.startswith("sha256:") and not is_hex(ref, 64)
        wanted = parse(ref) if bare else None
        if wanted is not None and not wanted.tag and wanted.digest is None:
            found = [tag for tag in stores.catalogue.tags() if tag.name == wanted.name]
            for tag in found:
                image = stores.catalogue.named(tag)
                if image is not None:
                    take(image, tag)
            if found:
                continue
        image, name = stores.catalogue.resolve(ref)
        take(image, *([name] if name is not None and name.tag else []))
    if not chosen:
        raise NotFound("No such image: no names given")
    return chosen


def _archive(stores: Stores, chosen: list[tuple[ImageRecord, list[Reference]]], kind: str = oci.OCI_CONFIG) -> Iterator[bytes]:
    documents: dict[str, bytes] = {}
    blobs: dict[Digest, int] = {}
    index: list[dict[str, Any]] = []
    table: list[dict[str, Any]] = []
    for record, names in chosen:
        manifest = written.manifest(record.id, stores.blobs.size(record.id), record.layers, kind)
        digest = of(manifest)
        documents[_path(digest)] = manifest
        blobs[record.id] = stores.blobs.size(record.id)
        blobs.update({layer.blob: layer.blob_size for layer in record.layers})
        base = {"mediaType": oci.OCI_MANIFEST, "digest": digest, "size": len(manifest)}
        attached = []
        for content, one in referrers.saved(stores.blobs, stores.catalogue, record, manifest):
            documents[_path(of(content))] = content
            blobs.update({blob: stores.blobs.size(blob) for blob in one.blobs})
            attached.append(of(content))
        more = {referrers.ANNOTATION: ",".join(attached)} if attached else {}
        for name in names:
            annotations = {"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag}
            index.append({**base, "annotations": {**annotations, **more}})
        if not names:
            index.append({**base, "annotations": more} if more else base)
        table.append(
            {
                "Config": _path(record.id),
                "RepoTags": [name.familiar for name in names] or None,
                "Layers": [_path(layer.blob) for layer in record.layers],
            }
        )
    documents["index.json"] = _json({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": index})
    if kind == oci.OCI_CONFIG:
        documents["manifest.json"] = _json(table)
    documents["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    yield _header("blobs/", 0, b"5", 0o755) + _header("blobs/sha256/", 0, b"5", 0o755)
    for path in sorted({*documents, *map(_path, blobs)}):
        if path in documents:
            yield _header(path, len(documents[path])) + documents[path] + bytes(-len(documents[path]) % 512)
        else:
            yield from _blob(stores, Digest(f"sha256:{path.rpartition('/')[2]}"), path)
    yield bytes(1024)


def _blob(stores: Stores, digest: Digest, path: str) -> Iterator[bytes]:
    size = stores.blobs.size(digest)
    yield _header(path, size, mode=0o444)
    with stores.blobs.open(digest) as reader:
        while data := reader.read(_CHUNK):
            yield data
    if size % 512:
        yield bytes(-size % 512)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{encoded(digest)}"


def _header(name: str, size: int, kind: bytes = b"0", mode: int = 0o644) -> bytes:
    """Return a ustar header with no owner and time 0; sizes beyond 8 GiB in base 256."""
    number = b"%011o\0" % size if size < 1 << 33 else (0x80 << 88 | size).to_bytes(12, "big")
    block = bytearray(
        name.encode().ljust(100, b"\0") + b"%07o\0" % mode + b"0000000\0" * 2 + number + b"00000000000\0"
        + b" " * 8 + kind + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2
    )  # fmt: skip
    block += bytes(512 - len(block))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
