"""What this host has and lacks, looked up once when asked: for `sampan doctor` and `info`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sampan.kernel import caps
from sampan.kernel.calls import kernel_version
from sampan.wire.system import Finding

_CAP_SYS_RESOURCE = 1 << caps.NAMES["CAP_SYS_RESOURCE"]


@dataclass(frozen=True)
class HostFacts:
    """memory is bytes."""

    kernel: tuple[int, int]
    cgroup_version: str
    hybrid: bool
    memory: int
    distribution: str
    distribution_version: str
    apparmor: bool
    may_raise_limits: bool


def host_facts() -> HostFacts:
    """Look the host up."""
    release = _release()
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemTotal:"))
    return HostFacts(
        kernel=kernel_version(), cgroup_version="2" if unified else "1",
        hybrid=not unified and Path("/sys/fs/cgroup/unified/cgroup.procs").exists(), memory=memory,
        distribution=release.get("PRETTY_NAME", "Linux"), distribution_version=release.get("VERSION_ID", ""),
        apparmor=Path("/sys/kernel/security/apparmor").is_dir(),
        may_raise_limits=bool(caps.status()["CapEff"] & _CAP_SYS_RESOURCE),
    )  # fmt: skip


def findings(facts: HostFacts) -> list[Finding]:
    """Return what is there and what is missing, with what follows from it."""
    kernel = ".".join(map(str, facts.kernel))
    found = [
        Finding(level="ok" if facts.kernel >= (5, 19) else "error", subject="kernel",
                text=f"Linux {kernel}" + ("" if facts.kernel >= (5, 19) else ": overlays of idmapped layers need 5.19")),
        Finding(level="ok", subject="cgroups", text=f"version {facts.cgroup_version}" + (", hybrid" if facts.hybrid else "")),
    ]  # fmt: skip
    if not facts.may_raise_limits:
        found.append(
            Finding(
                level="note",
                subject="CAP_SYS_RESOURCE",
                text="not held: limits cannot be raised above the host's, nor the oom score lowered",
            )
        )
    if not facts.apparmor:
        found.append(Finding(level="note", subject="AppArmor", text="not in this kernel: containers have no profile"))
    return found


def file_system(path: Path) -> str:
    """Return the type of the file system that `path` is on (proc_pid_mountinfo(5))."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0]
    return "unknown"


def _release() -> dict[str, str]:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value.strip('"') for key, _, value in pairs}
