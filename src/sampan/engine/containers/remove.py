"""Remove: the record goes last but one; what a crash leaves is swept at the next start."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from sampan.engine.containers import stop
from sampan.engine.containers.container import Container
from sampan.engine.containers.volumes import leave
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
    left = _files(container)
    if left or record.places:
        gone = await asyncio.to_thread(_rest, container, left, anonymous=volumes)
    else:
        gone = []
    rooms.index.remove(container.record.name)
    rooms.ranges.give_back(record.uid_base)
    for found in list(container.execs.values()):
        found.forget()
    container.forget()
    container.emit("destroy")
    for volume in gone:
        rooms.bus.emit("volume", "destroy", volume, {"driver": "local"})
    container.tell_removal()


def _files(container: Container) -> list[Path]:
    """Let its folders vanish, which takes no time; return those that did not: somebody has put or mounted something there."""
    rooms, left = container.rooms, []
    try:
        rooms.trash.throw(rooms.folder(container.id))
    except OSError:
        left.append(rooms.folder(container.id))
    try:
        os.rmdir(rooms.state_dir(container.id))
    except FileNotFoundError:
        pass
    except OSError:
        left.append(rooms.state_dir(container.id))
    return left


def _rest(container: Container, left: list[Path], *, anonymous: bool) -> list[str]:
    """What may take time, in a thread; folders that stay even then are swept at the next start.  Return the volumes removed."""
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return leave(container, anonymous=anonymous)
