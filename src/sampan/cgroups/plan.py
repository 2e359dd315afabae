"""Limits as cgroup files: (controller, file, value) in the order of writing, for v1 and for v2.

Sources: Documentation/admin-guide/cgroup-v1/*, cgroup-v2.rst; runtime-spec config-linux.md "Control groups".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sampan.errors import InvalidRequest
from sampan.oci.runtime import BlockIo, Cpu, DeviceRule, Memory, Resources, ThrottleDevice


@dataclass
class Plan:
    """What to write; optional ones only warn where the host lacks the file or refuses it."""

    writes: list[tuple[str, str, str]] = field(default_factory=list)
    optional: list[tuple[str, str, str, str]] = field(default_factory=list)  # controller, file, value, the warning
    warnings: list[str] = field(default_factory=list)
    memory: tuple[int | None, int | None] = (
        None,
        None,
    )  # limit, memory plus swap (v1: the order depends on what is set)

    def put(self, controller: str, name: str, value: object) -> None:
        self.writes.append((controller, name, str(value)))

    def may(self, controller: str, name: str, value: object, what: str) -> None:
        self.optional.append((controller, name, str(value), f"{what} is not available; discarded"))


def plan_v1(resources: Resources) -> Plan:
    """Return the writes for v1 hierarchies.  Raises InvalidRequest on values that contradict each other."""
    plan = Plan()
    memory = resources.memory
    if memory is not None:
        _check(memory)
        plan.memory = (memory.limit, memory.swap)
        if memory.reservation is not None:
            plan.put("memory", "memory.soft_limit_in_bytes", memory.reservation)
        if memory.kernel is not None:
            plan.may("memory", "memory.kmem.limit_in_bytes", memory.kernel, "kernel memory limit")
        if memory.swappiness is not None and memory.swappiness != -1:
            plan.may("memory", "memory.swappiness", memory.swappiness, "memory swappiness")
        if memory.disable_oom_killer is not None:
            plan.may("memory", "memory.oom_control", int(memory.disable_oom_killer), "disabling the OOM killer")
    cpu = resources.cpu
    if cpu is not None:
        _cpu_v1(plan, cpu)
    if resources.pids is not None and resources.pids.limit:
        plan.put("pids", "pids.max", resources.pids.limit if resources.pids.limit > 0 else "max")
    if resources.block_io is not None:
        _io_v1(plan, resources.block_io)
    for rule in resources.devices:
        plan.put("devices", "devices.allow" if rule.allow else "devices.deny", device_line(rule))
    return plan


def plan_v2(resources: Resources) -> Plan:
    """Return the writes for the v2 hierarchy; devices are a program, not a file."""
    plan = Plan()
    memory = resources.memory
    if memory is not None:
        _check(memory)
        _memory_v2(plan, memory)
    cpu = resources.cpu
    if cpu is not None:
        if cpu.shares:
            plan.put("cpu", "cpu.weight", weight_of_shares(cpu.shares))
        if cpu.quota is not None or cpu.period:
            quota = "max" if cpu.quota is None or cpu.quota <= 0 else str(cpu.quota)
            plan.put("cpu", "cpu.max", f"{quota} {cpu.period or 100000}")
        if cpu.realtime_runtime or cpu.realtime_period:
            plan.warnings.append("realtime scheduling limits are not available with cgroup v2; discarded")
        if cpu.cpus:
            plan.put("cpuset", "cpuset.cpus", cpu_list(cpu.cpus))
        if cpu.mems:
            plan.put("cpuset", "cpuset.mems", cpu_list(cpu.mems))
    if resources.pids is not None and resources.pids.limit:
        plan.put("pids", "pids.max", resources.pids.limit if resources.pids.limit > 0 else "max")
    if resources.block_io is not None:
        _io_v2(plan, resources.block_io)
    return plan


def weight_of_shares(shares: int) -> int:
    """Return cpu.weight (1..10000) of cpu.shares (2..262144): 2 -> 1, 1024 -> 100, 262144 -> 10000, as runc 1.3.2 does."""
    exponent = math.log2(min(max(shares, 2), 262144))
    return min(10000, math.ceil(10 ** ((exponent**2 + 125 * exponent) / 612 - 7 / 34) - 1e-9))


def device_line(rule: DeviceRule) -> str:
    """Return the rule as devices.allow takes it.  Raises InvalidRequest on a malformed one."""
    if rule.type not in ("a", "b", "c") or not rule.access or set(rule.access) - set("rwm"):
        raise InvalidRequest(f"device rule {rule.type!r} {rule.access!r} is malformed")
    if rule.type == "a" and rule.major in (None, -1) and rule.minor in (None, -1):
        return "a"
    if rule.type == "a":
        raise InvalidRequest("device rule of type a with numbers")
    major, minor = ("*" if n is None or n == -1 else str(n) for n in (rule.major, rule.minor))
    return f"{rule.type} {major}:{minor} {rule.access}"


def cpu_list(text: str) -> str:
    """Return a list such as "0-3,7" as it is.  Raises InvalidRequest on anything else."""
    if not text.isascii() or set(text) - set("0123456789,-") or not text[0].isdigit():
        raise InvalidRequest(f"bad cpuset list: {text[:80]!r}")
    return text


def _check(memory: Memory) -> None:
    limit, swap = memory.limit, memory.swap
    for value in (limit, swap, memory.reservation):
        if value is not None and value < -1:
            raise InvalidRequest(f"negative memory limit {value}")
    if swap is not None and swap not in (-1, 0) and (limit in (None, 0) or (limit == -1) or swap < (limit or 0)):
        raise InvalidRequest(f"memory plus swap ({swap}) is less than memory ({limit})")


def _memory_v2(plan: Plan, memory: Memory) -> None:
    limit, swap = memory.limit, memory.swap
    if limit:
        plan.put("memory", "memory.max", limit if limit > 0 else "max")
    if swap == -1 or (swap and limit):
        value = "max" if swap == -1 else str(swap - (limit or 0))
        plan.may("memory", "memory.swap.max", value, "swap limit")
    if memory.reservation:
        plan.put("memory", "memory.low", memory.reservation if memory.reservation > 0 else "max")
    if memory.kernel is not None:
        plan.warnings.append("kernel memory limit is not available with cgroup v2; discarded")
    if memory.swappiness is not None and memory.swappiness != -1:
        plan.warnings.append("memory swappiness is not available with cgroup v2; discarded")
    if memory.disable_oom_killer:
        plan.warnings.append("disabling the OOM killer is not available with cgroup v2; discarded")


def _cpu_v1(plan: Plan, cpu: Cpu) -> None:
    if cpu.shares:
        plan.put("cpu", "cpu.shares", cpu.shares)
    if cpu.period:
        plan.put("cpu", "cpu.cfs_period_us", cpu.period)
    if cpu.quota is not None:
        plan.put("cpu", "cpu.cfs_quota_us", cpu.quota if cpu.quota > 0 else -1)
    if cpu.realtime_period:
        plan.put("cpu", "cpu.rt_period_us", cpu.realtime_period)
    if cpu.realtime_runtime:
        plan.put("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime)
    if cpu.cpus:
        plan.put("cpuset", "cpuset.cpus", cpu_list(cpu.cpus))
    if cpu.mems:
        plan.put("cpuset", "cpuset.mems", cpu_list(cpu.mems))


def _rates(io: BlockIo) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    def lines(devices: tuple[ThrottleDevice, ...]) -> tuple[str, ...]:
        return tuple(f"{d.major}:{d.minor} {d.rate}" for d in devices)

    return (
        ("rbps", "read_bps", lines(io.throttle_read_bps_device)),
        ("wbps", "write_bps", lines(io.throttle_write_bps_device)),
        ("riops", "read_iops", lines(io.throttle_read_iops_device)),
        ("wiops", "write_iops", lines(io.throttle_write_iops_device)),
    )


def _io_v1(plan: Plan, io: BlockIo) -> None:
    if io.weight:
        plan.may("blkio", "blkio.bfq.weight", str(io.weight), "block I/O weight")
    for device in io.weight_device:
        line = f"{device.major}:{device.minor} {device.weight}"
        plan.may("blkio", "blkio.bfq.weight_device", line, "block I/O weight")
    for _, name, lines in _rates(io):
        for line in lines:
            plan.put("blkio", f"blkio.throttle.{name}_device", line)


def _io_v2(plan: Plan, io: BlockIo) -> None:
    if io.weight:
        plan.may("io", "io.weight", f"default {1 + (io.weight - 10) * 9999 // 990}", "block I/O weight")
    for device in io.weight_device:
        weight = 1 + (device.weight - 10) * 9999 // 990
        plan.may("io", "io.weight", f"{device.major}:{device.minor} {weight}", "block I/O weight")
    for key, _, lines in _rates(io):
        for line in lines:
            numbers, rate = line.split()
            plan.put("io", "io.max", f"{numbers} {key}={rate}")
