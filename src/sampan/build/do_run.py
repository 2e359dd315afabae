"""RUN: a container of the launch path over the layers so far."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import msgspec
from msgspec import structs

from sampan.build.cache import short_digest
from sampan.build.image import Built
from sampan.build.layering import keep_run
from sampan.build.mounting import close_trees
from sampan.build.options import BuildFailed, Options
from sampan.build.report import Lines
from sampan.build.steps import RunOp
from sampan.content.images import LayerRef
from sampan.engine import cdi
from sampan.engine.containers import step
from sampan.engine.containers.container import Container
from sampan.engine.containers.containers import Containers
from sampan.engine.images.context import Stores
from sampan.engine.images.threads import finish
from sampan.errors import Forbidden, NotFound
from sampan.kernel.fds import Fd
from sampan.oci.runtime import Mount
from sampan.wire import containers as c

SANDBOX = "buildkitsandbox"  # the host name that commands of a build see, the same every time

Lend = Callable[[Container, ExitStack], list[tuple[Mount, Fd]]]


def devices(op: RunOp, options: Options, folders: Sequence[str]) -> list[cdi.Device]:
    """Return the host's devices that a step gets; one that is not required may be missing.  Blocks.

    Raises NotFound, InvalidRequest; Forbidden for one that neither the host nor both sides allow (SECURITY.md row 63).
    """
    found: dict[str, cdi.Device] = {}
    for text in op.devices:
        name, _, required = text.partition(",")
        try:
            wanted = cdi.find(folders, name)
        except NotFound:
            if required in ("required", "required=true"):
                raise
            continue
        for one in wanted:
            if not one.allowed:
                _entitled("device", options)
            found[one.name] = one
    return list(found.values())


def device_inputs(found: Sequence[cdi.Device]) -> dict[str, str]:
    """Return what devices add to the inputs of a step."""
    return {f"device {one.name}": short_digest(msgspec.json.encode(one.edits)) for one in found}


def device_mounts(found: Sequence[cdi.Device]) -> list[Mount]:
    """Return the folders and files of the host that come with devices."""
    mounts = [mount for one in found for edits in one.edits for mount in edits.mounts]
    return [
        Mount(destination=mount.container_path, source=mount.host_path, options=("rprivate", *_meant(mount.options)))
        for mount in mounts
    ]


def _meant(options: Sequence[str]) -> list[str]:
    """Leave out which kind of bind it is, and how it is to propagate: what is lent is a tree of its own."""
    return [one for one in options if one not in ("bind", "rbind") and "private" not in one and "slave" not in one]


def body(op: RunOp, built: Built, options: Options, given: Sequence[cdi.Device] = ()) -> step.StepBody:
    """Return what to run.  given: its devices.  Raises Forbidden for what both sides have to allow (SECURITY.md row 63)."""
    host = options.host
    if op.security == "insecure":
        _entitled("security.insecure", options)
        host = structs.replace(host, privileged=True)
    if op.network == "host":
        _entitled("network.host", options)
    if op.network != "default":
        host = structs.replace(host, network_mode=op.network)
    tmpfs = {mount.target: f"exec,size={mount.size}" if mount.size else "exec" for mount in op.mounts if mount.type == "tmpfs"}
    if tmpfs:
        host = structs.replace(host, tmpfs=tmpfs)
    environment = {entry.partition("=")[0]: entry for entry in op.environment}
    for edits in (edits for one in given for edits in one.edits):
        nodes = [
            c.DeviceMapping(
                path_on_host=node.host_path or node.path, path_in_container=node.path, cgroup_permissions=node.permissions
            )
            for node in edits.device_nodes
        ]
        groups = [str(one) for one in edits.additional_gids]
        host = structs.replace(host, devices=[*(host.devices or ()), *nodes], group_add=[*(host.group_add or ()), *groups])
        environment |= {entry.partition("=")[0]: entry for entry in edits.env}
    host = structs.replace(host, log_config=c.LogConfig(type="none"))
    name = (options.request.arguments or {}).get("BUILDKIT_SANDBOX_HOSTNAME") or SANDBOX
    joins = host.network_mode == "host" or host.network_mode.startswith("container:")
    return step.StepBody(
        chain=built.chain, argv=op.argv, env=tuple(environment.values()), host=host, user=op.user, folder=op.folder,
        image=built.image or built.base, hostname="" if joins else name,
    )  # fmt: skip


def _entitled(name: str, options: Options) -> None:
    if name not in options.granted:
        raise Forbidden(f"{name} is not allowed: this daemon does not grant it (sampan daemon --build-allow {name})")
    if name not in options.allow:
        raise Forbidden(f"{name} is not allowed: the build was not asked to allow it (--allow {name})")


def limits(options: Options) -> str:
    """Return what of the host options a command can see, for the step's key."""
    host = options.host
    return json.dumps([host.network_mode, host.extra_hosts or [], host.shm_size or 0])


async def run(
    containers: Containers, stores: Stores, wanted: step.StepBody, lend: Lend, lines: Lines,
    keep: tuple[Callable[[LayerRef], None], int | None],
) -> LayerRef:  # fmt: skip
    """Run the step and keep what it changed.  Raises BuildFailed with docker's words; then nothing stays."""
    container = await _create(containers, wanted)
    lines.note(f"Running in {container.id[:12]}")
    with ExitStack() as held:
        try:
            mounts = await finish(lambda: lend(container, held), undo=close_trees)
            code = await step.run(container, mounts, lines.output)
            if code:
                shown = " ".join(wanted.argv)
                raise BuildFailed(f"The command '{shown}' returned a non-zero code: {code}", code)
            await asyncio.shield(step.release(container))
        except BaseException:
            await asyncio.shield(_undo(container, stores))
            raise
        targets = [mount.destination for mount, _ in mounts]
    lines.note(f"Removed intermediate container {container.id[:12]}")
    record, epoch = keep
    return await asyncio.shield(asyncio.to_thread(keep_run, stores, container.id, targets, record, epoch))


async def _create(containers: Containers, wanted: step.StepBody) -> Container:
    """Make the container; cancelled meanwhile, it is taken away again."""
    making = asyncio.ensure_future(asyncio.to_thread(step.create, containers, wanted))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        await asyncio.wait([making])
        if making.exception() is None:
            await asyncio.shield(step.discard(making.result()))
        raise


async def _undo(container: Container, stores: Stores) -> None:
    """Take the container away, and the snapshot that `release` left when it came to its end all the same."""
    await step.discard(container)

    def remove() -> None:
        if container.id in stores.layers.snapshots():
            stores.layers.remove(container.id)

    await asyncio.to_thread(remove)
