"""The messages of a build on their way to its client: bounded, whatever its commands print and however slowly it reads."""

from __future__ import annotations

import asyncio
from collections import deque

from sampan.wire.images import Progress

ROOM = 4 << 20  # bytes that may wait


class Outbox:
    """One build's.  Messages go in at once; who prints much asks for `room` first, and so its pipe fills and it waits."""

    def __init__(self) -> None:
        self._waiting: deque[Progress] = deque()
        self._size = 0
        self._ended = False
        self._some, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()

    def put(self, message: Progress) -> None:
        self._waiting.append(message)
        self._size += len(message.stream)
        self._some.set()
        if self._size > ROOM:
            self._room.clear()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._some.set()

    async def get(self) -> Progress | None:
        """Return the next message; None after the last."""
        while not self._waiting:
            if self._ended:
                return None
            self._some.clear()
            await self._some.wait()
        message = self._waiting.popleft()
        self._size -= len(message.stream)
        if self._size <= ROOM:
            self._room.set()
        return message

    async def room(self) -> None:
        """Return once the client is not too far behind."""
        await self._room.wait()


class Kept:
    """The messages of a quiet build, for when it fails: of very many the last."""

    def __init__(self) -> None:
        self._messages: deque[Progress] = deque()
        self._size = 0
        self._cut = False

    def put(self, message: Progress) -> None:
        self._messages.append(message)
        self._size += len(message.stream)
        while self._size > ROOM:
            self._size -= len(self._messages.popleft().stream)
            self._cut = True

    def all(self) -> list[Progress]:
        return [*([Progress(stream="[output cut]\n")] if self._cut else []), *self._messages]
