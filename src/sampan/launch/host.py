"""What the spawner knows of the host, inherited by all that it forks."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sampan.cgroups import Group, Hierarchy
from sampan.errors import StepFailed, Unsupported
from sampan.kernel import caps
from sampan.kernel.fds import Fd
from sampan.launch import groups
from sampan.oci.runtime import Process, Resources

_LARGEST_FILTER = 4096 * 8  # BPF_MAXINSNS instructions of 8 bytes (bpf_common.h)


@dataclass(frozen=True)
class Host:
    """Facts of the host, found once."""

    last_cap: int
    controllers: tuple[tuple[str, str], ...]
    hierarchy: Hierarchy | None

    @classmethod
    def look(cls) -> Host:
        try:
            hierarchy = Hierarchy.detect()
        except Unsupported:
            hierarchy = None
        return cls(caps.last_cap(), groups.v1_mounts(), hierarchy)

    @property
    def born_in_group(self) -> bool:
        """Whether a process is born in its group, which then comes first: on cgroup v2 it cannot walk in afterwards."""
        return self.hierarchy is not None and self.hierarchy.version != 1

    def make_group(self, path: str, resources: Resources) -> Group | None:
        """Make the control group with its limits; None without a path.  Raises OSError or an error of errors.py."""
        if not path:
            return None
        if self.hierarchy is None:
            raise Unsupported("no control group hierarchy is mounted")
        return self.hierarchy.create(path, resources)


def socket_identity(path: str) -> tuple[int, int]:
    """Return what tells a socket's file from a later one of its name: inode number and change time.  Raises OSError."""
    found = os.lstat(path)
    return found.st_ino, found.st_ctime_ns


def read_filter(program: Fd | None) -> bytes:
    """Return a compiled seccomp filter, b"" for unconfined.  Raises StepFailed when it is empty: that would be no filter."""
    if program is None:
        return b""
    found = os.pread(program.fileno(), _LARGEST_FILTER, 0)
    if not found:
        raise StepFailed("seccomp", 0, "the compiled filter is empty")
    return found


def refuse_labels(process: Process) -> None:
    """Raise Unsupported when a security label is asked for: a protection must never be silently missing (P17)."""
    if process.apparmor_profile or process.selinux_label:
        raise Unsupported("AppArmor and SELinux labels are not supported")
