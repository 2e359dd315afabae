"""Keeper, starter and init made before anybody asks: a fork and a clone less, and their page faults, on a start's path."""

from __future__ import annotations

import os

from sampan.kernel.fds import Fd, keep_only
from sampan.launch import keeper, starter
from sampan.launch.channel import Channel, Packet
from sampan.launch.host import Host


class Nursery:
    """Holds one brood.  `fileno()` of the last one sent off gets readable when its start is over."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ready: Channel | None = None
        self.busy: Channel | None = None

    def fill(self) -> None:
        """Make a brood unless there is one.  Raises OSError when the host has no room for more processes."""
        if self._ready is None:
            self._ready = self._brood()

    def send(self, packet: Packet, fds: list[Fd]) -> None:
        """Give a Launch to a brood.  Raises OSError."""
        try:
            self.fill()
            self._hand(packet, fds)
        except (BrokenPipeError, ConnectionResetError):  # somebody killed it
            self.fill()
            self._hand(packet, fds)

    def _hand(self, packet: Packet, fds: list[Fd]) -> None:
        orders, self._ready = self._ready, None
        assert orders is not None
        try:
            orders.forward(packet, fds)
        except BaseException:
            orders.close()
            raise
        self.rest()
        self.busy = orders

    def rest(self) -> None:
        """Stop watching the last one sent off."""
        if self.busy is not None:
            self.busy.close()
            self.busy = None

    def _brood(self) -> Channel:
        ours, theirs = Channel.pair()
        try:
            if os.fork() == 0:
                self._become_keeper(theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def _become_keeper(self, orders: Channel) -> None:
        """In the child: fork the starter, then wait for what it hands over."""
        try:
            upper, lower = Channel.pair()
            pid = os.fork()
            if pid == 0:
                keep_only([0, 1, 2, orders.fileno(), lower.fileno()])
                starter.main(orders, lower, self._host)
            keep_only([0, 1, 2, upper.fileno()])
            keeper.main(pid, upper, self._host)
        finally:
            os._exit(1)
