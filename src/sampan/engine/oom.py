"""Out of memory, told when it happens: one epoll for all running containers, on v1's eventfds and v2's memory.events.

The keeper says at the end whether the kernel killed something; what happens while the container goes on (a worker killed, an
exec killed) is heard here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select

from sampan.engine.containers.container import Container
from sampan.engine.containers.groups import group_of, hierarchy
from sampan.errors import SampanError
from sampan.kernel.fds import Fd

log = logging.getLogger("sampan.engine")


class OomWatch:
    """Begins and ends with containers; in the event loop's thread only."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Container, Fd]] = {}
        self._numbers: dict[Container, int] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._ready)

    @property
    def watched(self) -> int:
        return len(self._watched)

    def began(self, container: Container, *, resumed: bool = False) -> None:
        """The container runs.  `resumed`: since before this daemon, which then looks what it missed."""
        self.ended(container)
        try:
            group = group_of(container)
            notice = group.oom_notice()
        except (SampanError, OSError) as error:  # it has ended, or there is no such controller
            log.debug("out-of-memory notices of %s: %s", container.id[:12], error)
            return
        try:
            self._epoll.register(notice.fileno(), select.EPOLLIN if hierarchy().version == 1 else select.EPOLLPRI)
            missed = resumed and not container.record.oom_killed and group.oom_killed()
        except (SampanError, OSError) as error:  # its group went meanwhile
            notice.close()  # and with it, epoll's interest in it
            log.debug("out-of-memory notices of %s: %s", container.id[:12], error)
            return
        self._watched[notice.fileno()] = (container, notice)
        self._numbers[container] = notice.fileno()
        if missed:
            self._tell(container)

    def ended(self, container: Container) -> None:
        number = self._numbers.pop(container, None)
        if number is not None:
            self._forget(number)

    def _forget(self, number: int) -> None:
        container, notice = self._watched.pop(number)
        self._numbers.pop(container, None)
        self._epoll.unregister(number)
        notice.close()

    def _ready(self) -> None:
        for number, _ in self._epoll.poll(0):
            if number not in self._watched:
                continue
            container, _ = self._watched[number]
            try:
                killed = group_of(container).exists() and self._killed(container, number)
            except (SampanError, OSError) as error:  # v2: a file of a group that went meanwhile is ENODEV
                log.debug("out-of-memory notices of %s: %s", container.id[:12], error)
                self._forget(number)
                continue
            if killed:
                self._tell(container)
            elif not group_of(container).exists():  # the eventfd's last word is the group's end
                self._forget(number)

    @staticmethod
    def _killed(container: Container, number: int) -> bool:
        """Read the notice, so that epoll is quiet until the next.  Raises OSError when the group has gone."""
        if hierarchy().version == 1:
            os.read(number, 8)
            return True
        return b"oom_kill 0\n" not in os.pread(number, 4096, 0) and not container.record.oom_killed

    def _tell(self, container: Container) -> None:
        if container.record.running:
            container.update(durable=False, oom_killed=True)
            container.emit("oom")

    def close(self) -> None:
        for number in list(self._watched):
            self._forget(number)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
