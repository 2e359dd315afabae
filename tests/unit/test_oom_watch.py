"""The watch for memory that ran out, when a container's group goes at the worst moment."""

from __future__ import annotations

import asyncio
import os
import select
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sampan.engine import oom
from sampan.kernel.fds import Fd


class Group:
    """A group of v2 whose memory.events cannot be read any more (ENODEV there; ESPIPE of this pipe)."""

    def __init__(self, *, missed: bool) -> None:
        self.reading, self.writing = os.pipe()
        os.write(self.writing, b"x")
        self.missed = missed

    def exists(self) -> bool:
        return True

    def oom_notice(self) -> Fd:
        return Fd(self.reading)

    def oom_killed(self) -> bool:
        if not self.missed:
            raise FileNotFoundError("memory.events")
        return False


class Container:
    """As much of a container as the watch looks at."""

    id = "a" * 64
    record = SimpleNamespace(oom_killed=False, running=True)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_group_that_goes_while_its_notice_is_read_is_forgotten_and_no_error(
    monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    group, failures = Group(missed=not resumed), []
    monkeypatch.setattr(oom, "group_of", lambda _: group)
    monkeypatch.setattr(oom, "hierarchy", lambda: SimpleNamespace(version=2))
    monkeypatch.setattr(select, "EPOLLPRI", select.EPOLLIN)  # a pipe knows no exceptional state

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        watch = oom.OomWatch()
        watch.began(cast(Any, Container()), resumed=resumed)
        while watch.watched:
            await asyncio.sleep(0)
        watch.close()

    asyncio.run(asyncio.wait_for(watched(), 10))
    os.close(group.writing)
    assert failures == []
    with pytest.raises(OSError):
        os.fstat(group.reading)
