"""Limits and devices of a container (engine-api 4.3, caps.md 5, 8)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sampan.errors import InvalidRequest
from sampan.oci.runtime import (
    BlockIo,
    Cpu,
    Device,
    DeviceRule,
    Memory,
    Pids,
    Resources,
    Rlimit,
    ThrottleDevice,
    WeightDevice,
)
from sampan.wire import containers as c

_UNLIMITED = 2**64 - 1
_LIMITS = frozenset("core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack as".split())
_BASE_RULES = (
    DeviceRule(allow=False),
    *(DeviceRule(allow=True, type="c", major=1, minor=minor) for minor in (5, 3, 9, 8, 7)),
    *(DeviceRule(allow=True, type="c", major=5, minor=minor) for minor in (0, 1, 2)),
    DeviceRule(allow=True, type="c", major=136),
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    DeviceRule(allow=False, type="c", major=10, minor=229),
)


def rlimits(host: c.HostConfig) -> tuple[Rlimit, ...]:
    """Return the ulimits.  Raises InvalidRequest."""
    made = []
    for one in host.ulimits or ():
        name = one.name.lower()
        if name not in _LIMITS:
            raise InvalidRequest(f"invalid ulimit type: {one.name[:32]}")
        if one.hard != -1 and (one.soft > one.hard or one.soft == -1):
            raise InvalidRequest(f"ulimit soft limit must be less than or equal to hard limit: {one.soft} > {one.hard}")
        if min(one.soft, one.hard) < -1:
            raise InvalidRequest(f"invalid ulimit {name}: {one.soft}:{one.hard}")
        soft, hard = (_UNLIMITED if value == -1 else value for value in (one.soft, one.hard))
        made.append(Rlimit(type=f"RLIMIT_{name.upper()}", soft=soft, hard=hard))
    return tuple(made)


def devices(host: c.HostConfig) -> tuple[tuple[Device, ...], tuple[DeviceRule, ...]]:
    """Return nodes to make, and the device cgroup's rules.  Raises InvalidRequest."""
    if host.privileged:
        return tuple(_all_devices()), (DeviceRule(allow=True),)
    nodes: list[Device] = []
    rules = list(_BASE_RULES)
    for mapping in host.devices or ():
        access = mapping.cgroup_permissions or "rwm"
        if set(access) - set("rwm"):
            raise InvalidRequest(f"invalid device mode {access!r}")
        for node in _expand(mapping):
            nodes.append(node)
            rules.append(DeviceRule(allow=True, type=node.type, major=node.major, minor=node.minor, access=access))
    rules += [_rule(text) for text in host.device_cgroup_rules or ()]
    return tuple(nodes), tuple(rules)


def _rule(text: str) -> DeviceRule:
    words = text.split()
    major, colon, minor = words[1].partition(":") if len(words) == 3 else ("", "", "")
    numbers = [part == "*" or (part.isascii() and part.isdigit() and len(part) < 10) for part in (major, minor)]
    if len(words) != 3 or words[0] not in ("a", "b", "c") or not colon or not all(numbers) or set(words[2]) - set("rwm"):
        raise InvalidRequest(f"invalid device cgroup rule format: '{text[:64]}'")
    return DeviceRule(
        allow=True, type=words[0], major=None if major == "*" else int(major),
        minor=None if minor == "*" else int(minor), access=words[2],
    )  # fmt: skip


def _node(source: str, target: str) -> Device | None:
    found = os.stat(source)
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        return Device(
            type="c" if stat.S_ISCHR(found.st_mode) else "b", path=target, source=os.path.realpath(source),
            major=os.major(found.st_rdev), minor=os.minor(found.st_rdev), file_mode=stat.S_IMODE(found.st_mode),
        )  # fmt: skip
    return None


