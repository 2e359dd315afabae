"""Remove: the record goes last but one; what a crash leaves is swept at the next start."""

from __future__ import annotations

import asyncio
import shutil

from sampan.engine.containers import stop, volumes
from sampan.engine.containers.container import Container
from sampan.errors import Conflict


async def remove(container: Container, *, force: bool, volumes: bool, snapshot: bool = True) -> None:
    """Remove it, killing it first with `force`; the caller holds the lock.  snapshot=False leaves that.  Raises Conflict."""
    record, rooms = container.record, container.rooms
    if container.removed:
        return
    if container.removing:
        raise Conflict(f"removal of container {container.id} is already in progress")
    if record.running and not force:
        word = "container is paused and must be unpaused first" if record.paused else (
            "container is running: stop the container before removing or force remove")  # fmt: skip
        raise Conflict(f'cannot remove container "{record.name}": {word}')
    container.removing = True
    try:
        if container.restart_task is not None:
            container.restart_task.cancel()
        if record.running:
            await stop.kill_now(container)
        with rooms.state.batch():
            if snapshot:
                rooms.layers.remove(record.id)
            rooms.records.delete(record.id)
    except BaseException:
        container.removing = False
        raise
    gone = await asyncio.to_thread(_files, container, volumes)
    rooms.index.remove(container.record.name)
    rooms.ranges.give_back(record.uid_base)
    for found in list(container.execs.values()):
        found.forget()
    container.forget()
    container.emit("destroy")
    for volume in gone:
        rooms.bus.emit("volume", "destroy", volume, {"driver": "local"})
    container.tell_removal()


def _files(container: Container, with_volumes: bool) -> list[str]:
    shutil.rmtree(container.rooms.folder(container.id), ignore_errors=True)
    shutil.rmtree(container.rooms.state_dir(container.id), ignore_errors=True)
    return volumes.leave(container, anonymous=with_volumes)
