"""Statistics for whoever looks on: one round a second over all that are watched, in one thread, shared by every listener."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from sampan.engine.containers.container import Container
from sampan.engine.containers.sample import Host, nothing, sample
from sampan.wire import stats as w
from sampan.wire.shape import NEVER

PERIOD = 1.0
log = logging.getLogger("sampan.engine")


class Collector:
    """Takes samples only while somebody listens."""

    def __init__(self) -> None:
        self._listeners: dict[Container, set[asyncio.Queue[w.ContainerStats | None]]] = {}
        self._last: dict[Container, w.ContainerStats] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def watched(self) -> int:
        return len(self._listeners)

    async def once(self, container: Container) -> w.ContainerStats:
        """Return one sample without the one before it."""
        return await asyncio.to_thread(lambda: sample(container, Host(), None))

    async def second(self, container: Container) -> w.ContainerStats:
        """Return a sample together with the one before it: at once when somebody is looking on already."""
        if not container.record.running:
            return nothing(container)
        last = nothing(container)
        stream = self.stream(container)
        try:
            async for last in stream:
                if last.preread != NEVER or last.read == NEVER:
                    break
        finally:
            await stream.aclose()
        return last

    async def stream(self, container: Container) -> AsyncGenerator[w.ContainerStats, None]:
        """Yield a sample each second until the container is removed."""
        queue: asyncio.Queue[w.ContainerStats | None] = asyncio.Queue(2)
        self._listeners.setdefault(container, set()).add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._rounds())
        try:
            while (found := await queue.get()) is not None:
                yield found
        finally:
            listeners = self._listeners.get(container, set())
            listeners.discard(queue)
            if not listeners:
                self._listeners.pop(container, None)
                self._last.pop(container, None)

    async def _rounds(self) -> None:
        try:
            await self._work()
        except Exception:
            log.exception("statistics")
            self._end()  # nobody waits for a round that never comes

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while self._listeners:
            watched = list(self._listeners)
            found = await asyncio.to_thread(self._round, watched)
            for container, one in found.items():
                self._tell(container, one)
            due = max(due + PERIOD, loop.time())
            await asyncio.sleep(due - loop.time())

    def _round(self, watched: list[Container]) -> dict[Container, w.ContainerStats]:
        host = Host()
        return {one: sample(one, host, self._last.get(one)) for one in watched}

    def _tell(self, container: Container, found: w.ContainerStats) -> None:
        listeners = self._listeners.get(container)
        if listeners is None:
            return
        if found.read == NEVER:
            self._last.pop(container, None)
        else:
            self._last[container] = found
        for queue in listeners:
            if queue.full():  # a slow listener misses samples
                queue.get_nowait()
            queue.put_nowait(None if container.removed else found)

    def close(self) -> None:
        """Let every stream end."""
        if self._task is not None:
            self._task.cancel()
        self._end()

    def _end(self) -> None:
        for listeners in self._listeners.values():
            for queue in listeners:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(None)
