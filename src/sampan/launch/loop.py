"""The keeper's event loop: descriptors, what they wait for, who is called.  epoll(7), level-triggered."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

READ, WRITE, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR
Handler = Callable[[int], None]


class Loop:
    """Single-threaded.  A handler gets the epoll event bits."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []

    def after(self, seconds: float, handler: Callable[[], None]) -> None:
        """Call `handler` once, when so much time has passed."""
        self._later.append((time.monotonic() + seconds, handler))

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Call `handler` when one of `events` holds (hang-up and error always do); replaces an earlier watch."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Stop watching; before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def step(self) -> None:
        """Wait for events and handle them."""
        left = max(0.0, min(moment for moment, _ in self._later) - time.monotonic()) if self._later else None
        for fd, events in self._epoll.poll(left):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)
        if self._later:
            now = time.monotonic()
            due = [one for one in self._later if one[0] <= now]
            self._later = [one for one in self._later if one[0] > now]
            for _, call in due:
                call()

    def close(self) -> None:
        """End it; what was watched is its owners' to close."""
        self._epoll.close()
