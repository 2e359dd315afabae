"""Info, version, jobs, events, doctor and explain."""

from __future__ import annotations

import asyncio
import os
import platform
import time
import uuid
from builtins import list as List
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from sampan import __version__
from sampan.engine import explain
from sampan.engine.containers.containers import Containers
from sampan.engine.context import Rooms
from sampan.engine.images.image import rfc3339
from sampan.engine.usage import Usage
from sampan.errors import InvalidRequest
from sampan.logs.options import DRIVERS
from sampan.wire import system as s
from sampan.wire import usage as u

Filters = Mapping[str, tuple[str, ...]]
API, MINIMUM = "1.50", "1.24"
_EVENT_KEYS = {
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service",
    "type", "volume",
}  # fmt: skip


class System:
    """api/backend.py System."""

    def __init__(self, rooms: Rooms, containers: Containers, labels: List[str], *, debug: bool) -> None:
        """`labels` and `debug` may change: a SIGHUP reads the configuration file again."""
        self._rooms = rooms
        self._containers = containers
        self.labels = labels
        self.debug = debug
        self._usage = Usage(rooms, containers)
        name = rooms.data_root / "engine-id"
        if not name.exists():
            name.write_text(str(uuid.uuid4()))
        self.id = name.read_text().strip()[:64]

    async def version(self) -> s.Version:
        names = {"x86_64": "amd64", "aarch64": "arm64"}
        arch, kernel = names.get(platform.machine(), platform.machine()), os.uname().release
        details = {"ApiVersion": API, "Arch": arch, "BuildTime": "", "Experimental": "false", "GitCommit": "", "GoVersion": "",
                   "KernelVersion": kernel, "MinAPIVersion": MINIMUM, "Os": "linux"}  # fmt: skip
        return s.Version(
            platform=s.Platform(name="Sampan"), version=__version__, api_version=API, min_api_version=MINIMUM, arch=arch,
            kernel_version=kernel, components=[s.Component(name="Engine", version=__version__, details=details)],
        )  # fmt: skip

    async def info(self) -> s.Info:
        records = [one.record for one in self._containers.all.values()]
        running = [record for record in records if record.running]
        paused = sum(record.paused for record in running)
        images = await asyncio.to_thread(lambda: len(self._rooms.images.catalogue.all()))
        problems = await asyncio.to_thread(self._rooms.networks.problems)
        v2 = not Path("/sys/fs/cgroup/memory").exists()
        return s.Info(
            id=self.id, containers=len(records), containers_running=len(running) - paused, containers_paused=paused,
            containers_stopped=len(records) - len(running), images=images, driver=self._rooms.layers.name,
            driver_status=[["Backing Filesystem", "extfs"], ["Detached mounts", "true"], ["userxattr", "false"]],
            docker_root_dir=str(self._rooms.data_root),
            plugins={"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": None,
                     "Log": list(DRIVERS)},
            debug=self.debug, n_fd=len(os.listdir("/proc/self/fd")), n_goroutines=len(asyncio.all_tasks()),
            system_time=rfc3339(time.time_ns()), cgroup_version="2" if v2 else "1",
            n_events_listener=self._rooms.bus.listeners, kernel_version=os.uname().release,
            operating_system=_operating_system(), architecture=platform.machine(), ncpu=os.cpu_count() or 1,
            mem_total=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), name=os.uname().nodename,
            labels=self.labels, server_version=__version__, runtimes={"sampan": {"path": "sampan"}},
            registry_config=self._rooms.images.registries.hosts.described(),
            init_binary="sampan-init", logging_driver=self._rooms.defaults.log.type, warnings=list(problems) or None,
            security_options=["name=seccomp,profile=builtin", "name=userns", "name=cgroupns"],
        )  # fmt: skip

    async def jobs(self, *, all: bool) -> List[s.Job]:
        return self._rooms.jobs.shown(all=all)

    async def explain(self, ref: str) -> s.Explanation:
        container = self._containers.find(ref)
        return await asyncio.to_thread(explain.explain, container)

    async def doctor(self) -> List[s.Finding]:
        return await asyncio.to_thread(explain.doctor, self._rooms)

    async def usage(self, kinds: tuple[str, ...]) -> u.DiskUsage:
        return await self._usage.measure(kinds)

    def events(self, *, since: str, until: str, filters: Filters) -> AsyncIterator[s.EventMessage]:
        unknown = set(filters) - _EVENT_KEYS
        if unknown:
            raise InvalidRequest(f"invalid filter '{sorted(unknown)[0][:32]}'")
        return self._rooms.bus.stream(since, until, filters)


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
