"""What is attached to images: bills of materials, signatures, attestations, kept with their image wherever it goes.

A document is attached by a manifest whose `subject` is the image's manifest.  Where that stays what it is, byte for byte,
everything goes along as it came.  Where it is another (layers that are stored plain are compressed for a registry), a bill of
materials is attached anew, and what holds for one manifest only, such as a signature, stays behind.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any

from sampan.content.blobs import Blobs
from sampan.content.images import MAX_REFERRERS, Catalogue, ImageRecord, Referrer
from sampan.engine.images import documents
from sampan.engine.images.archive import Part
from sampan.engine.images.context import Stores
from sampan.errors import InvalidRequest, NotFound, SampanError
from sampan.oci import image as oci
from sampan.oci.digest import Digest, algorithm, encoded, of
from sampan.oci.digest import parse as parse_digest
from sampan.registry.repository import Document, Repository
from sampan.registry.upload import Blob, Uploads

SPDX = "application/spdx+json"
MOVABLE = frozenset((SPDX, "application/vnd.cyclonedx+json"))  # of the image whatever its manifest; others hold for that one only
ANNOTATION = "sampan.referrers"  # of an image in a saved index.json, "digest,digest": entries of their own, skopeo would refuse
MAX_BLOBS = 4  # of one artifact, its configuration among them
MAX_FETCHED = 32 << 20  # bytes of all that a registry has attached to an image

log = logging.getLogger("sampan.images")


def attach(blobs: Blobs, kind: str, content: bytes, subject: dict[str, Any], annotations: dict[str, str]) -> Referrer:
    """Store a document and the manifest that attaches it to `subject`, a descriptor."""
    manifest = documents.artifact(kind, content, subject, annotations)
    needed = (blobs.put(documents.EMPTY), blobs.put(content))
    return Referrer(manifest=blobs.put(manifest), subject=subject["digest"], artifact_type=kind, blobs=needed)


def read(content: bytes, subject: Digest) -> tuple[oci.Manifest, str] | None:
    """Return the manifest and its type when it attaches to `subject` something that is not too large, else None.

    Raises InvalidRequest for what is no manifest.
    """
    value = oci.read_manifest(content, oci.OCI_MANIFEST, "artifact manifest")
    if not isinstance(value, oci.Manifest) or value.subject is None or value.subject.checked() != subject:
        return None
    kind = value.artifact_type or value.config.media_type
    if 1 + len(value.layers) > MAX_BLOBS or any(one.size > oci.MAX_DOCUMENT for one in (value.config, *value.layers)):
        log.warning("the %s attached to %s is larger than is taken", kind[:160], subject)
        return None
    return value, kind


def goes_with(one: Referrer, manifest: Digest | None) -> bool:
    """Return whether it may be attached to the image as `manifest` describes it."""
    return one.artifact_type in MOVABLE or one.subject == manifest


def sbom(stores: Stores, ref: str) -> bytes:
    """Return the image's SPDX document.  Raises NotFound when there is no such image, or it has none."""
    image, _ = stores.catalogue.resolve(ref)
    for one in stores.catalogue.referrers(image):
        attached = read(stores.blobs.read(one.manifest), one.subject) if one.artifact_type == SPDX else None
        if attached is not None and attached[0].layers:
            return stores.blobs.read(attached[0].layers[0].checked())
    raise NotFound(f"image {ref} has no SBOM: those have one that `sampan image bootstrap` made, or that came here with one")


# In archives


def saved(blobs: Blobs, catalogue: Catalogue, record: ImageRecord, manifest: bytes) -> Iterator[tuple[bytes, Referrer]]:
    """Yield (attaching manifest, referrer) of everything attached to an image that goes along when it is saved under `manifest`."""
    for one in catalogue.referrers(record.id):
        if goes_with(one, of(manifest)):
            yield documents.moved(blobs.read(one.manifest), documents.described(manifest)), one


def of_archive(files: Mapping[str, Part]) -> dict[Digest, list[bytes]]:
    """Return what an OCI layout attaches to its images: by image, the attaching manifests.  Raises InvalidRequest."""
    if "index.json" not in files:
        return {}
    index = oci.decode(files["index.json"].document(), oci.Index, "index.json")
    manifests = {}
    listed = index.manifests[: oci.MAX_INDEX_NODES]
    for descriptor in (*listed, *(one for entry in listed for one in _annotated(files, entry))):
        part = _part(files, descriptor)
        if part is not None and descriptor.media_type in oci.MANIFEST_TYPES:
            manifests[descriptor.digest] = (descriptor, part.document())
    found: dict[Digest, list[bytes]] = {}
    for descriptor, content in manifests.values():
        value = oci.read_manifest(content, descriptor.media_type, f"manifest {descriptor.digest[:160]}")
        subject = value.subject if isinstance(value, oci.Manifest) else None
        if subject is None or subject.digest not in manifests or read(content, subject.checked()) is None:
            continue
        image, of_image = manifests[subject.digest]
        whose = oci.read_manifest(of_image, image.media_type, f"manifest {image.digest}")
        if isinstance(whose, oci.Manifest):
            found.setdefault(whose.config.checked(), []).append(content)
    return found


