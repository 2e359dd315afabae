"""system df: what images, containers and volumes take of the disk; callers at the same time share one look."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from msgspec import UNSET, structs

from sampan.engine.containers.containers import Containers
from sampan.engine.context import Rooms
from sampan.engine.volumes.describe import describe
from sampan.errors import InvalidRequest, SampanError
from sampan.wire import usage as u
from sampan.wire import volumes as v
from sampan.wire.images import ImageSummary

KINDS = ("container", "image", "volume", "build-cache")


class Usage:
    """Measures on demand."""

    def __init__(self, rooms: Rooms, containers: Containers) -> None:
        self._rooms = rooms
        self._containers = containers
        self._running: dict[tuple[str, ...], asyncio.Task[u.DiskUsage]] = {}

    async def measure(self, kinds: tuple[str, ...]) -> u.DiskUsage:
        """Return what the kinds take; none means all.  Raises InvalidRequest."""
        for kind in kinds:
            if kind not in KINDS:
                raise InvalidRequest(f"unknown object type: {kind[:64]}")
        wanted = tuple(sorted(set(kinds) or KINDS))
        task = self._running.get(wanted)
        if task is None:
            task = self._running[wanted] = asyncio.ensure_future(self._measure(wanted))
            task.add_done_callback(lambda _: self._running.pop(wanted, None))
        return await asyncio.shield(task)

    async def _measure(self, kinds: tuple[str, ...]) -> u.DiskUsage:
        containers = await self._containers.list(all=True, limit=0, size=True, filters={}) if "container" in kinds else UNSET
        images = await self._images() if "image" in kinds else UNSET
        layers = await asyncio.to_thread(lambda: sum(one.size for one in self._rooms.layers.layers())) if "image" in kinds else 0
        volumes = await asyncio.to_thread(self._volumes) if "volume" in kinds else UNSET
        return u.DiskUsage(
            layers_size=layers or UNSET, images=images, containers=containers, volumes=volumes,
            build_cache=[] if "build-cache" in kinds else UNSET,
        )  # fmt: skip

    async def _images(self) -> list[ImageSummary]:
        uses: Mapping[str, int] = Counter(one.record.image for one in list(self._containers.all.values()))
        found = await self._rooms.images.list(all=False, filters={}, shared_size=True)
        return [structs.replace(one, containers=uses.get(one.id, 0)) for one in found]

    def _volumes(self) -> list[v.Volume]:
        """Those without options: what the others name is not the engine's."""
        store, found = self._rooms.volumes, []
        for name, record in store.all().items():
            if not record.options:
                try:
                    usage = v.UsageData(size=store.usage(name).size, ref_count=len(store.users(name)))
                except (SampanError, OSError):  # removed meanwhile, or unreadable
                    usage = v.UsageData(ref_count=len(store.users(name)))
                found.append(describe(store, name, record, usage))
        return found
