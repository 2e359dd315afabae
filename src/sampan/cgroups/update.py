"""Changing the limits of a group that is in use: all of them, or none."""

from __future__ import annotations

import os

from sampan.cgroups import files
from sampan.cgroups.group import Group, GroupV1
from sampan.cgroups.plan import plan_v1, plan_v2
from sampan.errors import Broken
from sampan.oci.runtime import Resources

_V1_MEMORY = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")


def update(group: Group, resources: Resources) -> None:
    """Set the limits; when one is refused, those before it are as they were.

    Raises as Group.apply does, and Broken when the kernel does not take an old value back.
    """
    before = _values(group, resources)
    try:
        group.apply(resources)
    except BaseException as error:
        left = _restore(before)
        if left:
            raise Broken(f"{error}; and these could not be set back: {', '.join(left)}") from error
        raise


def _values(group: Group, resources: Resources) -> list[tuple[str, str]]:
    """Return the present content of every file that the limits would be written to."""
    v1 = isinstance(group, GroupV1)
    plan = plan_v1(resources) if v1 else plan_v2(resources)
    names = [(controller, name) for controller, name, _ in plan.writes if not name.startswith("devices.")]
    names += [(controller, name) for controller, name, _, _ in plan.optional]
    if v1 and any(plan.memory):
        names += [("memory", name) for name in _V1_MEMORY]
    found = {}
    for controller, name in names:
        folder = group.paths.get(controller, group.paths.get("", ""))
        path = f"{folder}/{name}"
        if os.path.exists(path):
            found[path] = files.read(path).strip() or "\n"
    return list(found.items())


def _restore(before: list[tuple[str, str]]) -> list[str]:
    """Write the old values; twice, since one may only fit after another.  Returns the files that refused."""
    left = [(path, value) for path, value in before if files.read_or(path, "").strip() != value.strip()]
    for _ in range(2):
        refused = []
        for path, value in left:
            try:
                files.write(path, value)
            except OSError:
                refused.append((path, value))
        left = refused
    return [path for path, _ in left]
