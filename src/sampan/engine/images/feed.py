"""Progress messages as Docker's client draws them, from many layers at once to one listener."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine

from sampan.engine.images.context import Event
from sampan.wire.images import Progress, ProgressDetail

EVERY = 0.1  # seconds between two counts of one layer
AHEAD = 64  # messages waiting for a slow client; counts beyond are left out
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_BAR = 50


class Feed:
    """Messages on their way to a client; used in the event loop's thread.  Ends with None."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Progress | Event | None] = asyncio.Queue()
        self._last: dict[str, float] = {}

    def say(self, status: str, id: str = "") -> None:
        """A line without a layer, "Digest: ...", or with something like one, "latest: Pulling from ..."."""
        self.queue.put_nowait(Progress(status=status, id=id))

    def step(self, id: str, status: str) -> None:
        """A layer comes to its next step."""
        self._last.pop(id, None)
        self.queue.put_nowait(Progress(status=status, id=id, progress_detail=ProgressDetail()))

    def count(self, id: str, status: str, current: int, total: int) -> None:
        """How far a layer is; now and then."""
        now = time.monotonic()
        if now - self._last.get(id, 0.0) < EVERY or self.queue.qsize() > AHEAD:
            return
        self._last[id] = now
        detail = ProgressDetail(current=current, total=total)
        self.queue.put_nowait(Progress(status=status, id=id, progress_detail=detail, progress=bar(current, total)))

    def event(self, event: Event) -> None:
        self.queue.put_nowait(event)

    def aux(self, **values: object) -> None:
        self.queue.put_nowait(Progress(progress_detail=ProgressDetail(), aux=values))

    def end(self) -> None:
        self.queue.put_nowait(None)


async def fed(
    work: Callable[[Feed], Coroutine[None, None, None]], gate: asyncio.Semaphore
) -> AsyncGenerator[Progress | Event, None]:
    """Run `work`, as many at once as `gate` has places, and yield what it tells; closing the generator stops it.

    Raises what it raises, after the last message.
    """
    feed = Feed()

    async def run() -> None:
        try:
            async with gate:
                await work(feed)
        finally:
            feed.end()

    task = asyncio.ensure_future(run())
    try:
        while (item := await feed.queue.get()) is not None:
            yield item
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()


def bar(current: int, total: int) -> str:
    """Return the text that clients show which cannot draw: "[====>   ]  1.2MB/3.4MB"."""
    if total <= 0:
        return f"{human(current):>8}" if current > 0 else ""
    full = min(_BAR, _BAR * current // total)
    drawn = "=" * full + ">"
    counts = f"{human(current):>8}/{human(total)}" if current <= total else f"{human(current):>8}"
    return f"[{drawn:<{_BAR + 1}}] {counts}"


def human(size: int) -> str:
    """Return bytes as Docker writes them: four significant digits, powers of 1000."""
    value, unit = float(size), 0
    while value >= 1000.0 and unit < len(_UNITS) - 1:
        value, unit = value / 1000.0, unit + 1
    return f"{value:.4g}{_UNITS[unit]}"
