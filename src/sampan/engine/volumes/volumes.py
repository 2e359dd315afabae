"""Volumes as the API asks for them (api/backend.py)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping

from sampan.engine.context import Rooms
from sampan.engine.volumes.describe import describe
from sampan.engine.volumes.listing import ANONYMOUS, selected
from sampan.engine.volumes.prune import prune
from sampan.errors import Conflict, NotFound, Unavailable
from sampan.wire import volumes as v

Filters = Mapping[str, tuple[str, ...]]


class Volumes:
    """The volumes of the data root; what blocks runs in threads, events are told in the loop."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._store = rooms.volumes
        self._pruning = False

    async def create(self, body: v.CreateBody) -> v.Volume:
        """Raises InvalidRequest, NotFound (no such driver), Unavailable (cluster volumes)."""
        if body.cluster_volume_spec:
            raise Unavailable("cluster volumes need a swarm, and this engine is in none")
        name = body.name or secrets.token_hex(32)
        if body.driver not in ("", "local"):
            shown = body.driver[:64]
            raise NotFound(f'create {name[:64]}: error looking up volume plugin {shown}: plugin "{shown}" not found')
        labels = body.labels if body.name else {**(body.labels or {}), ANONYMOUS: ""}
        record, new = await asyncio.to_thread(self._store.create, name, labels, body.driver_opts)
        if new:
            self._emit("create", name)
        return describe(self._store, name, record)

    async def list(self, filters: Filters) -> v.VolumeList:
        found = await asyncio.to_thread(selected, self._store, filters)
        return v.VolumeList(volumes=[describe(self._store, name, record) for name, record in found.items()])

    async def inspect(self, name: str) -> v.Volume:
        record = await asyncio.to_thread(self._store.get, name)
        return describe(self._store, name, record)

    async def remove(self, name: str, *, force: bool) -> None:
        """Raises NotFound unless forced, Conflict while a container names it."""
        try:
            await asyncio.to_thread(self._store.remove, name)
        except NotFound:
            if not force:
                raise
            return
        self._emit("destroy", name)

    async def prune(self, filters: Filters) -> v.PruneResult:
        """Raises Conflict when another one runs."""
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        try:
            gone, freed = await asyncio.to_thread(prune, self._store, filters)
        finally:
            self._pruning = False
        for name in gone:
            self._emit("destroy", name)
        self._rooms.bus.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return v.PruneResult(volumes_deleted=gone or None, space_reclaimed=freed)

    def _emit(self, action: str, name: str) -> None:
        self._rooms.bus.emit("volume", action, name, {"driver": "local"})
