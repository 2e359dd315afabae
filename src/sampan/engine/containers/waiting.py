"""Wait: registered before it is answered, so that no exit is missed."""

from __future__ import annotations

import asyncio

from sampan.engine.containers.container import Container
from sampan.wire import containers as c


class Wait:
    """A registered wait (api/backend.py Wait)."""

    def __init__(self, container: Container, condition: str) -> None:
        self._container = container
        self._future: asyncio.Future[None] | None = None
        if condition == "removed":
            self._future = container.on_removal()
        elif condition == "next-exit" or container.record.running or container.record.restarting:
            self._future = container.on_exit()

    async def result(self) -> c.WaitResult:
        """Return the exit code of the last exit."""
        if self._future is not None and not self._container.removed:
            await self._future
        record = self._container.record
        return c.WaitResult(status_code=record.exit_code)

    def cancel(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.cancel()