def _expand(mapping: c.DeviceMapping) -> list[Device]:
    source, target = mapping.path_on_host, mapping.path_in_container or mapping.path_on_host
    if not target.startswith("/") or ".." in target.split("/"):
        raise InvalidRequest(f"invalid device path {target!r}")
    if not source.startswith("/") or (os.path.isdir(source) and not os.path.realpath(source).startswith("/dev/")):
        raise InvalidRequest(f"error gathering device information for {source[:200]!r}: not a device node")
    try:
        if Path(source).is_dir():
            found = [_node(str(path), f"{target}/{path.relative_to(source)}") for path in sorted(Path(source).rglob("*"))]
            return [node for node in found if node is not None]
        node = _node(source, target)
    except OSError as error:
        raise InvalidRequest(f"error gathering device information for {source!r}: {error.strerror}") from None
    if node is None:
        raise InvalidRequest(f"error gathering device information for {source!r}: not a device node")
    return [node]


def _all_devices() -> list[Device]:
    """Every node of the host, but those the container has of its own."""
    own = ("/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/ptmx")
    standard = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
    made = []
    for folder, _, names in os.walk("/dev"):
        if folder.startswith(own):
            continue
        for name in names:
            path = f"{folder}/{name}"
            if path in own or path in standard or os.path.islink(path):
                continue
            try:
                node = _node(path, path)
            except OSError:
                continue
            if node is not None:
                made.append(node)
    return made


def _block_device(path: str) -> int:
    """Return the number of the host's block device `path`.  Raises InvalidRequest."""
    try:
        found = os.stat(path if path.startswith("/") else f"/{path}")
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else "holds a NUL"
        raise InvalidRequest(f"device {path[:200]!r}: {text}") from None
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidRequest(f"device {path[:200]!r}: not a block device")
    return found.st_rdev


def _throttle(wanted: list[c.ThrottleDevice] | None) -> tuple[ThrottleDevice, ...]:
    made = []
    for one in wanted or ():
        number = _block_device(one.path)
        if one.rate < 0:
            raise InvalidRequest(f"device {one.path!r}: invalid rate {one.rate}")
        made.append(ThrottleDevice(major=os.major(number), minor=os.minor(number), rate=one.rate))
    return tuple(made)


def resources(host: c.HostConfig, rules: tuple[DeviceRule, ...]) -> Resources:
    """Return the limits of a validated HostConfig."""
    memory = None
    if host.memory or host.memory_reservation or host.memory_swap or host.memory_swappiness is not None or host.oom_kill_disable:
        swap = host.memory_swap or (2 * host.memory if host.memory else 0)
        swappiness = host.memory_swappiness
        memory = Memory(
            limit=host.memory or None, reservation=host.memory_reservation or None, swap=swap or None,
            swappiness=None if swappiness is None or swappiness == -1 else swappiness,
            disable_oom_killer=host.oom_kill_disable or None,
        )  # fmt: skip
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus:
        quota, period = host.nano_cpus * 100_000 // 10**9, 100_000
    cpu = Cpu(
        shares=host.cpu_shares or None, quota=quota or None, period=period or None,
        realtime_runtime=host.cpu_realtime_runtime or None, realtime_period=host.cpu_realtime_period or None,
        cpus=host.cpuset_cpus, mems=host.cpuset_mems,
    )  # fmt: skip
    weights = tuple(
        WeightDevice(major=os.major(number), minor=os.minor(number), weight=one.weight)
        for one in host.blkio_weight_device or ()
        for number in (_block_device(one.path),)
    )
    block = BlockIo(
        weight=host.blkio_weight or None, weight_device=weights,
        throttle_read_bps_device=_throttle(host.blkio_device_read_bps),
        throttle_write_bps_device=_throttle(host.blkio_device_write_bps),
        throttle_read_iops_device=_throttle(host.blkio_device_read_iops),
        throttle_write_iops_device=_throttle(host.blkio_device_write_iops),
    )  # fmt: skip
    pids = host.pids_limit
    return Resources(
        devices=rules, memory=memory, cpu=None if cpu == Cpu() else cpu,
        pids=Pids(limit=pids) if pids is not None and pids > 0 else None,
        block_io=None if block == BlockIo() else block,
    )  # fmt: skip
