"""What builds keep, for system df."""

from __future__ import annotations

from sampan.build.prune import MOUNT, kept
from sampan.build.solve import Shop
from sampan.engine.images.image import rfc3339
from sampan.wire.usage import CacheRecord


def records(shop: Shop) -> list[CacheRecord]:
    """Return the cached steps and cache mounts, latest used first; a step whose layer an image has too is shared.  Blocks."""
    images = {chain for record in shop.stores.catalogue.all() for chain in record.chain_ids}
    steps = sorted(shop.cache.all(), key=lambda item: -item[1].used)
    found = [
        CacheRecord(
            id=key, type="regular", description=record.text[:512], in_use=shop.cache.in_use(key), size=record.size,
            shared=bool(record.layers) and record.layers[-1].chain_id in images, created_at=rfc3339(record.added),
            last_used_at=rfc3339(record.used) if record.used else None, usage_count=record.uses,
        )
        for key, record in steps
    ]  # fmt: skip
    for one in reversed(kept(shop)):
        if one.kind == MOUNT:
            moment = rfc3339(one.used)
            found.append(
                CacheRecord(id=one.key, type=MOUNT, description=one.text, size=one.size, created_at=moment, last_used_at=moment)
            )
    return found
