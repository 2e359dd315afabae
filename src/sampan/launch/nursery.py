"""Keeper, starter and init made before anybody asks: a fork and a clone less, and their page faults, on a start's path."""

from __future__ import annotations

import os
import select

from sampan.kernel.fds import Fd, keep_only
from sampan.launch import bare, keeper, starter
from sampan.launch.channel import Channel
from sampan.launch.host import Host

_PATIENCE = 5000  # milliseconds that a brood may take to end


class Nursery:
    """Holds one brood.  `busy`, the last one sent off, gets readable when its start is over."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ready: bare.Socket | None = None
        self._keeper = Fd(-1)  # a pidfd of the waiting brood's keeper, which ends last
        self.busy: bare.Socket | None = None

    def fill(self) -> None:
        """Make a brood unless there is one.  Raises OSError when the host has no room for more processes."""
        if self._ready is None:
            self._ready = self._brood()

    def close(self) -> None:
        """Let the waiting brood end, and return when it has."""
        self.rest()
        if self._ready is not None:
            self._ready.close()
            self._ready = None
            poller = select.poll()
            poller.register(self._keeper.fileno(), select.POLLIN)
            poller.poll(_PATIENCE)
            self._keeper.close()

    def send(self, body: bytes, ancillary: bare.Ancillary) -> None:
        """Give a Launch to a brood.  Raises OSError."""
        try:
            self.fill()
            self._hand(body, ancillary)
        except (BrokenPipeError, ConnectionResetError):  # somebody killed it
            self.fill()
            self._hand(body, ancillary)

    def _hand(self, body: bytes, ancillary: bare.Ancillary) -> None:
        orders, self._ready = self._ready, None
        assert orders is not None
        self._keeper.close()
        try:
            bare.send(orders, body, ancillary)
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

    def _brood(self) -> bare.Socket:
        ours, theirs = bare.pair()
        try:
            upper, lower = bare.pair()
            try:
                pid = os.fork()
                if pid == 0:
                    self._become_keeper(theirs, upper, lower)
                self._keeper = Fd(os.pidfd_open(pid))
            finally:
                upper.close()
                lower.close()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def _become_keeper(self, orders: bare.Socket, upper: bare.Socket, lower: bare.Socket) -> None:
        """In the child: fork the starter, then wait for what it hands over."""
        try:
            pid = os.fork()
            if pid == 0:
                keep_only([0, 1, 2, orders.fileno(), lower.fileno()])
                starter.main(Channel.adopt(Fd(orders.detach())), Channel.adopt(Fd(lower.detach())), self._host)
            bare.close_all_but(upper)
            keeper.main(pid, upper, self._host)
        finally:
            os._exit(1)
