"""Start: mounts, network and configuration come together, and a program runs (launch/start.py)."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from msgspec import UNSET
from msgspec.structs import replace

from sampan import messages as m
from sampan.engine import spec, spec_mounts
from sampan.engine.containers import connections, etc, image_mounts, legacy_links, log_target, volumes
from sampan.engine.containers.container import Container, open_folder
from sampan.engine.containers.exits import heard_exit
from sampan.engine.keepers import Keeper
from sampan.errors import Broken, Conflict, InvalidRequest, NotFound, NotModified, SampanError, StepFailed
from sampan.kernel import netns, rtnl
from sampan.kernel.fds import Fd
from sampan.kernel.mount_root import mount_of
from sampan.launch.start import Launch, Meanwhile, Started
from sampan.network.records import Endpoint
from sampan.oci.runtime import Mount
from sampan.wire import containers as c

NAMESPACE_FILES = {"network": "net", "pid": "pid", "ipc": "ipc"}


@dataclass
class Parts:
    """What a start has gathered; its descriptors are closed once the program runs."""

    fds: list[Fd] = field(default_factory=list)
    joined: dict[str, int] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    log: m.LogTarget = field(default_factory=lambda: m.LogTarget(driver="none"))
    reaper: int | None = None
    shm: int | None = None
    attachments: list[m.Attachment] = field(default_factory=list)
    environment: list[str] = field(default_factory=list)  # what others lend it
    uid_base: int | None = None

    def add(self, fd: Fd) -> int:
        self.fds.append(fd)
        return len(self.fds) - 1

    def close(self) -> None:
        for fd in self.fds:
            fd.close()


async def start(container: Container) -> None:
    """Start it and return when its program runs; the caller holds the lock.

    Raises NotModified, Conflict, and for a failed start InvalidRequest or Broken with the words docker looks for.
    """
    record = container.record
    if record.running:
        if record.paused:
            raise Conflict("cannot start a paused container, try unpause instead")
        raise NotModified(f"container {record.name} is running")
    if container.removing or record.status in ("removing", "dead"):
        raise Conflict("container is marked for removal and cannot be started")
    if container.rooms.stopping:
        raise Conflict("the daemon is stopping")
    container.stop_asked = False
    await _to_its_end(_attempt(container))


async def _to_its_end(work: Coroutine[None, None, None]) -> None:
    """Do the work; who is cancelled meanwhile leaves when it is done: what a thread has begun cannot be called back."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody waits for it any more; the record has it
        raise


async def _attempt(container: Container) -> None:
    try:
        with ExitStack() as undo:
            await _start(container, undo)
            undo.pop_all()
    except (SampanError, OSError) as error:
        raise _record_failure(container, error) from error


async def _start(container: Container, undo: ExitStack) -> None:
    connections.check(container)
    parts = Parts()
    try:
        _join(container, parts)
        for far, wish in container.pending:
            parts.attachments.append(replace(wish, fd=parts.add(Fd(far.detach()))))
        container.pending.clear()
        parts.environment = [*legacy_links.environment(container.rooms, container.record), *container.lent_env]
    except BaseException:
        parts.close()
        raise
    endpoints, started = await container.rooms.launcher.start(lambda: _launch(container, parts, undo))
    container.keeper, container.pidfd, container.endpoints = Keeper(started.keeper, started.keeper_pid), started.pidfd, endpoints
    _running(container, started)
    _join_late(container, container.keeper)
    container.keeper.settle()


def _join_late(container: Container, keeper: Keeper) -> None:
    """Give the keeper those who attached while the start went on."""
    for far, wish in container.pending:
        with far, suppress(OSError):  # it has ended already: so does the stream
            keeper.send(m.Attach(attachment=wish), [far.fileno()])
    container.pending.clear()


def _launch(container: Container, parts: Parts, undo: ExitStack) -> tuple[tuple[Endpoint, ...], Started]:
    """Everything that blocks, in one thread.  `undo` gets what must be undone.  Raises StepFailed, Broken, OSError."""
    try:
        container.left()
        endpoints, mount = _gather(container, parts, undo)
        launch = _described(container, parts)

        def connect(namespace: Fd) -> None:
            _connect(container, endpoints, namespace)
            _note(container)

        return endpoints, container.rooms.launcher.launch(launch, parts.fds, Meanwhile(mount, connect))
    finally:
        parts.close()


def _note(container: Container) -> None:
    """Write down, before the program may run, that it does: what is acknowledged later has survived a power cut already.

    Nothing else of the record changes, so that a daemon that finds the start unfinished can take it back (supervise.py).
    """
    container.rooms.records.put(container.id, replace(container.record, status="running", pid=0))


