"""How the host's control group hierarchies are mounted inside a container."""

from __future__ import annotations

import os


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
