"""The daemon's hold on broods: a keeper with an init that wait to be told what they are, one of them made before anybody asks."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from sampan import messages
from sampan.cgroups import Doors
from sampan.errors import StepFailed
from sampan.kernel.fds import Fd
from sampan.kernel.process import parent_of, pid_of, pidfd_signal
from sampan.launch import newborn
from sampan.launch.channel import Channel
from sampan.launch.host import Host
from sampan.launch.namespaces import USUAL, Namespaces

_LEAVING = 20000  # milliseconds that a brood may take to end
Send = Callable[[messages.Breed, Sequence[int | Fd]], None]


class Brood(NamedTuple):
    """A keeper and its child, an init that waits for its Task.  Owned by whoever took it."""

    keeper: Channel
    keeper_pid: int
    init: Channel
    pid: int
    pidfd: Fd

    def end(self) -> None:
        """End what never was a container, and return when it has: its names are free then."""
        with suppress(ProcessLookupError):
            pidfd_signal(self.pidfd, 9)
        self.init.close()
        self.keeper.hang_up()
        for fd in (self.pidfd.fileno(), self.keeper.fileno()):
            watch = select.poll()
            watch.register(fd, select.POLLIN)
            watch.poll(_LEAVING)
        self.pidfd.close()
        self.keeper.close()


class _Expected(NamedTuple):
    """A brood that was asked for."""

    keeper: Channel
    init: Channel

    def close(self) -> None:
        self.keeper.close()
        self.init.close()


class Nursery:
    """Asks the spawner for broods.  Any thread."""

    def __init__(self, send: Send, host: Host) -> None:
        self._send = send
        self._early = not host.born_in_group  # such a brood cannot be made before its group is known
        self._lock = threading.Lock()
        self._next: _Expected | None = None

    def fill(self) -> None:
        """Ask for a brood to be made while nobody waits, unless there is one.  Raises OSError when the spawner is dead."""
        if self._early:
            with self._lock:
                if self._next is None:
                    self._next = self._ask(Namespaces(USUAL), Doors(), early=True)  # as birth.EARLY

    def take(self, wanted: Namespaces, doors: Doors) -> Brood:
        """Return a brood in these namespaces; with a folder or joined namespaces it is born in the group of `doors`.

        Raises StepFailed, OSError when the spawner is dead.
        """
        expected = None
        if self._early and wanted == Namespaces(USUAL):
            with self._lock:
                expected, self._next = self._next, None
        if expected is not None:
            brood = self._grown(expected)
            if brood is not None:
                return brood
        return self._born(self._ask(wanted, doors, early=False))

    def close(self) -> None:
        """Let the waiting brood end, and return when it has."""
        with self._lock:
            expected, self._next = self._next, None
        if expected is not None:
            brood = self._grown(expected)
            if brood is not None:
                brood.end()

    def _ask(self, wanted: Namespaces, doors: Doors, *, early: bool) -> _Expected:
        keeper, keepers = Channel.pair()
        init, inits = Channel.pair()
        fds: list[int | Fd] = [keepers.fileno(), inits.fileno()]

        def place(fd: Fd) -> int:
            fds.append(fd)
            return len(fds) - 1

        try:
            request = messages.Breed(
                make=wanted.make, early=early, join=tuple((place(fd), kind) for fd, kind in wanted.join),
                folder=None if doors.folder is None else place(doors.folder),
                tasks=tuple(place(fd) for fd in doors.tasks),
            )  # fmt: skip
            self._send(request, fds)
        except BaseException:
            keeper.close()
            init.close()
            raise
        finally:
            keepers.close()
            inits.close()
        return _Expected(keeper, init)

    def _grown(self, expected: _Expected) -> Brood | None:
        """Return the brood made ahead, None when nothing has come of it or something has happened to it since."""
        try:
            brood = self._born(expected)
        except (OSError, StepFailed):
            return None  # no room for processes or namespaces then: the next one says so, if there is none now
        watch = select.poll()
        watch.register(brood.pidfd.fileno(), select.POLLIN)
        watch.register(brood.keeper.fileno(), select.POLLIN)
        watch.register(brood.init.fileno(), select.POLLIN)  # it says nothing unasked but that it failed
        if watch.poll(0):
            brood.end()
            return None
        return brood

    def _born(self, expected: _Expected) -> Brood:
        fds: list[Fd] = []
        try:
            message, fds = newborn.hear(expected.init)
            if not isinstance(message, messages.Born) or not fds:
                raise newborn.failure(message)
            pid = message.pid or pid_of(fds[0])
            keeper = message.keeper_pid or parent_of(pid)
        except BaseException:
            expected.close()
            for fd in fds:
                fd.close()
            raise
        return Brood(expected.keeper, keeper, expected.init, pid, fds[0])
