"""Stop, kill, pause, unpause."""

from __future__ import annotations

import asyncio
import signal

from msgspec import UNSET

from sampan.cgroups import Hierarchy
from sampan.engine.containers.container import Container
from sampan.engine.containers.exits import group_path
from sampan.engine.containers.signals import number_of
from sampan.errors import Broken, Conflict, NotModified

KILL_PATIENCE = 30.0


def _grace(container: Container) -> int:
    """Return the seconds between the polite signal and SIGKILL; -1 is for ever."""
    own = container.record.config.stop_timeout
    return own if isinstance(own, int) else container.rooms.defaults.stop_timeout


async def stop(container: Container, timeout: int | None, word: str) -> None:
    """Stop it and return when it has ended; the caller holds the lock.  Raises NotModified, InvalidRequest."""
    record = container.record
    if not record.running:
        if record.restarting and container.restart_task is not None:
            container.restart_task.cancel()
            container.update(restarting=False, stopped_by_hand=True)
            return
        raise NotModified(f"container {record.name} is not running")
    config = record.config
    chosen = number_of(word or (config.stop_signal if config.stop_signal is not UNSET else "") or "SIGTERM")
    if timeout is None:
        timeout = _grace(container)
    container.stop_asked = True
    container.update(durable=False, stopped_by_hand=True)
    if record.paused:
        await asyncio.to_thread(_thaw, container)
    ended = container.on_exit()
    _send(container, chosen)
    container.emit("kill", signal=str(chosen))
    if timeout != 0:
        done, _ = await asyncio.wait([ended], timeout=None if timeout < 0 else timeout)
        if done:
            container.emit("stop")
            return
    await kill_now(container)
    container.emit("stop")


async def end_to_restart(container: Container) -> None:
    """End it as `stop` does, without standing in the way of its restart policy."""
    async with container.lock:
        started = container.record.started
        if not container.record.running or container.removed:
            return
        config = container.record.config
        timeout = _grace(container)
        ended = container.on_exit()
        _send(container, number_of(config.stop_signal if isinstance(config.stop_signal, str) and config.stop_signal else "SIGTERM"))
        done, _ = await asyncio.wait([ended], timeout=None if timeout < 0 else timeout)
        if not done and container.record.started == started:
            _send(container, signal.SIGKILL)
            await asyncio.wait([ended], timeout=KILL_PATIENCE)


async def kill_now(container: Container) -> None:
    """SIGKILL, and wait for the end.  Raises Broken when it does not come."""
    ended = container.on_exit()
    if not container.record.running:
        return
    container.stop_asked = True
    if container.record.paused:
        await asyncio.to_thread(_thaw, container)
    _send(container, signal.SIGKILL)
    container.emit("kill", signal="9")
    done, _ = await asyncio.wait([ended], timeout=KILL_PATIENCE)
    if not done:
        raise Broken(f"container {container.record.name} did not end after SIGKILL")


def _send(container: Container, number: int) -> None:
    try:
        container.signal(number)
    except OSError:
        pass  # its keeper is going; the exit is on its way


async def kill(container: Container, word: str) -> None:
    """Send a signal.  Raises Conflict, InvalidRequest."""
    number = number_of(word or "SIGKILL")
    record = container.record
    if not record.running:
        raise Conflict(f"cannot kill container: {record.name}: container {record.id} is not running")
    config = record.config
    own = number_of((config.stop_signal if config.stop_signal is not UNSET else "") or "SIGTERM")
    if number in (signal.SIGKILL, own):
        container.stop_asked = number == signal.SIGKILL or container.stop_asked
        container.update(durable=False, stopped_by_hand=True)
    ended = container.on_exit()
    if record.paused and number == signal.SIGKILL:
        await asyncio.to_thread(_thaw, container)
    _send(container, number)
    container.emit("kill", signal=str(number))
    if number == signal.SIGKILL:
        await asyncio.wait([ended], timeout=KILL_PATIENCE)


def _thaw(container: Container) -> None:
    Hierarchy.detect().open(group_path(container)).thaw()


async def pause(container: Container) -> None:
    """Freeze it; the caller holds the lock.  Raises Conflict."""
    record = container.record
    if not record.running:
        raise Conflict(f"container {record.id} is not running")
    if record.paused:
        raise Conflict(f"container {record.id} is already paused")
    await asyncio.to_thread(Hierarchy.detect().open(group_path(container)).freeze)
    if container.rooms.health is not None:
        container.rooms.health.paused(container)
    container.update(paused=True)
    container.emit("pause")


async def unpause(container: Container) -> None:
    """Thaw it; the caller holds the lock.  Raises Conflict, Broken."""
    record = container.record
    if not record.paused:
        raise Broken(f"Container {record.id} is not paused")
    await asyncio.to_thread(_thaw, container)
    container.update(paused=False)
    if container.rooms.health is not None:
        container.rooms.health.began(container, resumed=True)
    container.emit("unpause")