def _annotated(files: Mapping[str, Part], descriptor: oci.Descriptor) -> Iterator[oci.Descriptor]:
    """Yield what an image's entry names as attached to it, as far as it is there."""
    named = (descriptor.annotations or {}).get(ANNOTATION, "").split(",")
    for text in filter(None, named[:MAX_REFERRERS]):
        digest = parse_digest(text)
        part = files.get(f"blobs/{algorithm(digest)}/{encoded(digest)}")
        if part is not None:
            yield oci.Descriptor(media_type=oci.OCI_MANIFEST, digest=digest, size=part.size)


def keep(blobs: Blobs, files: Mapping[str, Part], content: bytes) -> Referrer:
    """Store an archive's attaching manifest and its blobs.  Raises InvalidRequest."""
    subject = oci.decode(content, oci.Manifest, "artifact manifest").subject
    assert subject is not None
    manifest, kind = read(content, subject.checked()) or (None, "")
    assert manifest is not None
    kept = []
    for descriptor in (manifest.config, *manifest.layers):
        part = _part(files, descriptor)
        if part is None:
            raise InvalidRequest(f"invalid archive: blob {descriptor.digest[:160]} is missing")
        kept.append(blobs.put(part.document(), descriptor.checked()))
    return Referrer(manifest=blobs.put(content), subject=subject.checked(), artifact_type=kind, blobs=tuple(dict.fromkeys(kept)))


def _part(files: Mapping[str, Part], descriptor: oci.Descriptor) -> Part | None:
    digest = descriptor.checked()
    part = files.get(f"blobs/{algorithm(digest)}/{encoded(digest)}")
    if part is not None and (part.size != descriptor.size or part.digest_as(digest) != digest):
        raise InvalidRequest(f"content of blob {digest} is {part.digest} of {part.size} bytes")
    return part


# At registries

Fetched = tuple[bytes, str, dict[Digest, bytes]]  # attaching manifest, kind, blobs


async def fetch(repository: Repository, subject: Digest) -> list[Fetched]:
    """Return what the registry has attached to a manifest; nothing where it cannot be had: an image is good without."""
    found: list[Fetched] = []
    left = MAX_FETCHED
    try:
        listed = [one for one in await repository.referrers(subject) if one.media_type == oci.OCI_MANIFEST]
        listed.sort(key=lambda one: one.artifact_type not in MOVABLE)
        for descriptor in listed[: 2 * MAX_REFERRERS]:
            document = await repository.manifest(descriptor.checked())
            attached = read(document.content, subject)
            if attached is None or len(found) == MAX_REFERRERS:
                continue
            manifest, kind = attached
            needed = {one.checked(): one.size for one in (manifest.config, *manifest.layers)}
            left -= sum(needed.values())
            if left < 0:
                raise InvalidRequest(f"it is more than {MAX_FETCHED} bytes")
            blobs = {digest: await repository.small_blob(digest, size) for digest, size in needed.items()}
            found.append((document.content, kind, blobs))
    except SampanError as error:
        log.warning("not all that is attached to %s was fetched: %s", subject, error)
    return found


def store(blobs: Blobs, subject: Digest, fetched: list[Fetched]) -> list[Referrer]:
    """Store what was fetched."""
    return [
        Referrer(
            manifest=blobs.put(content),
            subject=subject,
            artifact_type=kind,
            blobs=tuple(blobs.put(blob, digest) for digest, blob in needed.items()),
        )
        for content, kind, needed in fetched
    ]


async def push(uploads: Uploads, content: bytes, needed: Mapping[Digest, bytes]) -> None:
    """Put an attaching manifest with its blobs.  Raises what the registry says."""
    for digest, blob in needed.items():
        if not await uploads.has(digest):
            await uploads.put(Blob(digest, len(blob), partial(_from, blob)))
    document = Document(content, oci.OCI_MANIFEST, of(content))
    await uploads.manifest(document, document.digest)


async def _from(content: bytes, at: int) -> AsyncIterator[bytes]:
    yield content[at:]
