"""The container's control group as the keeper needs it, and how the hierarchies are mounted inside."""

from __future__ import annotations

import os
from typing import Protocol

from sampan.errors import Unsupported
from sampan.oci.runtime import Resources

try:
    from sampan.cgroups import Hierarchy  # type: ignore[attr-defined]
except ImportError:
    Hierarchy = None


class Group(Protocol):
    """What the keeper asks of a control group (cgroups/)."""

    def add(self, pid: int) -> None: ...

    def kill(self) -> None: ...

    def remove(self) -> None: ...

    def oom_killed(self) -> bool: ...


class _NoGroup:
    """A container without a group of its own (no cgroups path)."""

    def oom_killed(self) -> bool:
        return False

    def add(self, pid: int) -> None: ...

    def kill(self) -> None: ...

    def remove(self) -> None: ...


def make(path: str, resources: Resources) -> Group:
    """Make the group with its limits.  Raises OSError or an error of errors.py."""
    if not path:
        return _NoGroup()
    if Hierarchy is None:
        raise Unsupported("control groups are not built in")
    group: Group = Hierarchy.detect().create(path, resources)
    return group


def v1_mounts() -> tuple[tuple[str, str], ...]:
    """Return (folder name, mount options) of every v1 hierarchy under /sys/fs/cgroup; () on a v2-only host."""
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while more := os.read(fd, 65536):
            text += more
    finally:
        os.close(fd)
    found: dict[str, str] = {}
    for line in text.decode(errors="replace").splitlines():
        head, _, tail = line.partition(" - ")
        target, (kind, _, options) = head.split()[4], tail.split(" ", 2)
        if kind == "cgroup" and target.startswith("/sys/fs/cgroup/"):
            words = [w for w in options.split(",") if w not in ("rw", "ro") and not w.startswith("release_agent=")]
            found[target.rpartition("/")[2]] = ",".join(words)
    return tuple(found.items())