def _gather(container: Container, parts: Parts, undo: ExitStack) -> tuple[tuple[Endpoint, ...], Callable[[], Fd]]:
    """Everything that blocks, in one thread: network lease, name files, volumes, mounts.  `undo` gets what must be undone.

    Return the endpoints, and what mounts the root file system when its init is on its way.
    """
    rooms, record = container.rooms, container.record
    endpoints = connections.reserve(container, undo)
    state_dir = rooms.state_dir(record.id)
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("exit", "keeper.sock"):
        (state_dir / name).unlink(missing_ok=True)
    etc.write(container, endpoints)
    userns = None
    base = record.uid_base if record.uid_base is not None else parts.uid_base
    if base is not None:
        userns = parts.fds[parts.add(rooms.ranges.namespace(base, rooms.launcher.spawner.userns))]
    volumes.fill(container, undo)
    parts.mounts = spec_mounts.places(
        record, rooms.folder(record.id), userns, parts.fds, functools.partial(image_mounts.tree, rooms)
    )
    if parts.shm is not None and not any(place.target in ("/dev", "/dev/shm") for place in record.places):
        parts.mounts.append(Mount(destination="/dev/shm", source="shm", options=("rprivate",), tree=parts.shm))
    for mount, lent in container.lent:
        parts.mounts.append(replace(mount, tree=parts.add(Fd(os.dup(lent.fileno())))))
    if rooms.defaults.init if record.host.init in (UNSET, None) else record.host.init:
        parts.reaper = parts.add(rooms.launcher.reaper())
    parts.log = log_target.target(record, parts.add(open_folder(rooms.folder(record.id))))
    if base is not None and userns is not None:
        return endpoints, functools.partial(rooms.layers.mount, record.id, uid_base=base, userns=userns)
    return endpoints, functools.partial(rooms.layers.mount, record.id)


def _join(container: Container, parts: Parts) -> None:
    """Open the namespaces of other containers that are to be joined, and their user namespace with them."""
    host = container.record.host
    wanted = {"network": host.network_mode, "pid": host.pid_mode, "ipc": host.ipc_mode}
    owner = ""
    for kind, mode in wanted.items():
        if not mode.startswith("container:"):
            continue
        other = container.rooms.index.find(mode.removeprefix("container:"))
        found = container.rooms.containers.get(other)
        if found is None or other == container.id:
            raise NotFound(f"No such container: {mode.removeprefix('container:')}")
        record = found.record
        if not record.running or record.pid <= 0:
            raise Conflict(f"cannot join {kind} namespace of a non running container: container {other} is not running")
        if owner and owner != other:
            raise InvalidRequest("namespaces of two different containers cannot be joined at once")
        owner = other
        parts.joined[kind] = parts.add(found.namespace(NAMESPACE_FILES[kind]))
        if kind == "ipc":
            parts.shm = parts.add(_shared_memory(found))
        if record.uid_base is not None and "user" not in parts.joined:
            parts.uid_base = record.uid_base
            parts.joined["user"] = parts.add(found.namespace("user"))


