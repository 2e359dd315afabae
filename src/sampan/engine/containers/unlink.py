"""Remove a link (`docker rm --link PARENT/ALIAS`): the linked container stays."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from msgspec.structs import replace

from sampan.engine.containers import etc, legacy_links
from sampan.engine.containers.container import Container
from sampan.errors import Broken, NotFound, SampanError


async def unlink(container: Container, alias: str) -> None:
    """Take the link away, from the record and from what runs; the caller holds the lock.  Raises NotFound."""
    record, rooms = container.record, container.rooms
    kept = [text for text in record.host.links or () if legacy_links.parse(text)[1] != alias]
    if len(kept) == len(record.host.links or ()):
        raise NotFound(f"No such container: {record.name}/{alias}")
    before: set[str] = set()
    if record.running:
        with suppress(SampanError):  # what it led to has ended: those lines lead nowhere, and go at the next start
            before = set(legacy_links.hosts(rooms, record))
    container.update(host=replace(record.host, links=kept))
    gone = before - set(legacy_links.hosts(rooms, container.record)) if before else set()
    if gone:
        with suppress(OSError):  # its folder is another's business then
            await asyncio.to_thread(etc.forget, container, gone)


def split(ref: str) -> tuple[str, str]:
    """Return (container, alias) of PARENT/ALIAS.  Raises Broken for a container's own name, as docker does."""
    parent, _, alias = ref.removeprefix("/").rpartition("/")
    if not parent or not alias or os.sep in parent:
        raise Broken("Conflict, cannot remove the default link name of the container")
    return parent, alias
