"""What the kernel holds for a container, read from the kernel now, each with the plain command that shows it by hand."""

from __future__ import annotations

import os
from pathlib import Path

from sampan.engine.records import ContainerRecord
from sampan.network.records import Endpoint
from sampan.wire.system import Explanation, Fact

_LIMIT_FILES = (
    "memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "cpu.shares", "cpu.weight", "pids.max",
    "cpuset.cpus", "devices.list",
)  # fmt: skip


def explain(record: ContainerRecord, cgroup: str, bridge: str, endpoint: Endpoint | None) -> Explanation:
    """Return the sections.  Of a container that does not run, only what its record says."""
    sections: dict[str, list[Fact]] = {"record": [Fact(name="state", value=record.state), Fact(name="image", value=record.image)]}
    if record.running and record.pid:
        sections["processes"] = _processes(record.pid)
        sections["namespaces"] = _namespaces(record.pid)
        sections["cgroup"] = _cgroup(record.pid, cgroup)
        sections["mounts"] = _mounts(record.pid)
    if endpoint is not None:
        sections["network"] = _network(endpoint, bridge)
    return Explanation(id=record.id, name=record.name, sections=sections)


def _processes(pid: int) -> list[Fact]:
    facts = []
    line = next((x for x in _read(f"/proc/{pid}/status").splitlines() if x.startswith("NSpid:")), "")
    numbers = line.split()[1:]
    if numbers:
        facts.append(
            Fact(name="pid outside / inside", value=f"{numbers[0]} / {numbers[-1]}", command=f"grep NSpid /proc/{pid}/status")
        )
    facts.append(Fact(name="uid map", value=" ".join(_read(f"/proc/{pid}/uid_map").split()), command=f"cat /proc/{pid}/uid_map"))
    for key in ("CapEff", "CapBnd", "Seccomp", "NoNewPrivs"):
        line = next((x for x in _read(f"/proc/{pid}/status").splitlines() if x.startswith(f"{key}:")), "")
        facts.append(Fact(name=key, value=line.partition(":")[2].strip(), command=f"grep {key}: /proc/{pid}/status"))
    return facts


def _namespaces(pid: int) -> list[Fact]:
    facts = []
    for kind in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"):
        try:
            own = os.readlink(f"/proc/{pid}/ns/{kind}")
        except OSError:
            continue
        shared = " (the host's)" if own == os.readlink(f"/proc/self/ns/{kind}") else ""
        facts.append(Fact(name=kind, value=own + shared, command=f"readlink /proc/{pid}/ns/{kind}"))
    return facts


def _cgroup(pid: int, cgroup: str) -> list[Fact]:
    facts = [Fact(name="path", value=cgroup, command=f"cat /proc/{pid}/cgroup")]
    tops = (
        sorted(p for p in Path("/sys/fs/cgroup").iterdir() if p.is_dir())
        if not Path("/sys/fs/cgroup/cgroup.procs").exists()
        else [Path("/sys/fs/cgroup")]
    )
    for top in tops:
        for name in _LIMIT_FILES:
            file = Path(f"{top}{cgroup}/{name}")
            value = _read(str(file)).strip()
            if value:
                facts.append(Fact(name=f"{top.name}/{name}", value=value.replace("\n", "; "), command=f"cat {file}"))
    return facts


def _mounts(pid: int) -> list[Fact]:
    facts = []
    for line in _read(f"/proc/{pid}/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 5 and after:
            facts.append(
                Fact(name=fields[4], value=f"{after.split()[0]} {fields[5]}", command=f"grep ' {fields[4]} ' /proc/{pid}/mountinfo")
            )
    return facts


def _network(endpoint: Endpoint, bridge: str) -> list[Fact]:
    facts = [
        Fact(name="veth", value=f"{endpoint.veth_host} on {bridge}", command=f"ip link show {endpoint.veth_host}"),
        Fact(name="address", value=f"{endpoint.ip}/{endpoint.prefix}", command=f"bridge fdb show br {bridge}"),
    ]
    facts += [
        Fact(name=f"{p.host_ip or '0.0.0.0'}:{p.host_port}/{p.proto}", value=f"to {endpoint.ip}:{p.container_port}",
             command="nft list ruleset")
        for p in endpoint.published
    ]  # fmt: skip
    return facts


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
