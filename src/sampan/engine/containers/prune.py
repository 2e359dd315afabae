"""Prune: containers that do not run, with docker's filters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from sampan.engine.containers import remove
from sampan.engine.containers.container import Container
from sampan.engine.images.filters import check_keys, labels_match, until
from sampan.errors import SampanError

Filters = Mapping[str, tuple[str, ...]]


async def prune(containers: Iterable[Container], filters: Filters) -> tuple[list[str], int]:
    """Remove those that pass; return their ids and the bytes of their own layers.  Raises InvalidRequest."""
    check_keys(filters, ("label", "label!", "until"))
    before = until(filters)
    deleted, freed = [], 0
    for container in list(containers):
        if not _idle(container) or (before is not None and container.record.created >= before):
            continue
        if not labels_match(filters, container.record.labels):
            continue
        async with container.lock:
            if container.removed or not _idle(container):
                continue
            try:
                size = (await asyncio.to_thread(container.rooms.layers.usage, container.id)).size
                await remove.remove(container, force=False, volumes=False)
            except (SampanError, OSError):  # somebody else is at it
                continue
            deleted.append(container.id)
            freed += size
    return deleted, freed


def _idle(container: Container) -> bool:
    return not (container.record.running or container.record.restarting or container.removing)
