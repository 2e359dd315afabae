"""The daemon about itself: version, info, events, jobs, doctor, explain."""

from __future__ import annotations

import os
import platform
import time
from builtins import list as List
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from sampan import __version__
from sampan.engine import doctor, explain
from sampan.engine.context import Rooms
from sampan.engine.images.plans import MACHINES
from sampan.engine.records import ContainerRecord
from sampan.wire import system as s
from sampan.wire import versions

Filters = Mapping[str, tuple[str, ...]]
STARTED = time.time_ns()


class System:
    """records: every container's record at this moment; find: the record a reference means (raises NotFound)."""

    def __init__(
        self, rooms: Rooms, records: Callable[[], Iterable[ContainerRecord]], find: Callable[[str], ContainerRecord],
        *, labels: Iterable[str] = (), debug: bool = False,
    ) -> None:  # fmt: skip
        self._rooms, self._records, self._find = rooms, records, find
        self._labels, self._debug = list(labels), debug

    async def version(self) -> s.Version:
        system = os.uname()
        details = {
            "ApiVersion": versions.MAXIMUM, "Arch": MACHINES.get(system.machine, system.machine), "KernelVersion": system.release,
            "MinAPIVersion": versions.MINIMUM, "Os": "linux", "PythonVersion": platform.python_version(),
        }  # fmt: skip
        return s.Version(
            platform=s.Platform(name="Sampan"), version=__version__, api_version=versions.MAXIMUM,
            components=[s.Component(name="Engine", version=__version__, details=details)],
            min_api_version=versions.MINIMUM, arch=details["Arch"], kernel_version=system.release,
        )  # fmt: skip

    async def info(self) -> s.Info:
        system = os.uname()
        records = list(self._records())
        images = await self._rooms.images.list(all=True, filters={}, shared_size=False)
        facts = doctor.host_facts()
        return s.Info(
            id=self._rooms.networks.get("bridge").id[:36], containers=len(records),
            containers_running=sum(r.running and not r.paused for r in records),
            containers_paused=sum(r.running and r.paused for r in records),
            containers_stopped=sum(not r.running for r in records), images=len(images),
            driver_status=[["Backing Filesystem", doctor.file_system(self._rooms.data_root)], ["Idmapped layers", "true"]],
            docker_root_dir=str(self._rooms.data_root), labels=self._labels, debug=self._debug,
            plugins={"Volume": ["local"], "Network": ["bridge", "host", "null"], "Log": ["json-file", "none"]},
            n_fd=len(os.listdir("/proc/self/fd")), n_events_listener=self._rooms.bus.listeners,
            system_time=_rfc3339(time.time_ns()), cgroup_version=facts.cgroup_version, kernel_version=system.release,
            operating_system=facts.distribution, os_version=facts.distribution_version, architecture=system.machine,
            ncpu=os.cpu_count() or 1, mem_total=facts.memory, name=system.nodename, server_version=__version__,
            runtimes={"sampan": {"path": "sampan"}}, security_options=["name=seccomp,profile=builtin", "name=userns"],
            warnings=[f.text for f in doctor.findings(facts) if f.level == "warning"],
        )  # fmt: skip

    async def jobs(self, *, all: bool) -> List[s.Job]:
        return self._rooms.jobs.shown(all=all)

    async def explain(self, ref: str) -> s.Explanation:
        record = self._find(ref)
        endpoint = next((e for e in self._rooms.networks.active() if e.container_id == record.id), None)
        return explain.explain(record, f"{self._rooms.cgroup_parent}/{record.id}", self._rooms.networks.bridge, endpoint)

    async def doctor(self) -> List[s.Finding]:
        problems = [s.Finding(level="error", subject="network", text=text) for text in self._rooms.networks.problems()]
        return doctor.findings(doctor.host_facts()) + problems

    def events(self, *, since: str, until: str, filters: Filters) -> AsyncIterator[s.EventMessage]:
        return self._rooms.bus.stream(since, until, filters)


def _rfc3339(now: int) -> str:
    seconds, rest = divmod(now, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
