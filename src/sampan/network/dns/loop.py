"""Descriptors and deadlines: one epoll, callbacks, and a heap of timers."""

from __future__ import annotations

import heapq
import select
import sys
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
Ready = Callable[[], None]


class Timer:
    """A callback that is due; `cancel` makes it nothing."""

    __slots__ = ("call",)

    def __init__(self, call: Ready | None) -> None:
        self.call = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """An exception of a callback is written down and ends nothing."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Ready] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._told = 0.0
        self.over = False

    def watch(self, fd: int, events: int, call: Ready) -> None:
        self._epoll.register(fd, events)
        self._calls[fd] = call

    def change(self, fd: int, events: int, call: Ready) -> None:
        self._epoll.modify(fd, events)
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, call: Ready) -> Timer:
        self._count += 1
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, timer))
        return timer

    def run(self) -> None:
        while not self.over:
            while self._timers and self._timers[0][2].call is None:
                heapq.heappop(self._timers)
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for fd, _ in self._epoll.poll(wait, 64):
                call = self._calls.get(fd)
                if call is not None:
                    self._do(call)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due = heapq.heappop(self._timers)[2].call
                if due is not None:
                    self._do(due)

    def _do(self, call: Ready) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 - whatever a packet brought about, the others are to be answered
            if time.monotonic() - self._told > 1:
                self._told = time.monotonic()
                kind, error, trace = sys.exc_info()
                while trace is not None and trace.tb_next is not None:
                    trace = trace.tb_next
                where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
                sys.stderr.write(f"sampan-names: {kind.__name__ if kind else ''}: {error} ({where})\n")
                sys.stderr.flush()
