"""A container in memory: its record, its keeper, who waits for it and who is attached."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from sampan import messages as m
from sampan.engine.containers.healthcheck import Health
from sampan.engine.context import Rooms
from sampan.engine.keepers import Keeper, gone
from sampan.engine.records import ContainerRecord
from sampan.errors import Broken, Conflict
from sampan.kernel.fds import Fd
from sampan.network.records import Endpoint
from sampan.oci.runtime import Mount
from sampan.wire.containers import HostConfig

if TYPE_CHECKING:
    from sampan.engine.execs.execs import Exec

_LEAVING = 60.0  # seconds: the file system below is written back at the unmount


class Container:
    """Verbs hold `lock`; the record is replaced, never changed."""

    def __init__(self, rooms: Rooms, record: ContainerRecord) -> None:
        self.rooms = rooms
        self.record = record
        self.lock = asyncio.Lock()
        self.keeper: Keeper | None = None
        self.pidfd: Fd | None = None
        self._left: Future[None] | None = None
        self.endpoints: tuple[Endpoint, ...] = ()
        self.pending: list[tuple[socket.socket, m.Attachment]] = []
        self.execs: dict[str, Exec] = {}
        self.removing = False
        self.removed = False
        self.lent_env: list[str] = []  # variables of its next start that no record shows
        self.lent: list[tuple[Mount, Fd]] = []  # further mounts of its next start, whose trees their lender closes
        self.stop_asked = False
        self.restart_task: asyncio.Task[None] | None = None
        self.health: Health | None = None
        self.forget: Callable[[], None] = lambda: None
        self.restarting_by_hand = False
        self._exit_waiters: set[asyncio.Future[None]] = set()
        self._start_waiters: set[asyncio.Future[None]] = set()
        self._removal_waiters: set[asyncio.Future[None]] = set()

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def host(self) -> HostConfig:
        """What the record says, and the daemon where it says nothing: what the container runs with."""
        return self.rooms.defaults.at_start(self.record.host)

    def update(self, *, durable: bool = True, volatile: bool = False, **changed: object) -> None:
        """Replace fields of the record; durable when it returns, unless told otherwise.

        volatile: survives the daemon only.  Not durable at all: in memory, until the next update that is.
        """
        self.record = msgspec.structs.replace(self.record, **changed)
        if durable and not self.record.build:  # of those, that they are there is all that is ever read again
            self.rooms.records.put(self.id, self.record, volatile=volatile)

    def emit(self, action: str, **attributes: str) -> None:
        """Emit an event with the container's name, image and labels."""
        record = self.record
        self.rooms.bus.emit(
            "container", action, self.id,
            {**record.labels, "image": record.image_ref, "name": record.name, **attributes},
        )  # fmt: skip

    # Waiting.

    def on_exit(self) -> asyncio.Future[None]:
        """Return a future that is done at the next exit."""
        return self._register(self._exit_waiters)

    def on_start(self) -> asyncio.Future[None]:
        return self._register(self._start_waiters)

    @property
    def may_write(self) -> bool:
        """Whether there may be more output without a start that somebody asks for."""
        record = self.record
        return record.running or record.restarting or not record.started or self.restarting_by_hand

    def on_removal(self) -> asyncio.Future[None]:
        return self._register(self._removal_waiters)

    @staticmethod
    def _register(waiters: set[asyncio.Future[None]]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.add(future)
        future.add_done_callback(waiters.discard)
        return future

    def tell_exit(self) -> None:
        self._tell(self._exit_waiters)

    def tell_start(self) -> None:
        self._tell(self._start_waiters)

    @staticmethod
    def _tell(waiters: set[asyncio.Future[None]]) -> None:
        for future in list(waiters):
            if not future.done():
                future.set_result(None)

    def tell_removal(self) -> None:
        self.removed = True
        self.tell_exit()
        self._tell(self._removal_waiters)
        for far, _ in self.pending:
            far.close()
        self.pending.clear()

    # The process.

    def signal(self, number: int) -> None:
        """Send a signal to the first process, through its pidfd: never to a later process with its number (row 29)."""
        if self.keeper is not None:
            self.keeper.send(m.Signal(number=number))

    def namespace(self, name: str) -> Fd:
        """Return a namespace of its first process, such as "net".  Raises Conflict when it does not run."""
        try:
            found = Fd(os.open(f"/proc/{self.record.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC))
        except (FileNotFoundError, ProcessLookupError):
            raise Conflict(f"container {self.id} has just ended") from None
        # Still alive after the open: so the number was its own all the time, not a later process's (row 29).
        if not self.record.running or self.pidfd is None or select.select([self.pidfd], [], [], 0)[0]:
            found.close()
            raise Conflict(f"container {self.id} has just ended")
        return found

    def log_path(self) -> str:
        return str(self.rooms.folder(self.id) / f"{self.id}-json.log")

    def let_keeper_go(self) -> None:
        """The container has ended and that is recorded: its keeper leaves, and the mounts with it (see `left`)."""
        if self.keeper is not None:
            self._left = gone(self.keeper.pid)
            with suppress(OSError):
                self.keeper.send(m.Release())
        self.drop_keeper()

    def left(self) -> None:
        """Wait until nothing of the last run has the container's snapshot mounted.  Blocks, in a thread but the loop's.

        Raises Broken when that takes longer than a minute.
        """
        try:
            if self._left is not None:
                self._left.result(_LEAVING)
        except TimeoutError:
            raise Broken(f"what container {self.id} had mounted is still being written back; try again later") from None

    def drop_keeper(self) -> None:
        if self.keeper is not None:
            self.keeper.close()
            self.keeper = None
        if self.pidfd is not None:
            self.pidfd.close()
            self.pidfd = None


def open_folder(path: os.PathLike[str]) -> Fd:
    return Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
