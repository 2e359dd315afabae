"""Removing what builds keep: steps by age and size, cache mounts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from sampan.build.mounting import about
from sampan.build.solve import Shop
from sampan.engine.images.filters import boolean, check_keys, until
from sampan.wire.images import BuildPruned

STEP, MOUNT = "regular", "exec.cachemount"
KEYS = ("until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private", "internal")


@dataclass(frozen=True)
class Wanted:
    """What to remove.  all: also what images still consist of, and cache mounts.

    Bytes, 0 for no word about it: reserved may always stay; max_used may stay too; min_free are to be free on the disk afterwards.
    """

    all: bool = False
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reserved: int = 0
    max_used: int = 0
    min_free: int = 0

    @property
    def sized(self) -> bool:
        return bool(self.reserved or self.max_used or self.min_free)

    def keep(self, total: int, free: int) -> int:
        """Return how many of `total` bytes may stay while `free` are free; 0: none."""
        found = self.max_used or (total if self.min_free else 0)
        if self.min_free:
            found = min(found, total - max(0, self.min_free - free))
        return max(found, self.reserved)


@dataclass(frozen=True)
class Kept:
    """Something that builds keep.  used: nanoseconds; spare: nothing but later builds needs it; folder: of a cache mount."""

    key: str
    kind: str
    text: str
    size: int
    used: int
    spare: bool = True
    folder: Path | None = None


def kept(shop: Shop) -> list[Kept]:
    """Return the steps and cache mounts that no build under way relies on, the one used last at the end.  Blocks."""
    images = {chain for record in shop.stores.catalogue.all() for chain in record.chain_ids}
    found = [
        Kept(key, STEP, one.text, one.size, one.used, not one.layers or one.layers[-1].chain_id not in images)
        for key, one in shop.cache.all()
        if not shop.cache.in_use(key)
    ]
    for folder in shop.mounts.caches():
        found.append(Kept(folder.name, MOUNT, about(folder), _size(folder), folder.stat().st_mtime_ns, folder=folder))
    return sorted(found, key=lambda one: one.used)


def prune(shop: Shop, wanted: Wanted, held: ExitStack, now: int) -> BuildPruned:
    """Remove and return what went, the longest unused first.  Blocks.  Raises InvalidRequest.

    Cache mounts go with `all`, or when a filter asks for their type.
    """
    check_keys(wanted.filters, KEYS)
    given = dict(wanted.filters)
    if "unused-for" in given:
        given["until"] = given.pop("unused-for")
    before = until(given, now)
    mounts = wanted.all or MOUNT in wanted.filters.get("type", ())
    found = [one for one in kept(shop) if one.kind == STEP or mounts]
    total = sum(one.size for one in found)
    keep = wanted.keep(total, _free(shop.scratch))
    gone: list[str] = []
    freed = 0
    for one in found:
        if (before is not None and one.used >= before) or not _fits(one, wanted) or not (wanted.all or one.spare):
            continue
        if wanted.sized and total <= keep:
            break
        if one.folder is None:
            shop.cache.forget(one.key)
        elif not _throw(one.folder):
            continue
        else:
            freed += one.size
        total -= one.size
        gone.append(one.key)
    freed += shop.stores.collect()[0]
    if wanted.all and not wanted.filters and not wanted.sized:
        shop.cache.forget_times()
    return BuildPruned(caches_deleted=gone or None, space_reclaimed=freed)


def _throw(folder: Path) -> bool:
    """Remove a cache mount; under another name first, so that a step that begins now finds all of it or nothing."""
    going = folder.with_name(f"tmp-{folder.name}")
    try:
        folder.rename(going)
    except OSError:
        return False
    shutil.rmtree(going, ignore_errors=True)
    return True


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _fits(one: Kept, wanted: Wanted) -> bool:
    """Whether the filters mean it.  None of these is in use, is internal, or has a parent that anybody is told of."""
    ids, texts = wanted.filters.get("id", ()), wanted.filters.get("description", ())
    kinds = wanted.filters.get("type", ())
    facts = {"inuse": False, "internal": False, "shared": not one.spare, "private": one.spare}
    return (
        all(boolean(wanted.filters, name) in (None, fact) for name, fact in facts.items())
        and "parent" not in wanted.filters
        and (not ids or any(one.key.startswith(text) for text in ids if text))
        and (not texts or any(text in one.text for text in texts))
        and (not kinds or one.kind in kinds)
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
