"""A start that somebody stops waiting for."""

from __future__ import annotations

import asyncio

import pytest

from sampan.engine.containers.start import _to_its_end


def test_who_is_cancelled_leaves_when_the_start_is_over_and_not_before() -> None:
    """Its thread goes on whoever waits: what it made must be somebody's before the container's lock is free."""
    done = []

    async def begun() -> None:
        going, finish = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            going.set()
            await finish.wait()
            done.append("work")

        async def holder() -> None:
            try:
                await _to_its_end(work())
            finally:
                done.append("lock free")

        task = asyncio.create_task(holder())
        await going.wait()
        for _ in range(2):  # however often
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert not task.done() and done == []
        finish.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(begun())
    assert done == ["work", "lock free"]


def test_a_start_that_fails_while_nobody_waits_is_no_unheard_error() -> None:
    heard: list[object] = []

    async def begun() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        going = asyncio.Event()

        async def work() -> None:
            going.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            raise ValueError("the kernel said no")

        task = asyncio.create_task(_to_its_end(work()))
        await going.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(begun())
    assert heard == []
