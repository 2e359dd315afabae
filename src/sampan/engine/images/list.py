"""Listing images, newest first."""

from __future__ import annotations

from builtins import list as List

from sampan.content.images import Facts, ImageRecord
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
from sampan.wire.images import ImageSummary

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
