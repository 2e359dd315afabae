"""What the kernel really holds for a container, and what the host has; each fact with the plain command that shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sampan.cgroups import Hierarchy
from sampan.engine.containers.container import Container
from sampan.engine.containers.exits import group_path
from sampan.engine.context import Rooms
from sampan.errors import SampanError
from sampan.kernel import caps
from sampan.kernel.calls import kernel_version
from sampan.kernel.mount import supports
from sampan.network.filters import table_name
from sampan.wire import system as s

_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")


def explain(container: Container) -> s.Explanation:
    """Return the facts by section.  Blocks."""
    record = container.record
    sections = {"container": list(_container(container))}
    if record.running:
        sections["namespaces"] = list(_namespaces(record.pid))
        sections["processes"] = list(_processes(container))
        sections["control groups"] = list(_groups(container))
        sections["mounts"] = list(_mounts(record.pid))
    sections["layers"] = [
        s.Fact(name=key, value=value, command=f"ls {value.split(':')[0]}")
        for key, value in container.rooms.layers.graph(record.id).items()
    ]
    sections["network"] = list(_network(container))
    return s.Explanation(id=record.id, name=record.name, sections=sections)


def _container(container: Container) -> Iterator[s.Fact]:
    record = container.record
    yield s.Fact(name="state", value=record.state)
    yield s.Fact(name="image", value=f"{record.image_ref} ({record.image})")
    if record.running:
        yield s.Fact(name="first process", value=str(record.pid), command=f"cat /proc/{record.pid}/status")
    if record.lost_lines:
        yield s.Fact(name="lines missing in the log", value=str(record.lost_lines))
    ids = f"0-65535 are {record.uid_base}-{record.uid_base + 65535} on the host" if record.uid_base is not None else "the host's"
    yield s.Fact(name="user ids", value=ids, command=f"cat /proc/{record.pid}/uid_map" if record.running else "")


def _namespaces(pid: int) -> Iterator[s.Fact]:
    for kind in _NAMESPACES:
        try:
            inode = os.stat(f"/proc/{pid}/ns/{kind}").st_ino
            own = os.stat(f"/proc/self/ns/{kind}").st_ino
        except OSError:
            continue
        shared = " (the host's)" if inode == own else ""
        yield s.Fact(name=kind, value=f"{inode}{shared}", command=f"readlink /proc/{pid}/ns/{kind}")


def _processes(container: Container) -> Iterator[s.Fact]:
    for pid in _group_pids(container):
        try:
            lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        except OSError:
            continue
        inside = next((line.split()[-1] for line in lines if line.startswith("NSpid:")), "?")
        name = lines[0].split("\t")[-1]
        yield s.Fact(name=f"pid {pid}", value=f"{name}, {inside} inside", command=f"grep NSpid /proc/{pid}/status")


def _group_pids(container: Container) -> list[int]:
    try:
        return Hierarchy.detect().open(group_path(container)).pids()
    except (SampanError, OSError):
        return [container.record.pid]


def _groups(container: Container) -> Iterator[s.Fact]:
    try:
        paths = Hierarchy.detect().open(group_path(container)).paths
    except (SampanError, OSError):
        return
    for controller, folder in paths.items():
        for name in _LIMITS.get(controller, ()):
            try:
                value = Path(folder, name).read_text().strip()
            except OSError:
                continue
            yield s.Fact(name=f"{controller} {name}".strip(), value=value, command=f"cat {folder}/{name}")
        if controller not in _LIMITS:
            yield s.Fact(name=controller or "group", value=folder, command=f"ls {folder}")


_LIMITS = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.usage_in_bytes"),
    "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"), "pids": ("pids.max", "pids.current"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"), "freezer": ("freezer.state",),
    "": ("memory.max", "memory.current", "cpu.max", "cpu.weight", "pids.max", "pids.current"),
}  # fmt: skip


def _mounts(pid: int) -> Iterator[s.Fact]:
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        head, _, tail = line.partition(" - ")
        words = head.split()
        kind, source, *_ = tail.split(" ")
        yield s.Fact(name=words[4], value=f"{kind} {source} {words[5]}", command=f"nsenter -t {pid} -m findmnt {words[4]}")


def _network(container: Container) -> Iterator[s.Fact]:
    record, rooms = container.record, container.rooms
    yield s.Fact(name="mode", value=record.host.network_mode)
    table = table_name(rooms.networks.bridge)
    for endpoint in container.endpoints:
        info = rooms.networks.network_of(endpoint)
        inside = f"nsenter -t {record.pid} -n"
        yield s.Fact(name="network", value=f"{info.name} ({info.driver})", command=f"sampan network inspect {info.name}")
        if info.driver == "bridge":
            yield s.Fact(name="veth", value=endpoint.veth_host, command=f"ip link show {endpoint.veth_host}")
            yield s.Fact(name="bridge", value=info.link, command=f"bridge link show dev {endpoint.veth_host}")
        for address in endpoint.addresses:
            yield s.Fact(name="address", value=f"{address} on {endpoint.ifname}", command=f"{inside} ip addr")
        for gateway in (endpoint.gateway, endpoint.gateway6):
            if gateway:
                yield s.Fact(name="gateway", value=gateway, command=f"{inside} ip route")
        yield s.Fact(name="mac", value=endpoint.mac)
        for port in endpoint.published:
            family = "ip6" if ":" in port.host_ip else "ip"
            yield s.Fact(
                name=f"port {port.container_port}/{port.proto}", value=f"{port.host_ip or '0.0.0.0'}:{port.host_port}",
                command=f"nft list table {family} {table}",
            )  # fmt: skip


_LABELS = "in this kernel; containers get no label from Sampan, and asking for one is refused"


def doctor(rooms: Rooms) -> list[s.Finding]:
    """Return what the host has and lacks.  Blocks."""
    version = kernel_version()
    made = [s.Finding(level="ok" if version >= (5, 19) else "error", subject="kernel", text=f"Linux {version[0]}.{version[1]}")]
    for call in ("open_tree", "mount_setattr"):
        has = supports(call)
        made.append(s.Finding(level="ok" if has else "error", subject=call, text="present" if has else "missing"))
    held = caps.get()[1]
    for name in ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_RESOURCE"):
        has = bool(held >> caps.NAMES[name] & 1)
        level = "ok" if has else "note" if name == "CAP_SYS_RESOURCE" else "error"
        text = "held" if has else "missing: limits above the hard limit cannot be given" if level == "note" else "missing"
        made.append(s.Finding(level=level, subject=name, text=text))
    v1 = Path("/sys/fs/cgroup/memory").exists()
    made.append(s.Finding(level="ok", subject="control groups", text="version 1" if v1 else "version 2"))
    for path, subject in (("/sys/module/apparmor", "AppArmor"), ("/sys/fs/selinux", "SELinux")):
        has = Path(path).exists()
        made.append(s.Finding(level="ok" if has else "note", subject=subject, text=_LABELS if has else "not in this kernel"))
    made += [s.Finding(level="warning", subject="network", text=text) for text in rooms.networks.problems()]
    return made
