"""Doing what an init does, as far as it changes nothing, before it counts.

The spawner does it some times: the interpreter then has its code specialised, ctypes its types and msgspec its decoders, once
and for all.  An init made ahead of need does it once more: after a fork every page that is written to is first copied (about
3 microseconds each on the reference machine), and Python writes wherever it looks.
"""

from __future__ import annotations

import os
from contextlib import suppress

from sampan import messages
from sampan.errors import StepFailed
from sampan.files.users import resolve
from sampan.kernel import caps
from sampan.kernel.fds import open_fd
from sampan.kernel.mount import Attr, clone_tree, new_mount, set_attributes
from sampan.launch.channel import Channel
from sampan.oci.runtime import Capabilities, IdMapping, Linux, Mount, Namespace, Process, Spec
from sampan.runtime import apply
from sampan.runtime.identity import prctl_holds
from sampan.runtime.plan import plan
from sampan.runtime.program import DEFAULT_PATH, find

_OFTEN = 16  # CPython 3.11 specialises a function at its eighth call, an instruction some calls later
_CAPS = tuple(caps.NAMES)[:14]
_MAPS = (IdMapping(container_id=0, host_id=100_000, size=65_536),)
_QUIET = ("nosuid", "noexec", "nodev")
_SPEC = Spec(
    process=Process(
        args=("true",), env=("PATH=/usr/bin:/bin", "HOME=/root"),
        capabilities=Capabilities(bounding=_CAPS, permitted=_CAPS, effective=_CAPS),
    ),
    hostname="rehearsal",
    mounts=(
        Mount(destination="/proc", type="proc", options=_QUIET),
        Mount(destination="/dev", type="tmpfs", options=("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(destination="/dev/pts", type="devpts", options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
        Mount(destination="/sys", type="sysfs", options=(*_QUIET, "ro")),
        Mount(destination="/sys/fs/cgroup", type="cgroup", options=(*_QUIET, "ro")),
        Mount(destination="/dev/mqueue", type="mqueue", options=_QUIET),
        Mount(destination="/dev/shm", type="tmpfs", options=(*_QUIET, "mode=1777", "size=67108864")),
        Mount(destination="/etc/hosts", type="bind", options=("rbind", "rprivate"), tree=3),
    ),
    linux=Linux(
        namespaces=tuple(Namespace(type=kind) for kind in ("user", "mount", "pid", "network", "ipc", "uts", "cgroup")),
        uid_mappings=_MAPS, gid_mappings=_MAPS, masked_paths=("/proc/kcore", "/sys/firmware"), readonly_paths=("/proc/sys",),
    ),
)  # fmt: skip
_TASK = messages.to_bytes(
    messages.Task(
        process=_SPEC.process, user="", group_add=(), pipes=True, program=bytes(4096), last_cap=40, enter_as_root=True,
        place=messages.Place(
            spec=_SPEC, trees=(3,), folder="/", in_userns=True, own_netns=True, own_namespaces=("user", "mount"),
            controllers=(("memory", "rw,memory"),),
        ),
    )
)  # fmt: skip


def learn() -> None:
    """For the spawner: do it until it goes by itself."""
    for _ in range(_OFTEN):
        rehearse()
        with suppress(OSError), new_mount("tmpfs", {"mode": "755", "size": "64k"}, Attr.NODEV) as tree, clone_tree("", at=tree):
            pass
        one, other = Channel.pair()
        other.send(messages.Go(stage="exec"))
        one.receive()
        one.close()
        other.close()


def rehearse() -> None:
    """Read a Task, plan its root file system, look for mount points, a user, a program; what fails here is told when it counts."""
    task = messages.from_bytes(_TASK)
    assert isinstance(task, messages.Task) and task.place is not None
    caps.mask(task.process.capabilities.bounding)
    caps.get()
    with suppress(OSError), open_fd("/", os.O_PATH | os.O_DIRECTORY) as root:
        for step in plan(task.place.spec):
            apply.describe(step)
        apply.open_target(root, "/proc/sys", directory=True).close()
        with clone_tree("/") as tree:
            set_attributes(tree, set_=Attr.RDONLY)
        resolve(root, "", ())
        with suppress(StepFailed):
            find(root, "/", "true", DEFAULT_PATH)
    prctl_holds(0)
    os.getresuid(), os.getresgid()
    messages.to_bytes(messages.Built(uid=0, gid=0))
