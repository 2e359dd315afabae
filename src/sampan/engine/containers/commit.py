"""Commit: what a container changed becomes a layer, its settings an image."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from typing import Any

import msgspec

from sampan.engine.containers import stop
from sampan.engine.containers.container import Container
from sampan.engine.containers.export import compared
from sampan.engine.images.changes import apply_changes
from sampan.engine.images.commit import Draft, Wanted
from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.files.tar_write import Source, tree_tar
from sampan.kernel.fds import open_fd
from sampan.oci.digest import Digest
from sampan.oci.image import Settings
from sampan.oci.reference import Reference, with_tag
from sampan.wire.archive import CommitOptions, Committed
from sampan.wire.containers import ContainerConfig

_JOINED = ("exposed_ports", "volumes", "labels")


async def commit(container: Container, options: CommitOptions, body: ContainerConfig) -> Committed:
    """Return the new image.  Raises InvalidRequest, NotFound, Conflict; then nothing stays and the container goes on."""
    record = container.record
    tag = _tag(options)
    settings = _settings(record.config, body, options.changes)
    created_by = " ".join(_words(record.config.cmd))
    wanted = Wanted(Digest(record.image), settings, created_by, options.author, options.comment, tag)
    rooms = container.rooms
    with ExitStack() as held:
        async with container.lock:
            if container.removed:
                raise NotFound(f"No such container: {container.id}")
            if container.removing or record.status == "dead":
                raise Conflict(f"You cannot commit container {container.id} which is being removed")
            draft = held.enter_context(await asyncio.to_thread(rooms.images.draft, wanted.parent))
            freeze = options.pause and container.record.running and not container.record.paused
            if freeze:
                await stop.pause(container)
            try:
                await asyncio.to_thread(_write, container, draft)
            finally:
                if freeze and container.record.paused:
                    await stop.unpause(container)
        image, events = await asyncio.to_thread(draft.finish, wanted)
    for event in events:
        rooms.bus.emit("image", event.action, event.actor, event.attributes)
    named = {"imageRef": tag.familiar} if tag is not None else {}
    container.emit("commit", comment=options.comment, imageID=image, **named)
    return Committed(id=image)


def _tag(options: CommitOptions) -> Reference | None:
    if not options.repo:
        if options.tag:
            raise InvalidRequest("a tag without a repository")
        return None
    return with_tag(options.repo, options.tag)


def _write(container: Container, draft: Draft) -> None:
    """Write the upper folder's changes as a layer; ids on the disk are the container's own."""
    unchanged = frozenset(compared(container).unchanged)
    with open_fd(container.rooms.layers.upper(container.id), os.O_RDONLY | os.O_DIRECTORY) as upper:
        draft.write(tree_tar(upper, Source(overlay=True, skip=unchanged)))


def _words(value: list[str] | str | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def _settings(config: ContainerConfig, body: ContainerConfig, changes: list[str]) -> Settings:
    """Return the container's settings, with those of the body over them, and the changes over both."""
    own = _of_container(config)
    if body == ContainerConfig():
        return apply_changes(own, changes)
    given = apply_changes(_of_container(body), changes)
    merged: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        mine, below = getattr(given, name), getattr(own, name)
        merged[name] = mine or below
        if name in _JOINED and mine and below:
            merged[name] = {**below, **mine}
    known = {entry.partition("=")[0] for entry in given.env or ()}
    merged["env"] = [*(given.env or ()), *(one for one in own.env or () if one.partition("=")[0] not in known)] or None
    if given.entrypoint and not given.cmd:
        merged["cmd"] = None
    return Settings(**merged)


def _of_container(config: ContainerConfig) -> Settings:
    plain = msgspec.to_builtins(config)
    for name in ("Cmd", "Entrypoint"):
        if isinstance(plain.get(name), str):
            plain[name] = [plain[name]]
    return msgspec.convert({key: value for key, value in plain.items() if value is not None}, Settings)
