"""At the daemon's start: records, keepers and leftovers are brought together again."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from pathlib import Path

import msgspec

from sampan import messages as m
from sampan.engine.containers import connections, start, step, validate, volumes
from sampan.engine.containers.container import Container
from sampan.engine.containers.containers import Containers
from sampan.engine.containers.exits import background, group_path, heard_exit, kill_group, restart_in
from sampan.engine.context import Rooms
from sampan.engine.keepers import Keeper
from sampan.engine.records import ContainerRecord
from sampan.errors import SampanError
from sampan.kernel.fds import Fd
from sampan.launch.client import connect

log = logging.getLogger("sampan.engine")


async def take_up(rooms: Rooms, containers: Containers) -> None:
    """Load the records, meet living keepers, record the ends that nobody heard, sweep, and restart what is to run."""
    for key, reason in rooms.records.broken():
        log.error("container %s: its record cannot be read and is left alone: %s", key[:64], reason)
    for _, record in rooms.records.items():
        _load(rooms, containers, record)
    rooms.ranges.note(one.record.uid_base for one in containers.all.values())
    unreadable = {key for key, _ in rooms.records.broken()}
    rooms.volumes.unknown = unreadable
    for line in rooms.layers.sweep(set(containers.all) | unreadable):
        log.info("swept %s", line)
    same_boot = _same_boot(rooms.exec_root)
    alive = []
    for container in list(containers.all.values()):
        folder = rooms.state_dir(container.id)
        # A daemon may have been killed between a start and its record: the keeper or its last word tells.
        if container.record.running or (folder / "keeper.sock").exists() or (folder / "exit").exists():
            if await _meet(container):
                alive.append(container.id)
                for name in volumes.names(container.record):
                    rooms.volumes.mounted(name, container.id)
            elif container.record.running or (folder / "exit").exists():
                _ended_meanwhile(container, same_boot=same_boot)
        if not container.record.running and rooms.health is not None:
            rooms.health.found(container)
        if container.record.status == "removing":
            container.update(status="exited")
    for endpoint in rooms.networks.active():
        if endpoint.container_id not in alive:
            rooms.networks.detach(endpoint)
    await asyncio.to_thread(rooms.networks.serve_names, lambda key: connections.namespace(containers.all[key]))
    for container in containers.all.values():
        rooms.networks.expect(validate.host_addresses(container.record.host))
        if container.pidfd is not None:
            rooms.networks.watch(container.id, container.pidfd.fileno())
    _sweep_folders(rooms, containers, unreadable)
    for line in rooms.volumes.sweep():
        log.info("swept %s", line)
    for container in [one for one in containers.all.values() if one.record.build]:
        await step.discard(container)
    for container in list(containers.all.values()):
        background_restart(container)


def _load(rooms: Rooms, containers: Containers, record: ContainerRecord) -> None:
    try:
        rooms.index.add(record.name, record.id)
    except SampanError as error:
        log.error("container %s: %s", record.id[:12], error)
        return
    containers.add(Container(rooms, record))
    for name in volumes.names(record):
        rooms.volumes.use(name, record.id)


async def _meet(container: Container) -> bool:
    """Connect to the container's keeper; return whether it runs."""
    try:
        channel = connect(str(container.rooms.state_dir(container.id)))
    except OSError:
        return False
    keeper = Keeper(channel)
    try:
        message, fds = await keeper.next(10)
    except TimeoutError:
        keeper.close()
        return False
    for fd in fds[1:]:
        fd.close()
    if not isinstance(message, m.Status) or message.id != container.id:
        for fd in fds[:1]:
            fd.close()
        keeper.close()
        return False
    rooms, keeper.pid = container.rooms, message.keeper_pid
    container.keeper, container.pidfd = keeper, Fd(fds[0].take()) if fds else None
    for problem in connections.take_up(container):
        log.warning("network of container %s: %s", container.id[:12], problem)
    if not container.record.running or not container.record.pid:  # the last daemon did not live to see it start
        container.update(
            status="running", restarting=False, started=message.started_at, pid=message.pid, error="",
            bound=start.published(container.endpoints),
        )  # fmt: skip
    if message.exited is not None:
        heard_exit(container, message.exited)
        return False
    start.watch(container)
    container.update(durable=False, pid=message.pid)
    if rooms.execs is not None:
        rooms.execs.adopt(container, message)
    keeper.settle()
    if rooms.oom is not None:
        rooms.oom.began(container, resumed=True)
    if rooms.health is not None and not container.record.paused:
        rooms.health.began(container, resumed=True)
    return True


