"""Containers as the API asks for them (api/backend.py): find, lock, and hand the request to its verb."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from builtins import list as List
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from typing import BinaryIO

from msgspec import structs

from sampan import messages as m
from sampan.engine.containers import (
    archive,
    attach,
    commit,
    create,
    export,
    inspect,
    legacy_links,
    listing,
    logs,
    prune,
    remove,
    start,
    stats,
    stop,
    top,
    unlink,
    update,
    validate,
    waiting,
)
from sampan.engine.containers.container import Container
from sampan.engine.context import Rooms
from sampan.errors import Conflict, InvalidRequest, NotFound, NotModified
from sampan.wire import containers as c
from sampan.wire import resources as r
from sampan.wire import stats as st
from sampan.wire import system as s
from sampan.wire.archive import Change, CommitOptions, Committed, PathStat

Filters = Mapping[str, tuple[str, ...]]


class Containers:
    """Every container of the data root."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.all = rooms.containers
        self._pruning = False
        self.statistics = stats.Collector()

    def find(self, ref: str) -> Container:
        """Return the container that `ref` means, also by another's link to it.  Raises NotFound, InvalidRequest."""
        try:
            return self.all[self.rooms.index.find(ref)]
        except NotFound:
            parent, _, alias = ref.removeprefix("/").partition("/")
            owner = self.all.get(self.rooms.index.find(parent)) if parent and alias else None
            target = legacy_links.target(owner.record, alias) if owner is not None else ""
            if not target:
                raise
            return self.find(target)

    def add(self, container: Container) -> None:
        self.all[container.id] = container
        container.forget = functools.partial(self._drop, container.id)

    def _drop(self, container: str) -> None:
        self.all.pop(container, None)

    async def create(self, name: str | None, body: c.CreateBody, platform: str = "") -> c.Created:
        body = self._full_modes(body)
        container, warnings = create.create(self.rooms, name, body, platform)
        self.add(container)
        return c.Created(id=container.id, warnings=warnings)

    def _full_modes(self, body: c.CreateBody) -> c.CreateBody:
        """Store `container:NAME` modes with the full ID."""
        host = body.host_config
        if host is None:
            return body
        changed = {}
        for field in ("network_mode", "pid_mode", "ipc_mode"):
            value = getattr(host, field)
            if value.startswith("container:"):
                with contextlib.suppress(NotFound):  # the start says so, as docker's does
                    changed[field] = "container:" + self.find(value.removeprefix("container:")).id
        return structs.replace(body, host_config=structs.replace(host, **changed)) if changed else body

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> List[c.ContainerSummary]:
        found = listing.selected(self.rooms, self.all, filters, all=all, limit=limit)
        links = legacy_links.names(one.record for one in self.all.values())
        if size:
            return await asyncio.to_thread(lambda: [inspect.summary(one, links, size=True) for one in found])
        return [inspect.summary(one, links, size=False) for one in found]

    async def inspect(self, ref: str, *, size: bool = False) -> c.ContainerInspect:
        container = self.find(ref)
        if size:
            return await asyncio.to_thread(lambda: inspect.inspect(container, size=True))
        return inspect.inspect(container, size=False)

    async def start(self, ref: str) -> None:
        container = self.find(ref)
        async with container.lock:
            self._present(container)
            container.update(durable=False, restart_count=0, backoff=0.0)
            try:
                await asyncio.shield(start.start(container))
            except NotModified:
                raise
            except Exception:
                refused = container.record.running or container.removing or self.rooms.stopping
                if container.record.host.auto_remove and not refused:
                    await remove.remove(container, force=True, volumes=True)
                raise

    async def stop(self, ref: str, *, timeout: int | None, signal: str = "") -> None:
        container = self.find(ref)
        await asyncio.shield(self._stop(container, timeout, signal))

    async def _stop(self, container: Container, timeout: int | None, signal: str) -> None:
        async with container.lock:
            self._present(container)
            await stop.stop(container, timeout, signal)

    async def restart(self, ref: str, *, timeout: int | None, signal: str = "") -> None:
        container = self.find(ref)
        async with container.lock:
            self._present(container)
            container.restarting_by_hand = True
            try:
                await self._restart(container, timeout, signal)
            finally:
                container.restarting_by_hand = False
            container.emit("restart")

    @staticmethod
    async def _restart(container: Container, timeout: int | None, signal: str) -> None:
        if container.record.running:
            held, container.removing = container.removing, container.record.host.auto_remove or container.removing
            try:
                await stop.stop(container, timeout, signal)
            finally:
                container.removing = held
        container.update(durable=False, stopped_by_hand=False)
        await start.start(container)

    async def kill(self, ref: str, *, signal: str = "") -> None:
        await stop.kill(self.find(ref), signal)

    async def rename(self, ref: str, name: str) -> None:
        container = self.find(ref)
        try:
            new = validate.name(name)
        except InvalidRequest as error:
            raise InvalidRequest(f"Error when allocating new name: {error}") from None
        async with container.lock:
            self._present(container)
            old = container.record.name
            if old == new:
                raise InvalidRequest("Renaming a container with the same name as its current name")
            try:
                self.rooms.index.rename(old, new)
            except Conflict as error:
                raise Conflict(f"Error when allocating new name: {error}") from None
            try:
                container.update(name=new)
            except BaseException:
                self.rooms.index.rename(new, old)
                raise
            await asyncio.to_thread(self.rooms.networks.rename, container.id, old, new)
            container.emit("rename", oldName=f"/{old}")

    async def pause(self, ref: str) -> None:
        container = self.find(ref)
        async with container.lock:
            await stop.pause(container)

    async def unpause(self, ref: str) -> None:
        container = self.find(ref)
        async with container.lock:
            await stop.unpause(container)

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        container = self.find(ref)
        if link:
            parent, alias = unlink.split(ref)
            async with (owner := self.find(parent)).lock:
                self._present(owner)
                await unlink.unlink(owner, alias)
            return
        if container.removing:
            raise Conflict(f"removal of container {container.id} is already in progress")
        if container.record.running and not force:
            await remove.remove(container, force=False, volumes=volumes)
        async with container.lock:
            self._present(container)
            await asyncio.shield(remove.remove(container, force=force, volumes=volumes))

    @staticmethod
    def _present(container: Container) -> None:
        if container.removed:
            raise NotFound(f"No such container: {container.id}")

    async def prune(self, filters: Filters) -> c.PruneResult:
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        try:
            deleted, freed = await prune.prune(self.all.values(), filters)
        finally:
            self._pruning = False
        self.rooms.bus.emit("container", "prune", "", {"reclaimed": str(freed)})
        return c.PruneResult(containers_deleted=deleted or None, space_reclaimed=freed)

    async def resize(self, ref: str, *, height: int, width: int) -> None:
        container = self.find(ref)
        if container.keeper is None:
            raise Conflict(f"container {container.id} is not running")
        container.keeper.send(m.Resize(height=height, width=width))
        container.emit("resize", height=str(height), width=str(width))

    async def top(self, ref: str, ps_args: str) -> s.Top:
        container = self.find(ref)
        found = await asyncio.to_thread(top.top, container, ps_args)
        container.emit("top")
        return found

    async def path_stat(self, ref: str, path: str) -> PathStat:
        container = self.find(ref)
        async with container.lock:
            self._present(container)
            return await asyncio.to_thread(archive.path_stat, container, path, ref.lstrip("/"))

    async def copy_out(self, ref: str, path: str) -> archive.Outgoing:
        container = self.find(ref)
        async with container.lock:
            self._present(container)
            found = await asyncio.to_thread(archive.outgoing, container, path, ref.lstrip("/"))
        container.emit("archive-path", path=path)
        return found

    async def copy_in(self, ref: str, path: str, tar: BinaryIO, *, keep_kinds: bool, as_user: bool) -> None:
        container = self.find(ref)
        await asyncio.shield(self._copy_in(container, archive.Wish(path, ref.lstrip("/"), keep_kinds, as_user), tar))
        container.emit("extract-to-dir", path=path)

    async def _copy_in(self, container: Container, wish: archive.Wish, tar: BinaryIO) -> None:
        async with AsyncExitStack() as held:
            await held.enter_async_context(container.lock)
            self._present(container)
            incoming = await asyncio.to_thread(archive.Incoming, container, wish)
            try:
                if container.record.running:  # it writes to the container's own mount: nobody need wait
                    await held.aclose()
                await asyncio.to_thread(incoming.apply, tar)
            finally:
                incoming.close()

    async def export(self, ref: str) -> export.Export:
        container = self.find(ref)
        async with container.lock:
            self._present(container)
            found = await asyncio.to_thread(export.export, container)
        container.emit("export")
        return found

    async def changes(self, ref: str) -> List[Change]:
        container = self.find(ref)
        return await asyncio.to_thread(export.list_changes, container)

    async def commit(self, ref: str, options: CommitOptions, body: c.ContainerConfig) -> Committed:
        return await asyncio.shield(commit.commit(self.find(ref), options, body))

    async def stats(self, ref: str, *, one_shot: bool) -> st.ContainerStats:
        """One sample; unless `one_shot`, together with the one before it."""
        container = self.find(ref)
        return await (self.statistics.once(container) if one_shot else self.statistics.second(container))

    def stats_stream(self, ref: str) -> AsyncGenerator[st.ContainerStats, None]:
        """A sample each second.  Raises NotFound at once."""
        return self.statistics.stream(self.find(ref))

    async def update(self, ref: str, body: r.UpdateBody) -> r.Updated:
        container = self.find(ref)
        async with container.lock:
            self._present(container)
            return r.Updated(warnings=await asyncio.shield(update.update(container, body)) or None)

    async def registered_wait(self, ref: str, condition: str) -> waiting.Wait:
        return waiting.Wait(self.find(ref), condition)

    async def attach(self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, stream: bool, logs: bool) -> attach.Stream:
        return await attach.attach(self.find(ref), stdin=stdin, stdout=stdout, stderr=stderr, stream=stream, logs=logs)

    async def logs(self, ref: str, options: s.LogOptions) -> logs.Logs:
        return logs.Logs(self.find(ref), options)
