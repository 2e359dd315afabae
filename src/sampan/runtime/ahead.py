"""/proc and /sys of a container that is not known yet, with all that is read-only or masked in them.

A third of the mounts of a start are made here while nobody waits: in the namespaces of an init that was made ahead, over the
host's own /proc and /sys as that init sees them, and moved into the container's root when its config asks for nothing else
(plan.as_usual).  They need neither ids nor a root file system.  The init's mounts still follow the host's unmounting then: a
process that waits must keep no file system busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress

from sampan.errors import SampanError
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.mount import attach, new_mount, unmount
from sampan.oci.defaults import MASKED, PROC, READONLY, SYS
from sampan.runtime import apply
from sampan.runtime.mount_options import parse
from sampan.runtime.plan import Mask, ReadOnly


def make() -> dict[str, Fd]:
    """Return the mounts by target, attached where the host has its own; {} where the kernel will not (a start says why)."""
    made: dict[str, Fd] = {}
    try:
        with ExitStack() as undo:
            # Both before either is attached: the kernel wants to see the host's own whole (mount_too_revealing).
            for mount in (PROC, SYS):
                made[mount.destination] = new_mount(mount.type, {}, parse(mount.options).set_)
                undo.callback(made[mount.destination].close)
            for target, tree in made.items():
                attach(tree, target)
                undo.callback(_detach, target)
            with open_fd("/", apply.PLACE) as root:
                apply.walk((ReadOnly(READONLY), Mask(MASKED)), apply.Walk(root, {}, True, True, (), systems=made))
            undo.pop_all()
    except (OSError, SampanError):
        return {}
    return made


def drop(made: Mapping[str, Fd]) -> None:
    """Undo it: the container wants others."""
    for target, tree in made.items():
        _detach(target)
        tree.close()


def _detach(target: str) -> None:
    with suppress(OSError):
        unmount(target, detach=True)