def _same_boot(exec_root: Path) -> bool:
    """Return whether the host has been up since the last daemon of this exec root; note this boot (proc(5), boot_id)."""
    now, note = Path("/proc/sys/kernel/random/boot_id").read_text(), exec_root / "boot_id"
    same = note.exists() and note.read_text() == now
    note.write_text(now)
    return same


def _ended_meanwhile(container: Container, *, same_boot: bool) -> None:
    """It ended while no daemon was there: the keeper's file says how; without one the host went down."""
    path = container.rooms.state_dir(container.id) / "exit"
    try:
        exited = msgspec.json.decode(path.read_bytes()[:65536], type=m.Exited)
    except (OSError, msgspec.DecodeError):
        kill_group(container)
        if container.record.running and not container.record.pid and same_boot:
            _take_back(container)
            return
        exited = m.Exited(status=255, oom_killed=False, finished_at=time.time_ns())
    if not container.record.running:
        container.update(durable=False, started=max(container.record.started, exited.finished_at))
    policy = container.record.host.restart_policy
    if policy is not None and policy.name in ("always", "unless-stopped") and exited.status == 255:
        container.stop_asked = True  # background_restart decides, without the back-off
    container.endpoints = tuple(container.rooms.networks.of(container.id))
    heard_exit(container, exited)


def _take_back(container: Container) -> None:
    """The last daemon died in the middle of a start that nobody was told of: the record is as before it.

    After a reboot the same record means a container that ran, whose pid was not flushed: it counts as ended.
    """
    container.update(status="exited" if container.record.finished else "created")
    for endpoint in container.rooms.networks.of(container.id):
        container.rooms.networks.detach(endpoint)
    volumes.let_go(container)


def background_restart(container: Container) -> None:
    """Start it again when its policy wants that after a daemon's start (engine-api 5.2)."""
    record = container.record
    policy = record.host.restart_policy
    if record.running or record.status == "created" or container.restart_task is not None or policy is None:
        return
    if record.restarting and policy.name != "no" and not record.stopped_by_hand:
        left = record.finished / 1e9 + record.backoff - time.time()  # the timer goes on where the last daemon left it
        restart_in(container, min(max(0.0, left), record.backoff))
        return
    wanted = policy.name == "always" or (policy.name == "unless-stopped" and not record.stopped_by_hand)
    if wanted:
        background(_start(container))
    elif record.restarting:
        container.update(restarting=False)


async def _start(container: Container) -> None:
    async with container.lock:
        if container.record.running or container.removed:
            return
        try:
            await start.start(container)
        except SampanError as error:
            log.warning("restart of container %s: %s", container.id[:12], error)


def _sweep_folders(rooms: Rooms, containers: Containers, unreadable: set[str]) -> None:
    """Remove folders and control groups of containers that are no more."""
    rooms.trash.sweep()
    for top in (rooms.exec_root / "containers", rooms.data_root / "containers"):
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in top.iterdir():
            if path.name not in containers.all and path.name not in unreadable and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
                log.info("swept %s", path)
    for base in ("/sys/fs/cgroup", *(entry.path for entry in os.scandir("/sys/fs/cgroup") if entry.is_dir())):
        parent = Path(base) / rooms.cgroup_parent.strip("/")
        if not parent.is_dir():
            continue
        for path in parent.iterdir():
            if (
                len(path.name) == 64
                and path.is_dir()
                and not (path.name in containers.all and containers.all[path.name].record.running)
            ):
                try:
                    path.rmdir()
                except OSError:
                    pass


async def spawner_watch(rooms: Rooms) -> None:
    """Start the spawner again whenever it dies."""
    loop = asyncio.get_running_loop()
    while not rooms.stopping:
        died: asyncio.Future[None] = loop.create_future()
        spawner = rooms.launcher.spawner
        fd = spawner.fileno()
        loop.add_reader(fd, _tell, died)
        try:
            await died
        finally:
            loop.remove_reader(fd)
        if not rooms.stopping:
            log.error("the spawner died; another one is started")
            rooms.launcher.restart(spawner)


def _tell(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


__all__ = ["group_path", "spawner_watch", "take_up"]
