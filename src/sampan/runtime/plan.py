"""A container's root file system as data: `plan` turns an OCI config into steps, apply.py walks them.

Nothing here touches the kernel.  Paths are the container's own; the walker resolves each inside the new root.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.errors import InvalidRequest
from sampan.oci.defaults import MASKED, PROC, READONLY, SYS
from sampan.oci.proc_mounts import refuse_over_proc
from sampan.oci.runtime import Device, Mount, Spec
from sampan.runtime.mount_options import Options, parse


@dataclass(frozen=True)
class NewMount:
    """A fresh file system."""

    kind: str
    target: str
    options: Options


@dataclass(frozen=True)
class ReadyMount:
    """/proc or /sys, made with all that is covered in it before the container was known (ahead.py)."""

    target: str


@dataclass(frozen=True)
class TreeMount:
    """A detached mount that came as a descriptor (a bind or a volume)."""

    tree: int
    target: str
    options: Options


@dataclass(frozen=True)
class CgroupMount:
    """The container's own view of its control groups, whatever the version."""

    target: str
    options: Options


@dataclass(frozen=True)
class Node:
    """A device node: made with mknod, or where that is forbidden bound from the host's."""

    device: Device


@dataclass(frozen=True)
class Symlink:
    path: str
    points_to: str


@dataclass(frozen=True)
class Console:
    """/dev/console is the terminal's other end."""


@dataclass(frozen=True)
class Mask:
    """Nothing of these paths may be seen: files become /dev/null, folders an empty read-only tmpfs."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class ReadOnly:
    paths: tuple[str, ...]


@dataclass(frozen=True)
class ReadOnlyRoot:
    """The root mount itself, not what is mounted on it."""


@dataclass(frozen=True)
class Pivot:
    """Make the new root `/` and let the old one go."""


Step = NewMount | ReadyMount | TreeMount | CgroupMount | Node | Symlink | Console | Mask | ReadOnly | ReadOnlyRoot | Pivot

DEVICES = (
    Device(type="c", path="/dev/null", major=1, minor=3, file_mode=0o666),
    Device(type="c", path="/dev/zero", major=1, minor=5, file_mode=0o666),
    Device(type="c", path="/dev/full", major=1, minor=7, file_mode=0o666),
    Device(type="c", path="/dev/random", major=1, minor=8, file_mode=0o666),
    Device(type="c", path="/dev/urandom", major=1, minor=9, file_mode=0o666),
    Device(type="c", path="/dev/tty", major=5, minor=0, file_mode=0o666),
)
SYMLINKS = (
    Symlink("/dev/fd", "/proc/self/fd"),
    Symlink("/dev/stdin", "/proc/self/fd/0"),
    Symlink("/dev/stdout", "/proc/self/fd/1"),
    Symlink("/dev/stderr", "/proc/self/fd/2"),
    Symlink("/dev/ptmx", "pts/ptmx"),
)


def plan(spec: Spec, *, ready: bool = False) -> tuple[Step, ...]:
    """Return the steps that make `spec`'s root file system, in order.  Raises InvalidRequest.

    ready: there is a /proc and a /sys already, as ahead.py makes them, and that is what the config wants (`as_usual`).
    """
    steps: list[Step] = [
        ReadyMount(mount.destination) if ready and mount.type in ("proc", "sysfs") else _mount_step(mount) for mount in spec.mounts
    ]
    if _dev_is_ours(spec):
        named = {device.path for device in spec.linux.devices}
        steps += [Node(device) for device in DEVICES if device.path not in named]
        steps += [Node(device) for device in spec.linux.devices]
        steps += SYMLINKS
        if spec.process.terminal:
            steps.append(Console())
    if spec.linux.readonly_paths and not ready:
        steps.append(ReadOnly(spec.linux.readonly_paths))
    if spec.linux.masked_paths and not ready:
        steps.append(Mask(spec.linux.masked_paths))
    if spec.root.readonly:
        steps.append(ReadOnlyRoot())
    steps.append(Pivot())
    return tuple(steps)


def as_usual(spec: Spec) -> bool:
    """Return whether the config wants /proc and /sys as nearly all do, and no mount of its own inside them.

    Masks are laid over such a mount (row 2), so it must come before them.
    """
    inside = [mount for mount in spec.mounts if mount.destination.startswith(("/proc", "/sys"))]
    return (
        spec.linux.masked_paths == MASKED and spec.linux.readonly_paths == READONLY
        and PROC in inside and SYS in inside and all(mount in (PROC, SYS) or mount.type == "cgroup" for mount in inside)
    )  # fmt: skip


def _mount_step(mount: Mount) -> Step:
    target = mount.destination
    if not target.startswith("/") or "\0" in target or ".." in target.split("/"):
        raise InvalidRequest(f"mount destination {target!r} is not an absolute path without ..")
    options = parse(mount.options)
    if mount.tree is not None:
        refuse_over_proc(target)
        return TreeMount(mount.tree, target, options)
    if mount.type == "cgroup":
        return CgroupMount(target, options)
    if mount.type != "proc":
        refuse_over_proc(target)
    if mount.type not in ("proc", "sysfs", "tmpfs", "devpts", "mqueue"):
        raise InvalidRequest(f"mount {target}: type {mount.type!r} without a source")
    return NewMount(mount.type, target, options)


def _dev_is_ours(spec: Spec) -> bool:
    """Return whether /dev is a fresh tmpfs: a user's own /dev is left as it is."""
    return any(m.destination.rstrip("/") == "/dev" and m.type == "tmpfs" and m.tree is None for m in spec.mounts)
