"""Exit: recorded first, then undone; then restarted, removed or left."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine

from sampan import messages as m
from sampan.cgroups import Hierarchy
from sampan.engine.containers import connections, volumes
from sampan.engine.containers.container import Container
from sampan.engine.records import ContainerRecord
from sampan.errors import SampanError

log = logging.getLogger("sampan.engine")
_tasks: set[asyncio.Task[None]] = set()
LONG_RUN = 10.0  # seconds after which the back-off begins anew
SHORTEST, LONGEST = 0.1, 60.0


def background(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Run a coroutine that nobody awaits; its reference is kept until it ends."""
    task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and task.exception() is not None:
        log.error("background work failed", exc_info=task.exception())


def heard_exit(container: Container, exited: m.Exited | None) -> None:
    """The keeper said that the container has ended, or is itself gone (None)."""
    if exited is None:
        exited = _lost(container)
    record = container.record
    if exited.lost_lines:
        log.warning("container %s: %d lines of its output are missing in its log", container.id[:12], exited.lost_lines)
    again = _wants_restart(container, exited.status)
    if container.rooms.health is not None:
        container.rooms.health.ended(container)
    if container.rooms.oom is not None:
        container.rooms.oom.ended(container)
    finished = exited.finished_at or time.time_ns()
    container.update(
        status="exited", paused=False, pid=0, exit_code=exited.status, oom_killed=exited.oom_killed or record.oom_killed,
        error=exited.error, finished=finished, restarting=again, bound={},
        lost_lines=exited.lost_lines, backoff=_delay(record, finished) if again else record.backoff,
    )  # fmt: skip
    container.let_keeper_go()
    for found in list(container.execs.values()):
        if found.exit_code is None:
            found.ended(137)
    endpoints, container.endpoints = container.endpoints, ()
    for endpoint in endpoints:
        connections.told(container, "disconnect", endpoint)
        try:
            container.rooms.networks.detach(endpoint)
        except (SampanError, OSError):
            log.exception("network of container %s", container.id[:12])
    volumes.let_go(container)
    seconds = max(0, container.record.finished - record.started) // 10**9
    if exited.oom_killed and not record.oom_killed:
        container.emit("oom")
    container.emit("die", exitCode=str(exited.status), execDuration=str(seconds))
    _state_dir_gone(container)
    container.tell_exit()
    if again:
        restart_in(container, container.record.backoff)
    elif record.host.auto_remove and not container.removing:
        background(_auto_remove(container))


def _delay(record: ContainerRecord, finished: int) -> float:
    """Return how long to wait before the next start: longer each time, anew after a long run (engine-api 5.2)."""
    if (finished - record.started) / 1e9 >= LONG_RUN or not record.backoff:
        return SHORTEST
    return min(record.backoff * 2, LONGEST)


def restart_in(container: Container, delay: float) -> None:
    """Start it in `delay` seconds, unless somebody stops, starts or removes it before."""
    container.restart_task = background(_restart_later(container, delay))


def _lost(container: Container) -> m.Exited:
    """The keeper is gone without a word: nothing of the container may go on running unwatched."""
    log.error("the keeper of container %s is gone", container.id[:12])
    kill_group(container)
    return m.Exited(status=137, oom_killed=False, finished_at=time.time_ns(), error="the container's keeper was lost")


def group_path(container: Container) -> str:
    parent = container.record.host.cgroup_parent.strip("/") or container.rooms.cgroup_parent.strip("/")
    return f"/{parent}/{container.id}"


def kill_group(container: Container) -> None:
    """Kill everything in the container's control group, and remove it."""
    try:
        Hierarchy.detect().open(group_path(container)).remove()
    except (SampanError, OSError) as error:
        log.debug("control group of %s: %s", container.id[:12], error)


def _state_dir_gone(container: Container) -> None:
    folder = container.rooms.state_dir(container.id)
    for name in ("exit", "keeper.sock", "health"):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError:
            pass


def _wants_restart(container: Container, status: int) -> bool:
    record = container.record
    policy = record.host.restart_policy
    if policy is None or container.stop_asked or record.stopped_by_hand or container.removing or container.rooms.stopping:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    unhealthy = policy.name == "on-unhealthy" and container.health is not None and container.health.status == "unhealthy"
    if policy.name in ("on-failure", "on-unhealthy") and (status != 0 or unhealthy):
        return not policy.maximum_retry_count or record.restart_count < policy.maximum_retry_count
    return False


async def _restart_later(container: Container, delay: float) -> None:
    from sampan.engine.containers.start import start

    await asyncio.sleep(delay)
    async with container.lock:
        if container.removing or container.removed or container.record.running or not container.record.restarting:
            return
        container.update(durable=False, restart_count=container.record.restart_count + 1)
        try:
            await start(container)
        except SampanError as error:
            log.warning("restart of container %s: %s", container.id[:12], error)
            container.update(restarting=False, status="exited")


async def _auto_remove(container: Container) -> None:
    from sampan.engine.containers.remove import remove

    async with container.lock:
        if not container.removed:
            await remove(container, force=True, volumes=True)
