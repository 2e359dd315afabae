"""Which control group hierarchies this host has, and how a group is made in them.

v1 wins where both exist (hybrid): a controller bound to v1 is not in v2.  v2 alone is used when no v1 controller is mounted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from sampan.cgroups import files
from sampan.cgroups.group import Group, GroupV1, GroupV2
from sampan.cgroups.place import checked_path
from sampan.errors import Conflict, Unsupported
from sampan.oci.runtime import Resources

_V1 = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
)
_V2 = ("cpu", "cpuset", "memory", "pids", "io")
_TRIES = 8  # another engine may remove an empty parent between our two calls


@dataclass(frozen=True)
class Hierarchy:
    """The mounted hierarchies: version 1 or 2, and controller -> mount point (v2: one, under the name "")."""

    version: int
    mounts: dict[str, str]

    @classmethod
    def detect(cls, mountinfo: str | None = None) -> Hierarchy:
        """Read /proc/self/mountinfo (or the given text).  Raises Unsupported when no hierarchy is mounted."""
        text = _mountinfo() if mountinfo is None else mountinfo
        v1: dict[str, str] = {}
        v2 = ""
        for line in text.splitlines():
            head, separator, tail = line.partition(" - ")
            if not separator or not tail.startswith("cgroup"):
                continue
            target, (kind, _, options) = head.split()[4], tail.split(" ", 2)
            if kind == "cgroup2":
                v2 = v2 or target
            elif kind == "cgroup":
                words = options.split(",")
                for word in words:
                    if word in _V1 or word == "name=systemd":
                        v1.setdefault(word, target)
        if any(controller in v1 for controller in _V1):
            return cls(1, v1)
        if v2:
            return cls(2, {"": v2})
        raise Unsupported("no control group hierarchy is mounted")

    def paths(self, cgroups_path: str) -> dict[str, str]:
        """Return controller -> folder of a group, whether it exists or not.  Raises InvalidRequest on a bad path."""
        relative = checked_path(cgroups_path)
        folders: dict[str, str] = {}
        for controller, mount in self.mounts.items():
            folder = f"{mount}/{relative}"
            if folder not in folders.values() or controller in (
                "memory",
                "cpu",
                "cpuacct",
                "pids",
                "blkio",
                "devices",
                "cpuset",
            ):
                folders[controller] = folder  # cpu,cpuacct in one mount: two names for one folder
        return folders

    def create(self, cgroups_path: str, resources: Resources) -> Group:
        """Make the group with its limits, or leave nothing behind.

        Raises Conflict when a group of that path has processes, InvalidRequest and Unsupported as `Group.apply` does.
        """
        paths = self.paths(cgroups_path)
        with ExitStack() as undo:
            for folder in dict.fromkeys(paths.values()):
                _make(folder, self._prepare_parent)
                undo.callback(_try_rmdir, folder)
            if self.version == 1:
                _fill_cpuset(paths.get("cpuset", ""))
            group = self.open(cgroups_path)
            group.apply(resources)
            undo.pop_all()
        return group

    def open(self, cgroups_path: str) -> Group:
        """Return the group of that path as it is; it need not exist any more."""
        paths = self.paths(cgroups_path)
        return GroupV1(paths) if self.version == 1 else GroupV2(paths)

    def remove_empty(self, cgroups_path: str) -> None:
        """Remove a parent of groups where it is empty; for an engine that leaves."""
        for folder in self.paths(cgroups_path).values():
            _try_rmdir(folder)

    def _prepare_parent(self, folder: str) -> None:
        """Make the folder above a group, with the controllers that the group needs."""
        if self.version == 1:
            _make_parents(folder, lambda made: _fill_cpuset(made) if "cpuset" in self.mounts else None)
            return
        mount = self.mounts[""]
        current = mount
        _enable(mount)
        for part in folder[len(mount) :].strip("/").split("/"):
            current = f"{current}/{part}"
            try:
                os.mkdir(current, 0o755)
            except FileExistsError:
                pass
            _enable(current)


def _mountinfo() -> str:
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode(errors="replace")


def _make(folder: str, prepare_parent: Callable[[str], None]) -> None:
    for _ in range(_TRIES):
        try:
            os.mkdir(folder, 0o755)
        except FileNotFoundError:
            prepare_parent(folder.rpartition("/")[0])
            continue
        except FileExistsError:
            try:
                os.rmdir(folder)  # a leftover with limits of its own: only a new folder has none
            except OSError:
                raise Conflict(f"control group {folder} exists and is in use") from None
            continue
        return
    raise Conflict(f"control group {folder} vanishes while it is made")


def _make_parents(folder: str, made: Callable[[str], None]) -> None:
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_parents(folder.rpartition("/")[0], made)
        try:
            os.mkdir(folder, 0o755)
        except FileExistsError:
            return
    made(folder)


def _fill_cpuset(folder: str) -> None:
    """A new v1 cpuset has neither processors nor memory, and takes no process (ENOSPC) until it has its parent's.

    The parent may be as new: whoever made it may have died before it could fill it.
    """
    if not folder or not os.path.exists(f"{folder}/cpuset.cpus"):
        return
    parent = folder.rpartition("/")[0]
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(f"{folder}/{name}").strip():
            _fill_cpuset(parent)
            files.write(f"{folder}/{name}", files.read(f"{parent}/{name}").strip())


def _enable(folder: str) -> None:
    """Hand the controllers down to the folder's children; what the host does not have is missed only by a limit that wants it."""
    present = set(files.read_or(f"{folder}/cgroup.controllers", "").split())
    given = set(files.read_or(f"{folder}/cgroup.subtree_control", "").split())
    for controller in _V2:
        if controller in present - given:
            try:
                files.write(f"{folder}/cgroup.subtree_control", f"+{controller}")
            except OSError:
                continue


def _try_rmdir(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass
