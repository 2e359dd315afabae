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
from sampan.files.tar_entry import Entry, Kind
from sampan.files.tar_header import END, header, padding
from sampan.oci import image as oci
from sampan.oci.digest import Digest, algorithm, encoded, is_hex, of
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
    files: dict[str, bytes | Digest] = {}  # by path: documents, and blobs that are streamed
    index: list[dict[str, Any]] = []
    table: list[dict[str, Any]] = []
    for record, names in chosen:
        manifest = _manifest(stores, record, kind)
        files[_path(of(manifest))] = manifest
        files.update({_path(blob): blob for blob in (record.id, *(layer.blob for layer in record.layers))})
        base = {"mediaType": oci.OCI_MANIFEST, "digest": of(manifest), "size": len(manifest)}
        attached = []
        for content, one in referrers.saved(stores.blobs, stores.catalogue, record, manifest):
            files[_path(of(content))] = content
            files.update({_path(blob): blob for blob in one.blobs})
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
    files["index.json"] = _json({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": index})
    if kind == oci.OCI_CONFIG:
        files["manifest.json"] = _json(table)
    files["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    folders = {f"{path.rpartition('/')[0]}/" for path in files if "/" in path}
    yield b"".join(header(Entry(name=folder, kind=Kind.DIRECTORY, mode=0o755)) for folder in ("blobs/", *sorted(folders)))
    for path, held in sorted(files.items()):
        if isinstance(held, bytes):
            yield header(Entry(name=path, kind=Kind.FILE, mode=0o644, stored=len(held))) + held + padding(len(held))
        else:
            yield from _blob(stores, held, path)
    yield END


def _manifest(stores: Stores, record: ImageRecord, kind: str) -> bytes:
    """Return the OCI manifest that the image came with, as it came; one that says the same when it came with none."""
    if record.manifest is not None and record.media_type == oci.OCI_MANIFEST and kind == oci.OCI_CONFIG:
        content = stores.blobs.read(record.manifest)
        if written.fits(oci.read_manifest(content, record.media_type, f"manifest {record.manifest}"), record.layers):
            return content
    return written.manifest(record.id, stores.blobs.size(record.id), record.layers, kind)


def _blob(stores: Stores, digest: Digest, path: str) -> Iterator[bytes]:
    size = stores.blobs.size(digest)
    yield header(Entry(name=path, kind=Kind.FILE, mode=0o444, stored=size))
    with stores.blobs.open(digest) as reader:
        while data := reader.read(_CHUNK):
            yield data
    yield padding(size)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _path(digest: Digest) -> str:
    return f"blobs/{algorithm(digest)}/{encoded(digest)}"
