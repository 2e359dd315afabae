"""Listing images, newest first."""

from __future__ import annotations

from builtins import list as List
from collections.abc import Iterator

from msgspec import UNSET, structs

from sampan.content.images import Facts, ImageRecord
from sampan.engine.images import documents
from sampan.engine.images.context import Stores
from sampan.engine.images.filters import (
    Filters,
    boolean,
    check_keys,
    labels_match,
    reference_matches,
    until,
)
from sampan.engine.images.image import nanoseconds
from sampan.errors import SampanError
from sampan.oci import image as oci
from sampan.oci.digest import Digest, of
from sampan.wire.images import ContentSize, ImageData, ImageSummary, ManifestSummary, UnpackedSize
from sampan.wire.registry import OfDescriptor, OfPlatform

_KEYS = ("before", "since", "dangling", "label", "label!", "reference", "until")


def list_images(stores: Stores, *, all: bool, filters: Filters, shared_size: bool) -> List[ImageSummary]:
    """Return the images that pass every filter.  Raises InvalidRequest, NotFound for an unknown `before` or `since`."""
    check_keys(filters, _KEYS)
    dangling, latest = boolean(filters, "dangling"), until(filters)
    after = max((_created(stores, ref) for ref in filters.get("since", ())), default=None)
    before = min((_created(stores, ref) for ref in filters.get("before", ())), default=None)
    patterns = filters.get("reference", ())
    records = stores.catalogue.all()
    names = stores.catalogue.names()
    parents = {record.parent for record in records}
    uses = _layer_uses(records) if shared_size else {}
    found: List[ImageSummary] = []
    for record in records:
        facts = _readable(stores, record)
        if facts is None:
            continue
        created = nanoseconds(facts.created)
        tags, digests = names.get(record.id, ([], []))
        is_dangling = not tags and not digests
        if is_dangling and record.id in parents and not all:
            continue
        if (
            (dangling is not None and dangling != is_dangling)
            or (latest is not None and created >= latest)
            or (after is not None and created <= after)
            or (before is not None and created >= before)
            or not labels_match(filters, facts.labels)
        ):
            continue
        tags, digests = ([one for one in both if reference_matches(patterns, one)] for both in (tags, digests))
        if patterns and not tags and not digests:
            continue
        found.append(
            ImageSummary(
                id=record.id,
                created=created // 10**9,
                labels=facts.labels or None,
                parent_id=record.parent,
                repo_tags=[reference.familiar for reference in tags],
                repo_digests=[reference.familiar for reference in digests],
                shared_size=sum(layer.size for layer in record.layers if uses.get(layer.chain_id, 0) > 1) if shared_size else -1,
                size=record.size,
            )
        )
    return sorted(found, key=lambda summary: (-summary.created, summary.id))


def with_manifests(stores: Stores, found: List[ImageSummary]) -> List[ImageSummary]:
    """Return the list with each image's manifest and its sizes: what `docker image ls --tree` draws."""
    return [structs.replace(one, manifests=list(_manifests(stores, Digest(one.id)))) for one in found]


def _manifests(stores: Stores, image: Digest) -> Iterator[ManifestSummary]:
    """Yield the image's manifest: the one that it came with, else the one that it would be saved with."""
    try:
        record, config = stores.catalogue.get(image), stores.catalogue.config(image)
        content = stores.blobs.size(image) + sum(layer.blob_size for layer in record.layers)
        if record.manifest is not None:
            kind, digest, size = record.media_type, record.manifest, stores.blobs.size(record.manifest)
            content += size
        else:
            made = documents.manifest(image, stores.blobs.size(image), record.layers)
            kind, digest, size = oci.OCI_MANIFEST, of(made), len(made)
    except SampanError:  # it is damaged, or gone by now
        return
    platform = OfPlatform(architecture=config.architecture, os=config.os, variant=config.variant or UNSET)
    users = [container for container, _ in stores.in_use(image)]
    yield ManifestSummary(
        id=digest,
        descriptor=OfDescriptor(media_type=kind, digest=digest, size=size),
        size=ContentSize(total=content + record.size, content=content),
        image_data=ImageData(platform=platform, containers=users, size=UnpackedSize(unpacked=record.size)),
    )


def _readable(stores: Stores, record: ImageRecord) -> Facts | None:
    """Return the facts; None for an old record with a damaged configuration, which `sampan doctor` reports."""
    try:
        return stores.catalogue.facts(record)
    except SampanError:
        return None


def _created(stores: Stores, ref: str) -> int:
    image, _ = stores.catalogue.resolve(ref)
    return nanoseconds(stores.catalogue.config(image).created)


def _layer_uses(records: List[ImageRecord]) -> dict[str, int]:
    uses: dict[str, int] = {}
    for record in records:
        for chain in record.chain_ids:
            uses[chain] = uses.get(chain, 0) + 1
    return uses
