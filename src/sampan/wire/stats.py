"""What a container uses, as GET /containers/{id}/stats says it (engine-api 4.9).  CPU times are nanoseconds, sizes bytes."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from sampan.wire.shape import NEVER


class Lower(msgspec.Struct, frozen=True, kw_only=True):
    """Keys as they are; what is zero and may be absent is left out."""


class CpuUsage(Lower, frozen=True, kw_only=True):
    total_usage: int = 0
    percpu_usage: list[int] | UnsetType = UNSET
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0


class Throttling(Lower, frozen=True, kw_only=True):
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class CpuStats(Lower, frozen=True, kw_only=True):
    cpu_usage: CpuUsage = CpuUsage()
    system_cpu_usage: int | UnsetType = UNSET
    online_cpus: int | UnsetType = UNSET
    throttling_data: Throttling = Throttling()


class MemoryStats(Lower, frozen=True, kw_only=True):
    usage: int | UnsetType = UNSET
    max_usage: int | UnsetType = UNSET
    stats: dict[str, int] | UnsetType = UNSET
    failcnt: int | UnsetType = UNSET
    limit: int | UnsetType = UNSET


class PidsStats(Lower, frozen=True, kw_only=True):
    current: int | UnsetType = UNSET
    limit: int | UnsetType = UNSET


class BlkioEntry(Lower, frozen=True, kw_only=True):
    major: int
    minor: int
    op: str
    value: int


class BlkioStats(Lower, frozen=True, kw_only=True):
    io_service_bytes_recursive: list[BlkioEntry] | None = None
    io_serviced_recursive: list[BlkioEntry] | None = None
    io_queue_recursive: list[BlkioEntry] | None = None
    io_service_time_recursive: list[BlkioEntry] | None = None
    io_wait_time_recursive: list[BlkioEntry] | None = None
    io_merged_recursive: list[BlkioEntry] | None = None
    io_time_recursive: list[BlkioEntry] | None = None
    sectors_recursive: list[BlkioEntry] | None = None


class NetworkStats(Lower, frozen=True, kw_only=True):
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class ContainerStats(Lower, frozen=True, kw_only=True):
    """One sample, with the one before it; of a container that does not run everything is zero."""

    read: str = NEVER
    preread: str = NEVER
    pids_stats: PidsStats = PidsStats()
    blkio_stats: BlkioStats = BlkioStats()
    num_procs: int = 0
    storage_stats: dict[str, int] = {}
    cpu_stats: CpuStats = CpuStats()
    precpu_stats: CpuStats = CpuStats()
    memory_stats: MemoryStats = MemoryStats()
    name: str
    id: str
    networks: dict[str, NetworkStats] | UnsetType = UNSET
