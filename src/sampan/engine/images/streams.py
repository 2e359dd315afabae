"""Blocking work in a thread, seen by asyncio as a stream; cancelled cleanly.

    producer thread:   report(item) ... ; raises Cancelled from `report` or `check` once nobody listens
    consumer:          async for item in streamed(work)

When the consumer goes away the thread is told, and waited for: what it held it has undone before the stream is closed.
A thread that is blocked in a read of the client's upload ends when the upload does (the API ends it first); it is
given a few seconds, and undoes its work by itself if it needs longer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from sampan.files.digests import Readable

T = TypeVar("T")

_AHEAD = 16  # items that may wait for a slow consumer
_PATIENCE = 5.0  # seconds


class Cancelled(Exception):
    """Nobody wants the result any more."""


class Reporter(Generic[T]):
    """The producer's end; its methods are called in the thread and block while the consumer is behind."""

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[T | None]) -> None:
        self._loop = loop
        self._queue = queue
        self._room = threading.Semaphore(_AHEAD)
        self._gone = threading.Event()

    def report(self, item: T) -> None:
        """Hand an item over.  Raises Cancelled."""
        self._room.acquire()
        self.check()
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def check(self) -> None:
        """Raise Cancelled when nobody listens any more."""
        if self._gone.is_set():
            raise Cancelled

    def took(self) -> None:
        """(Consumer) An item was taken: there is room for another."""
        self._room.release()

    def stop(self) -> None:
        """(Consumer) Nobody listens from here on."""
        self._gone.set()
        self._room.release()


class Watched:
    """A reader that raises Cancelled once nobody wants what is read, and knows how much that was."""

    def __init__(self, source: Readable, check: Callable[[], None], progress: Callable[[int], None] | None = None) -> None:
        self._source = source
        self._check = check
        self._progress = progress
        self.total = 0

    def read(self, size: int = 1 << 20, /) -> bytes:
        self._check()
        data = self._source.read(size)
        self.total += len(data)
        if self._progress is not None:
            self._progress(self.total)
        return data


async def streamed(work: Callable[[Reporter[T]], None]) -> AsyncGenerator[T, None]:
    """Run `work` in a thread and yield what it reports; its exception is raised after the last item."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[T | None] = asyncio.Queue()
    reporter = Reporter(loop, queue)

    done: asyncio.Future[BaseException | None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        queue.put_nowait(None)
        if not done.done():
            done.set_result(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work(reporter)
        except BaseException as caught:  # noqa: BLE001  (carried to the consumer)
            error = caught
        with suppress(RuntimeError):  # the loop is closed: the daemon is going down
            loop.call_soon_threadsafe(finish, error)

    # A thread of its own: a slow client may hold it for hours, and the pool's few serve everybody.
    threading.Thread(target=run, name="image-stream", daemon=True).start()
    try:
        while (item := await queue.get()) is not None:
            reporter.took()
            yield item
        if (error := await done) is not None:
            raise error
    finally:
        if not done.done():
            reporter.stop()
            await asyncio.wait([done], timeout=_PATIENCE)  # told to stop, it may fail as it likes
