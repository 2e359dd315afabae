"""A container's control group, from the engine's side."""

from __future__ import annotations

import functools

from sampan.cgroups import Group, Hierarchy
from sampan.engine.containers.container import Container


@functools.cache
def hierarchy() -> Hierarchy:
    """Return what this host has; asked once, since it does not change under a running daemon.  Raises Unsupported."""
    return Hierarchy.detect()


def group_path(container: Container) -> str:
    parent = container.record.host.cgroup_parent.strip("/") or container.rooms.cgroup_parent.strip("/")
    return f"/{parent}/{container.id}"


def group_of(container: Container) -> Group:
    """Return the group as it is; it need not exist any more."""
    return hierarchy().open(group_path(container))
