"""Which namespaces a container gets: those that are made with it, and those that it joins.  namespaces(7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sampan.errors import StepFailed
from sampan.kernel.fds import Fd
from sampan.kernel.process import Clone
from sampan.oci.runtime import Linux

KINDS = {
    "user": Clone.NEWUSER, "mount": Clone.NEWNS, "pid": Clone.NEWPID, "network": Clone.NEWNET, "ipc": Clone.NEWIPC,
    "uts": Clone.NEWUTS, "cgroup": Clone.NEWCGROUP, "time": Clone.NEWTIME,
}  # fmt: skip
_JOIN_ORDER = tuple(KINDS)  # the user namespace gives the rights over the others

# What a container gets that asks for nothing else; the control group namespace is left to init.
USUAL = Clone.NEWUSER | Clone.NEWPID | Clone.NEWNS | Clone.NEWUTS | Clone.NEWIPC | Clone.NEWNET


class Namespaces(NamedTuple):
    """What to make (clone flags) and what to join (descriptor, type)."""

    make: int
    join: tuple[tuple[Fd, int], ...] = ()


def namespaces_of(linux: Linux, fds: Sequence[Fd]) -> Namespaces:
    """Return what the config asks for.  The control group namespace is left to init.  Raises StepFailed."""
    make, join, seen = 0, [], set()
    for wanted in linux.namespaces:
        if wanted.type not in KINDS or wanted.type in seen:
            raise StepFailed("namespaces", 0, f"namespace {wanted.type!r} is unknown or named twice")
        seen.add(wanted.type)
        if wanted.fd is not None:
            join.append((_JOIN_ORDER.index(wanted.type), fds[wanted.fd], KINDS[wanted.type]))
        elif wanted.type != "cgroup":
            make |= KINDS[wanted.type]
    if not make & Clone.NEWNS:
        raise StepFailed("namespaces", 0, "a container needs a mount namespace of its own")
    join.sort(key=lambda item: item[0])
    return Namespaces(make, tuple((fd, kind) for _, fd, kind in join))
