"""Blocking work that must not be left alone: when its coroutine is cancelled, the thread is waited for first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def finish(
    work: Callable[[], T],
    executor: Executor | None = None,
    *,
    stop: Callable[[], object] | None = None,
    undo: Callable[[T], object] | None = None,
) -> T:
    """Run `work` in a thread and return its result.

    Cancelled meanwhile: `stop` may tell the thread, which is waited for; `undo` is given the result that nobody wants.
    """
    future = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue
        if not future.cancelled() and future.exception() is None and undo is not None:
            undo(future.result())
        raise
