"""The network's one thread: deletes links that nobody waits for, and puts the table back when somebody flushed it.

Deleting a veth waits for a grace period of the kernel (16 ms, one or a hundred links alike), so the links of ended
containers are gathered and deleted together, while whoever ended them goes on.
"""

from __future__ import annotations

import os
import select
import threading
import time
import zlib
from collections.abc import Callable

from sampan.errors import Unavailable
from sampan.kernel.fds import Fd
from sampan.kernel.netlink import Answer
from sampan.kernel.nftables import (
    DELCHAIN,
    DELRULE,
    DELSET,
    DELTABLE,
    NEWCHAIN,
    NEWRULE,
    SUBSYSTEM,
    Nftables,
    rule_chain_of,
    table_of,
)
from sampan.kernel.rtnl import Route
from sampan.network import passage

_LOST = frozenset(SUBSYSTEM << 8 | kind for kind in (DELTABLE, DELCHAIN, DELRULE, DELSET))
_PASSAGE = frozenset(SUBSYSTEM << 8 | kind for kind in (NEWCHAIN, DELRULE))
_APPENDED = SUBSYSTEM << 8 | NEWRULE
_SETTLE = 30.0
_PAUSE = 0.5  # seconds between two restorations: somebody who takes again and again must not keep a processor busy


class Upkeep:
    """start, then `sweep` links; `restore` is called when someone else took from
    `table` (True) or changed iptables' FORWARD chain (False), `tidy` after every sweep.  port: our own socket's."""

    def __init__(self, bridge: str, table: str, port: int, restore: Callable[[bool], None], tidy: Callable[[], None]) -> None:
        self._table = table
        self._port = port
        self._restore = restore
        self._tidy = tidy
        self._group = 0x5A000000 | zlib.crc32(bridge.encode()) & 0xFFFFFF
        self._links: list[str] = []
        self._idle = threading.Condition()
        self._busy = False
        self._ending = False
        self._lost: bool | None = None  # what is to be restored, as `restore` takes it
        self._restored = 0.0
        self._wake = Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._route = Route()
        self._watch = Nftables(watch=True)
        self.problem = ""  # the last failure, for `info`
        self._thread = threading.Thread(target=self._run, name=f"net {bridge}", daemon=True)
        self._thread.start()

    def sweep(self, *names: str) -> None:
        """Delete these links soon."""
        with self._idle:
            self._links += names
        os.eventfd_write(self._wake.fileno(), 1)

    def settle(self) -> None:
        """Wait until every link given to `sweep` is gone.  Raises Unavailable after 30 s."""
        with self._idle:
            if not self._idle.wait_for(lambda: not self._links and not self._busy, _SETTLE):
                raise Unavailable(f"links of {self._table} are still being deleted")

    def close(self) -> None:
        """Sweep what is left and end the thread."""
        with self._idle:
            if self._ending:
                return
            self._ending = True
        os.eventfd_write(self._wake.fileno(), 1)
        self._thread.join()
        for owned in (self._wake, self._route, self._watch):
            owned.close()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake.fileno(), select.POLLIN)
        poll.register(self._watch.fileno(), select.POLLIN)
        while True:
            due = max(0.0, self._restored + _PAUSE - time.monotonic())
            try:
                for fd, _ in poll.poll(None if self._lost is None else due * 1000 + 1):
                    if fd == self._wake.fileno():
                        os.eventfd_read(fd)
                        self._sweep()
                        self._tidy()
                    else:
                        self._look()
                self._put_back()
            except OSError as error:
                self.problem = str(error)
            with self._idle:
                if self._ending and not self._links:
                    return

    def _sweep(self) -> None:
        with self._idle:
            names, self._links, self._busy = self._links, [], True
        try:
            if names:
                self._route.remove(names, self._group)
        finally:
            with self._idle:
                self._busy = False
                self._idle.notify_all()

    def _look(self) -> None:
        """Read what others changed: our tables are to be made anew, our rules in iptables' FORWARD chain put back (passage.py)."""
        try:
            seen = [notice for notice in self._watch.listen() if notice.port != self._port]
        except OSError:  # ENOBUFS: notices were lost, so anything may have happened
            self._lost = True
            return
        if any(one.kind in _LOST and table_of(one) == self._table for one in seen):
            self._lost = True
        elif any(_in_the_way(one) for one in seen if table_of(one) == passage.TABLE):
            self._lost = self._lost or False

    def _put_back(self) -> None:
        """Restore what is lost, unless that was done just now: then it is done a little later."""
        if self._lost is not None and time.monotonic() >= self._restored + _PAUSE:
            lost, self._lost, self._restored = self._lost, None, time.monotonic()
            self._restore(lost)


def _in_the_way(notice: Answer) -> bool:
    return notice.kind in _PASSAGE or (notice.kind == _APPENDED and rule_chain_of(notice) == passage.CHAIN)
