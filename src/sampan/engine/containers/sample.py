"""One look at what a container uses: control group, network interfaces, the host's own times.  A dozen small files."""

from __future__ import annotations

import os
import select
import time

from msgspec import UNSET, UnsetType

from sampan.cgroups import Stats
from sampan.engine.containers.container import Container
from sampan.engine.containers.groups import group_of
from sampan.engine.images.image import rfc3339
from sampan.wire import stats as w
from sampan.wire.shape import NEVER

_TICK = 10_000_000  # /proc/stat counts in USER_HZ, 100 a second on every Linux


class Host:
    """What is the same for every container of one round."""

    def __init__(self) -> None:
        with open("/proc/stat", "rb") as file:
            words = file.readline().split()
        self.cpu_time = sum(int(word) for word in words[1:8]) * _TICK  # user ... softirq; stolen time is not the host's
        self.cpus = os.cpu_count() or 1
        self.memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def nothing(container: Container) -> w.ContainerStats:
    """Return the sample of a container that does not run."""
    return w.ContainerStats(name=f"/{container.record.name}", id=container.id)


def sample(container: Container, host: Host, before: w.ContainerStats | None) -> w.ContainerStats:
    """Return what it uses now, after `before`.  Blocks for less than a millisecond; never raises for one that ends meanwhile."""
    if not container.record.running:
        return nothing(container)
    found = group_of(container).stats()
    networks = interfaces(container)
    if not found.version:  # its group has gone
        return nothing(container)
    return w.ContainerStats(
        name=f"/{container.record.name}", id=container.id, read=rfc3339(time.time_ns()),
        preread=before.read if before is not None else NEVER, cpu_stats=_cpu(found, host),
        precpu_stats=before.cpu_stats if before is not None else w.CpuStats(), memory_stats=_memory(found, host),
        pids_stats=w.PidsStats(current=found.pids or UNSET, limit=found.pids_limit if found.pids_limit > 0 else UNSET),
        blkio_stats=_blkio(found), networks=networks if networks else UNSET,
    )  # fmt: skip


def _cpu(found: Stats, host: Host) -> w.CpuStats:
    return w.CpuStats(
        cpu_usage=w.CpuUsage(
            total_usage=found.cpu_total, percpu_usage=list(found.cpu_each) or UNSET, usage_in_kernelmode=found.cpu_system,
            usage_in_usermode=found.cpu_user,
        ),
        system_cpu_usage=host.cpu_time, online_cpus=host.cpus,
        throttling_data=w.Throttling(
            periods=found.cpu_periods, throttled_periods=found.cpu_throttled_periods, throttled_time=found.cpu_throttled_time
        ),
    )  # fmt: skip


def _some(value: int) -> int | UnsetType:
    return value if value > 0 else UNSET


def _memory(found: Stats, host: Host) -> w.MemoryStats:
    limit = found.memory_limit if 0 < found.memory_limit < host.memory else host.memory
    return w.MemoryStats(
        usage=_some(found.memory_usage), max_usage=_some(found.memory_peak) if found.version == 1 else UNSET,
        stats=found.memory_stat or UNSET, failcnt=_some(found.memory_failures) if found.version == 1 else UNSET, limit=limit,
    )  # fmt: skip


def _blkio(found: Stats) -> w.BlkioStats:
    size = [w.BlkioEntry(major=major, minor=minor, op=op, value=count) for major, minor, op, count, _ in found.io]
    calls = [w.BlkioEntry(major=major, minor=minor, op=op, value=count) for major, minor, op, _, count in found.io]
    if found.version == 2:
        return w.BlkioStats(io_service_bytes_recursive=size or None)
    return w.BlkioStats(
        io_service_bytes_recursive=size, io_serviced_recursive=calls, io_queue_recursive=[], io_service_time_recursive=[],
        io_wait_time_recursive=[], io_merged_recursive=[], io_time_recursive=[], sectors_recursive=[],
    )  # fmt: skip


def interfaces(container: Container) -> dict[str, w.NetworkStats]:
    """Return the counters of every interface but loopback; none where the network is the host's or there is none.

    The file of the first process is read while its pidfd says that it lives, so never a later process's (row 29).
    """
    mode, pidfd, pid = container.record.host.network_mode, container.pidfd, container.record.pid
    if mode in ("host", "none") or pidfd is None or pid <= 0:
        return {}
    try:
        with open(f"/proc/{pid}/net/dev", "rb") as file:
            lines = file.read().splitlines()[2:]
        poller = select.poll()
        poller.register(pidfd.fileno(), select.POLLIN)
        if poller.poll(0):
            return {}
    except (OSError, ValueError):  # it has ended meanwhile
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(b":")
        n = [int(word) for word in rest.split()]
        if name.strip() != b"lo" and len(n) >= 12:
            found[name.strip().decode(errors="replace")] = w.NetworkStats(
                rx_bytes=n[0], rx_packets=n[1], rx_errors=n[2], rx_dropped=n[3], tx_bytes=n[8], tx_packets=n[9],
                tx_errors=n[10], tx_dropped=n[11],
            )  # fmt: skip
    return found
