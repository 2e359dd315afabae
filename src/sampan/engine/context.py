"""What every verb on containers works with, put together once by the daemon."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from sampan.engine.defaults import Defaults
from sampan.engine.events import Bus
from sampan.engine.images.images import Images
from sampan.engine.jobs import Jobs
from sampan.engine.names import Index
from sampan.engine.records import ContainerRecord
from sampan.engine.userns import Ranges
from sampan.kernel.fds import Fd
from sampan.launch import reaper
from sampan.launch.client import Spawner, start_spawner
from sampan.launch.filters import Filters
from sampan.launch.host import Host
from sampan.launch.nursery import Nursery
from sampan.launch.start import Launch, Meanwhile, Started, start
from sampan.messages import Breed
from sampan.network.manager import Networks
from sampan.state import State, Table
from sampan.storage.overlay import Overlay
from sampan.storage.trash import Trash
from sampan.storage.volumes import Volumes

if TYPE_CHECKING:
    from sampan.engine.containers.container import Container
    from sampan.engine.execs.execs import Execs


_STARTS = 16  # at a time
_BREATH = 0.006  # seconds after a start: making a brood takes a processor from a program that has only just begun, or ends at once
Made = TypeVar("Made")


class Lives(Protocol):
    """Who is told when a container begins, is frozen and ends (engine/health.py)."""

    def began(self, container: Container, *, resumed: bool = False) -> None: ...
    def paused(self, container: Container) -> None: ...
    def ended(self, container: Container) -> None: ...
    def found(self, container: Container) -> None: ...


if TYPE_CHECKING:
    from sampan.engine.containers.container import Container


class Launcher:
    """What starts containers: the spawner, started again when it has died, and broods of it.  Any thread."""

    def __init__(self, interpreter: Fd | None) -> None:
        self._interpreter = interpreter
        self._lock = threading.Lock()
        self.spawner: Spawner = start_spawner(interpreter)
        self._host = Host.look()
        self._nursery = Nursery(self._breed, self._host)
        self._filters = Filters()
        self._reaper: Fd | None = None
        self._soon: asyncio.TimerHandle | None = None
        # A start waits for its init more than it works: not in the loop's own pool, which it would fill.
        self._threads = ThreadPoolExecutor(_STARTS, "sampan-start")
        self._prepare()

    async def start(self, work: Callable[[], Made]) -> Made:
        """Do a start's work in a thread; then have a brood made for the next one, soon."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, work)
        finally:
            if self._soon is not None:
                self._soon.cancel()
            self._soon = loop.call_later(_BREATH, self._prepare)

    def launch(self, launch: Launch, fds: Sequence[Fd], meanwhile: Meanwhile) -> Started:
        """Start a container (launch/start.py).  Blocks."""
        return start(self._nursery, self._filters, self._host, launch, fds, meanwhile)

    def _prepare(self) -> None:
        """Have a brood made while nobody waits for it."""
        with suppress(OSError):  # the next start meets the same, and says it
            self._nursery.fill()

    def _breed(self, request: Breed, fds: Sequence[int | Fd]) -> None:
        spawner = self.spawner
        try:
            spawner.breed(request, fds)
        except (BrokenPipeError, ConnectionResetError):
            self.restart(spawner)
            self.spawner.breed(request, fds)

    def reaper(self) -> Fd:
        """Return a descriptor of the program for --init.  Raises Unsupported, OSError."""
        if self._reaper is None:
            self._reaper = reaper.sealed()
        return Fd(os.dup(self._reaper.fileno()))

    @property
    def program(self) -> str:
        """The interpreter's path (the sealed one's, where there is one), good in children with other descriptors too."""
        return f"/proc/{os.getpid()}/fd/{self._interpreter.fileno()}" if self._interpreter is not None else sys.executable

    def restart(self, dead: Spawner) -> None:
        """Start another one in the place of a dead one; containers do not notice."""
        with self._lock:
            if self.spawner is dead:
                dead.close()
                self.spawner = start_spawner(self._interpreter)

    def close(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
        self._threads.shutdown()
        self._nursery.close()
        self.spawner.close()
        self._filters.close()
        if self._reaper is not None:
            self._reaper.close()
        if self._interpreter is not None:
            self._interpreter.close()


class Memory(Protocol):
    """Who is told when a container begins and ends (engine/oom.py)."""

    def began(self, container: Container, *, resumed: bool = False) -> None: ...
    def ended(self, container: Container) -> None: ...


@dataclass
class Rooms:
    """The rooms below, and the engine's own tables.  cgroup_parent begins with "/"."""

    data_root: Path
    exec_root: Path
    state: State
    layers: Overlay
    images: Images
    networks: Networks
    launcher: Launcher
    bus: Bus
    volumes: Volumes
    cgroup_parent: str = "/sampan"
    jobs: Jobs = field(default_factory=Jobs)
    index: Index = field(default_factory=Index)
    containers: dict[str, Container] = field(default_factory=dict)
    stopping: bool = False
    defaults: Defaults = field(default_factory=Defaults)
    health: Lives | None = None
    execs: Execs | None = None
    oom: Memory | None = None

    def __post_init__(self) -> None:
        self.records: Table[ContainerRecord] = Table(self.state, "container", ContainerRecord)
        self.ranges = Ranges(self.data_root)
        self.trash = Trash(self.data_root / "trash")  # of containers' folders

    def state_dir(self, container: str) -> Path:
        return self.exec_root / "containers" / container

    def folder(self, container: str) -> Path:
        return self.data_root / "containers" / container
