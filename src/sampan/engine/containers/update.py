"""Update: new limits in the running control group and in the record, or nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

from msgspec import structs

from sampan.cgroups.update import update as update_group
from sampan.engine import spec_resources
from sampan.engine.containers import live, validate
from sampan.engine.containers.container import Container
from sampan.engine.containers.groups import group_of
from sampan.errors import Broken, Conflict, InvalidRequest, SampanError
from sampan.oci.runtime import Pids, Resources
from sampan.wire import containers as c
from sampan.wire import resources as r

# What an update changes; everything else of Resources is fixed at creation.
_FIELDS = (
    "cpu_shares", "memory", "nano_cpus", "blkio_weight", "cpu_period", "cpu_quota", "cpu_realtime_period",
    "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems", "memory_reservation", "memory_swap",
)  # fmt: skip


async def update(container: Container, body: r.UpdateBody) -> list[str]:
    """Change it and return warnings; the caller holds the lock.  Raises InvalidRequest, Conflict, Broken."""
    judge(body)
    record = container.record
    if container.removing or record.status in ("removing", "dead"):
        raise _refused(container, 'Container is marked for removal and cannot be "update".')
    validate.limits(merged(container, body))
    with ExitStack() as network:
        await asyncio.to_thread(live.change, container, body, network)
        old, new = container.record.host, merged(container, body)
        warnings: list[str] = []
        undo: Callable[[], object] = list
        if record.running:
            warnings, undo = await asyncio.to_thread(_apply, container, old, new)
        try:
            container.update(host=new)
        except BaseException:
            await asyncio.to_thread(undo)
            raise
        network.pop_all()
    container.emit("update")
    return warnings


def judge(body: r.UpdateBody) -> None:
    """Judge what the request says by itself.  Raises InvalidRequest."""
    alone = c.HostConfig(**{name: getattr(body, name) for name in _FIELDS}, restart_policy=body.restart_policy)
    if alone.memory_swap > 0 and not alone.memory:
        alone = structs.replace(alone, memory_swap=0)
    validate.limits(alone)
    validate.restart(alone)


def merged(container: Container, body: r.UpdateBody) -> c.HostConfig:
    """Return the configuration with what the request changes.  Raises Conflict where old and new contradict each other."""
    old = container.record.host
    conflicts = (
        (body.nano_cpus and old.cpu_period, "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"),
        (body.nano_cpus and old.cpu_quota, "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set"),
        (body.cpu_period and old.nano_cpus, "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"),
        (body.cpu_quota and old.nano_cpus, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"),
        (body.memory and not body.memory_swap and body.memory > old.memory_swap,
         "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"),
        (body.restart_policy and body.restart_policy.name not in ("", "no") and old.auto_remove,
         "Restart policy cannot be updated because AutoRemove is enabled for the container"),
    )  # fmt: skip
    for wrong, text in conflicts:
        if wrong:
            raise _refused(container, text)
    changed: dict[str, object] = {name: value for name in _FIELDS if (value := getattr(body, name))}
    if body.pids_limit is not None:
        changed["pids_limit"] = body.pids_limit if body.pids_limit > 0 else None
    if body.restart_policy is not None and body.restart_policy.name:
        changed["restart_policy"] = body.restart_policy
    return structs.replace(old, **changed)


def difference(old: c.HostConfig, new: c.HostConfig) -> Resources:
    """Return the limits that change, each with those that the kernel sets together with it."""
    groups = (("memory", "memory_swap"), ("cpu_period", "cpu_quota", "nano_cpus"), ("cpu_realtime_period", "cpu_realtime_runtime"))
    changed = {name for name in _FIELDS if getattr(old, name) != getattr(new, name)}
    for names in groups:
        if changed.intersection(names):
            changed.update(names)
    made = spec_resources.resources(c.HostConfig(**{name: getattr(new, name) for name in changed}), ())
    if old.pids_limit == new.pids_limit:
        return made
    return structs.replace(made, pids=Pids(limit=new.pids_limit if new.pids_limit is not None and new.pids_limit > 0 else -1))


def _apply(container: Container, old: c.HostConfig, new: c.HostConfig) -> tuple[list[str], Callable[[], object]]:
    """Set the difference in the control group; return warnings, and what sets it back.  Blocks."""
    group = group_of(container)
    if not group.exists():  # it has just ended: the next start takes the new limits
        return [], list
    try:
        update_group(group, difference(old, new))
    except (SampanError, OSError) as error:
        kind = InvalidRequest if isinstance(error, InvalidRequest) else Broken
        raise kind(f"Cannot update container {container.id}: {error}") from error
    return group.warnings, lambda: update_group(group_of(container), difference(new, old))


def _refused(container: Container, text: str) -> Conflict:
    return Conflict(f"Cannot update container {container.id}: {text}")
