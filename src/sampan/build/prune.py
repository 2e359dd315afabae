"""Removing what builds keep: steps by age and size, cache mounts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from sampan.build.cache import StepRecord
from sampan.build.solve import Shop
from sampan.engine.images.filters import check_keys, until
from sampan.wire.images import BuildPruned

KEYS = ("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private", "internal")


@dataclass(frozen=True)
class Wanted:
    """What to remove.  all: also what images still consist of, and cache mounts; keep: bytes that may stay."""

    all: bool = False
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep: int = 0


def prune(shop: Shop, wanted: Wanted, held: ExitStack, now: int) -> BuildPruned:
    """Remove and return what went.  Steps that a running build relies on stay.  Blocks.  Raises InvalidRequest."""
    check_keys(wanted.filters, KEYS)
    given = dict(wanted.filters)
    if "unused-for" in given:
        given["until"] = given.pop("unused-for")
    before = until(given, now)
    images = {chain for record in shop.stores.catalogue.all() for chain in record.chain_ids}
    steps = sorted(shop.cache.all(), key=lambda item: item[1].used)
    total = sum(record.size for _, record in steps)
    gone: list[str] = []
    for key, record in steps:
        if shop.cache.in_use(key) or (before is not None and record.used >= before) or not _fits(key, record, wanted):
            continue
        if not wanted.all and record.layers and record.layers[-1].chain_id in images:
            continue
        if wanted.keep and total <= wanted.keep:
            break
        shop.cache.forget(key)
        total -= record.size
        gone.append(key)
    freed, _ = shop.stores.collect()
    if wanted.all and not wanted.filters and not wanted.keep:
        shop.cache.forget_times()
        for folder in shop.mounts.caches():
            freed += _size(folder)
            gone.append(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
    return BuildPruned(caches_deleted=gone or None, space_reclaimed=freed)


def _fits(key: str, record: StepRecord, wanted: Wanted) -> bool:
    ids, texts = wanted.filters.get("id", ()), wanted.filters.get("description", ())
    kinds = wanted.filters.get("type", ())
    return (
        (not ids or any(key.startswith(one) for one in ids if one))
        and (not texts or any(one in record.text for one in texts))
        and (not kinds or "regular" in kinds)
    )


def _size(folder: Path) -> int:
    total = 0
    waiting = [folder]
    while waiting:
        for entry in waiting.pop().iterdir():
            if entry.is_dir() and not entry.is_symlink():
                waiting.append(entry)
            else:
                total += entry.lstat().st_size
    return total
