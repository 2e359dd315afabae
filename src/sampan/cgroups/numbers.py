"""A group's numbers, the same for v1 and v2."""

from __future__ import annotations

from dataclasses import dataclass, field

from sampan.cgroups import files


@dataclass(frozen=True)
class Stats:
    """Bytes, nanoseconds, tasks; -1 is unlimited.  memory_stat holds the kernel's own names (they differ between v1 and v2).

    io: (major, minor, operation, bytes, count): v2 has "read" and "write", v1 the kernel's own words.  cpu_each: by processor,
    v1 only.  version 0: there is no such group.
    """

    memory_usage: int = 0
    memory_limit: int = -1
    memory_peak: int = 0
    memory_failures: int = 0
    memory_stat: dict[str, int] = field(default_factory=dict)
    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_time: int = 0
    pids: int = 0
    pids_limit: int = -1
    io: tuple[tuple[int, int, str, int, int], ...] = ()
    cpu_each: tuple[int, ...] = ()
    version: int = 0


_UNLIMITED_V1 = 1 << 62  # what v1 shows for "no limit" is a page short of 2**63
_TICK = 10_000_000  # cpuacct.stat counts in USER_HZ, 100 a second on every Linux


def stats_v1(paths: dict[str, str]) -> Stats:
    """Return the numbers from v1 files; what is missing is zero."""
    memory, cpu, account = paths.get("memory", ""), paths.get("cpu", ""), paths.get("cpuacct", "")
    limit = files.number(f"{memory}/memory.limit_in_bytes")
    split = files.table(f"{account}/cpuacct.stat")
    throttle = files.table(f"{cpu}/cpu.stat")
    memory_stat = files.table(f"{memory}/memory.stat")
    return Stats(
        memory_usage=max(0, files.number(f"{memory}/memory.usage_in_bytes")),
        memory_limit=-1 if limit > _UNLIMITED_V1 else limit,
        memory_peak=max(0, files.number(f"{memory}/memory.max_usage_in_bytes")),
        memory_failures=max(0, files.number(f"{memory}/memory.failcnt")),
        memory_stat=memory_stat,
        cpu_total=max(0, files.number(f"{account}/cpuacct.usage")),
        cpu_user=split.get("user", 0) * _TICK,
        cpu_system=split.get("system", 0) * _TICK,
        cpu_periods=throttle.get("nr_periods", 0),
        cpu_throttled_periods=throttle.get("nr_throttled", 0),
        cpu_throttled_time=throttle.get("throttled_time", 0),
        pids=max(0, files.number(f"{paths.get('pids', '')}/pids.current")),
        pids_limit=files.number(f"{paths.get('pids', '')}/pids.max"),
        io=_io_v1(paths.get("blkio", "")),
        cpu_each=tuple(int(word) for word in files.read_or(f"{account}/cpuacct.usage_percpu", "").split()),
        version=1 if split or memory_stat else 0,
    )


def stats_v2(path: str) -> Stats:
    """Return the numbers from v2 files; what is missing is zero."""
    cpu = files.table(f"{path}/cpu.stat")
    return Stats(
        memory_usage=max(0, files.number(f"{path}/memory.current")),
        memory_limit=files.number(f"{path}/memory.max"),
        memory_peak=max(0, files.number(f"{path}/memory.peak")),
        memory_failures=files.table(f"{path}/memory.events").get("max", 0),
        memory_stat=files.table(f"{path}/memory.stat"),
        cpu_total=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_system=cpu.get("system_usec", 0) * 1000,
        cpu_periods=cpu.get("nr_periods", 0),
        cpu_throttled_periods=cpu.get("nr_throttled", 0),
        cpu_throttled_time=cpu.get("throttled_usec", 0) * 1000,
        pids=max(0, files.number(f"{path}/pids.current")),
        pids_limit=files.number(f"{path}/pids.max"),
        io=_io_v2(path),
        version=2 if cpu else 0,
    )


def _io_v1(path: str) -> tuple[tuple[int, int, str, int, int], ...]:
    counts: dict[tuple[str, str], list[int]] = {}
    for place, name in enumerate(("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive")):
        for key, value in files.table(f"{path}/{name}").items():
            device, _, kind = key.partition(" ")
            if kind:  # the last line is a total over all devices
                counts.setdefault((device, kind), [0, 0])[place] = value
    return tuple((*_device(device), kind, pair[0], pair[1]) for (device, kind), pair in counts.items())


def _io_v2(path: str) -> tuple[tuple[int, int, str, int, int], ...]:
    found: list[tuple[int, int, str, int, int]] = []
    for line in files.read_or(f"{path}/io.stat", "").splitlines():
        device, *words = line.split()
        values = dict(word.partition("=")[::2] for word in words)
        major, minor = _device(device)
        for kind in ("read", "write"):
            found.append((major, minor, kind, int(values.get(f"{kind[0]}bytes", 0)), int(values.get(f"{kind[0]}ios", 0))))
    return tuple(found)


def _device(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(":")
    return int(major), int(minor)