def _shared_memory(owner: Container) -> Fd:
    """Return /dev/shm of the container whose IPC namespace is joined.  Raises Conflict when it shares neither."""
    if owner.record.host.ipc_mode not in ("shareable", "host"):
        raise Conflict(
            f"can't join IPC of container {owner.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        )
    with owner.namespace("mnt") as namespace:
        return mount_of(namespace, "/dev/shm")


def _described(container: Container, parts: Parts) -> Launch:
    rooms, record = container.rooms, replace(container.record, host=container.host)
    parent = record.host.cgroup_parent.rstrip("/") or rooms.cgroup_parent
    path = f"/{parent.strip('/')}/{record.id}"
    if parts.environment:
        config = replace(record.config, env=[*(record.config.env or ()), *parts.environment])
        record = replace(record, config=config)
    return Launch(
        id=record.id, spec=spec.build(record, parts.mounts, spec.Joined(parts.joined), path),
        state_dir=str(rooms.state_dir(record.id)), attachments=tuple(parts.attachments), log=parts.log,
        open_stdin=record.config.open_stdin, stdin_once=record.config.stdin_once, reaper=parts.reaper,
        user=record.config.user, group_add=tuple(record.host.group_add or ()),
    )  # fmt: skip


def _connect(container: Container, endpoints: tuple[Endpoint, ...], namespace: Fd) -> None:
    if endpoints:
        try:
            container.rooms.networks.attach_all(endpoints, namespace.fileno())
        except (SampanError, OSError) as error:
            raise Broken(f"failed to set up container networking: {error}") from error
    elif isolated(container):
        _loopback(namespace)


def isolated(container: Container) -> bool:
    """Return whether it has a network namespace of its own with nothing but loopback."""
    record = container.record
    return record.host.network_mode == "none" or (record.config.network_disabled is True and record.host.network_mode != "host")


def _loopback(namespace: Fd) -> None:
    """Bring lo up, as it is in every container."""
    with netns.inside(namespace):
        route = rtnl.Route()
        try:
            route.talk([rtnl.link_up("lo")])
        finally:
            route.close()


# What the kernel says of a request that cannot be, whatever step meets it: names, values and limits are the caller's.
_CALLERS = frozenset({
    errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENODEV, errno.ERANGE,
    errno.EMFILE, errno.EOPNOTSUPP,
})  # fmt: skip


def exit_code_of(step: str, code: int, text: str) -> int:
    """Return 127 when there is no such program, 126 when it cannot be run, else 128 (engine-api 3.2)."""
    if step.startswith("exec"):
        if code in (errno.ENOENT, errno.ENOTDIR) or "no such file" in text or "not found" in text:
            return 127
        if code in (errno.EACCES, errno.EISDIR, errno.ENOEXEC, errno.EPERM, errno.ELOOP):
            return 126
    return 128


def words_of(step: str, code: int, text: str) -> str:
    """The words that the docker client looks for to choose its exit status."""
    if step.startswith("exec"):
        if code == errno.EACCES and "permission denied" not in text.lower():
            text = f"{text}: permission denied"
        if code == errno.ENOENT and "not found" not in text and "no such file" not in text:
            text = f"{text}: executable file not found in $PATH"
        return text
    return text if step == "user" else f"{step}: {text}"


def _record_failure(container: Container, error: Exception) -> SampanError:
    """Note a failed start; return the refusal for the client."""
    code = 128
    refusal: SampanError
    if isinstance(error, StepFailed):
        code = exit_code_of(error.step, error.code, error.text)
        text = words_of(error.step, error.code, error.text)
        if error.step != "user":
            text = f"failed to create task for container: {text}"
        caller = code in (126, 127) or error.step in ("user", "config") or error.code in _CALLERS
        refusal = InvalidRequest(text) if caller else Broken(text)
    elif isinstance(error, SampanError):
        refusal = error
    else:
        assert isinstance(error, OSError)
        subject = f" {error.filename}" if error.filename else ""
        refusal = Broken(f"failed to create task for container: {error.strerror}{subject}")
    container.update(
        exit_code=code, error=str(refusal), finished=container.record.finished, restarting=False, pid=0,
        status=container.record.status if container.record.started else "created",
    )  # fmt: skip
    return refusal


def _running(container: Container, started: Started) -> None:
    container.update(
        volatile=True, status="running", paused=False, restarting=False, pid=started.pid, started=started.started_at,
        exit_code=0, error="", oom_killed=False, stopped_by_hand=False, bound=published(container.endpoints),
    )  # fmt: skip
    watch(container)
    if container.pidfd is not None:
        container.rooms.networks.watch(container.id, container.pidfd.fileno())
    volumes.tell_mounts(container)
    for endpoint in container.endpoints:
        connections.told(container, "connect", endpoint)
    container.emit("start")
    container.tell_start()
    if container.rooms.health is not None:
        container.rooms.health.began(container)
    if container.rooms.oom is not None:
        container.rooms.oom.began(container)


def watch(container: Container) -> None:
    """Let what the keeper says from now on reach the container (after `keeper.settle`)."""
    assert container.keeper is not None
    container.keeper.on_exit = lambda exited: heard_exit(container, exited)
    container.keeper.on_exec_exit = lambda told: _exec_ended(container, told)


def _exec_ended(container: Container, told: m.ExecExited) -> None:
    found = container.execs.get(told.exec_id)
    if found is not None:
        found.ended(told.status)


def published(endpoints: Sequence[Endpoint]) -> dict[str, list[c.PortBinding]]:
    """Return the host's ports by the container's, as inspect shows them."""
    made: dict[str, list[c.PortBinding]] = {}
    for port in (port for endpoint in endpoints for port in endpoint.published):
        made.setdefault(f"{port.container_port}/{port.proto}", []).append(
            c.PortBinding(host_ip=port.host_ip or "0.0.0.0", host_port=str(port.host_port or ""))
        )
    return made
