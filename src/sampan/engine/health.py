"""Health checks: a task for every running container that has one, which runs the command as an exec and judges the result.

The state is written to `<state_dir>/health` after every probe, so that a later daemon goes on where this one ended; it is
run-time state and goes with the host's uptime.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING

import msgspec

from sampan import messages as m
from sampan.engine.containers.healthcheck import Check, Health, check
from sampan.engine.images.image import rfc3339
from sampan.errors import SampanError
from sampan.wire import containers as c
from sampan.wire import execs as e

if TYPE_CHECKING:
    from sampan.engine.containers.container import Container
    from sampan.engine.execs.execs import Execs, ExecStream

log = logging.getLogger("sampan.engine")
OUTPUT = 4096  # bytes of a probe's output that are kept
_DYING = 10.0  # seconds that a killed probe may take to end
_HEAD = 8


class _Saved(msgspec.Struct):
    """What `<state_dir>/health` holds.  started: the start it belongs to; probed: when the last probe ended; nanoseconds."""

    started: int
    probed: int
    status: str
    streak: int
    log: list[c.HealthResult]


class HealthWatch:
    """Begins and ends the tasks; the containers' verbs call it through Rooms.health."""

    def __init__(self, execs: Execs) -> None:
        self._execs = execs
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def began(self, container: Container, *, resumed: bool = False) -> None:
        """The container runs (or runs on, `resumed`): start to probe it if it wants that."""
        wanted = check(container.record.config)
        self._stop(container.id)
        if wanted is None:
            container.health = None
            return
        probed = 0
        if resumed and container.health is None:
            container.health, probed = _load(container)
        elif container.health is None or not resumed:
            container.health = Health()
        elif container.health.log:
            probed = time.time_ns()
        self._tasks[container.id] = asyncio.get_running_loop().create_task(self._watch(container, wanted, probed))

    def paused(self, container: Container) -> None:
        """No probe while it is frozen; `began(resumed=True)` goes on."""
        self._stop(container.id)

    def ended(self, container: Container) -> None:
        """It has ended: what was found stays to be seen, but nothing that does not run is healthy (as docker has it)."""
        self._stop(container.id)
        if container.health is not None:
            container.health.status = "unhealthy"

    def found(self, container: Container) -> None:
        """A daemon starts, and the container does not run."""
        if container.record.started and check(container.record.config) is not None:
            container.health = Health(status="unhealthy")

    def close(self) -> None:
        """The daemon ends; the containers go on."""
        for name in list(self._tasks):
            self._stop(name)

    def _stop(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    async def _watch(self, container: Container, wanted: Check, probed: int) -> None:
        try:
            while True:
                since_start = (time.time_ns() - container.record.started) / 1e9
                health = container.health
                assert health is not None
                starting = health.status == "starting" and since_start < wanted.start_period
                wait = wanted.start_interval if starting else wanted.interval
                last = probed or container.record.started
                await asyncio.sleep(max(0.0, min(wait, wait - (time.time_ns() - last) / 1e9)))
                if container.keeper is None or not container.record.running:
                    return
                result = await self._probe(container, wanted)
                probed = time.time_ns()
                began = (probed - container.record.started) / 1e9
                if health.note(result, retries=wanted.retries, in_start_period=began < wanted.start_period):
                    container.emit(f"health_status: {health.status}")
                    if health.status == "unhealthy":
                        _unhealthy(container)
                await asyncio.to_thread(_save, container, health, probed)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("health check of container %s", container.id[:12])

    async def _probe(self, container: Container, wanted: Check) -> c.HealthResult:
        """Run the command once, killing it with all its processes when it takes too long."""
        begin = time.time_ns()
        body = e.ExecCreate(attach_stdout=True, attach_stderr=True, cmd=list(wanted.command))
        made = None
        output = b""
        try:
            created = await self._execs.create(container.id, body)
            made = self._execs.find(created.id)
            made.probe = True
            output, timed_out = await self._run(container, made.id, wanted.timeout)
            code = made.exit_code if made.exit_code is not None else -1
            text = output.decode(errors="replace")
            if timed_out:
                code = -1
                text = f"Health check exceeded timeout ({_go(wanted.timeout)})" + (f": {text}" if text else "")
        except (SampanError, OSError) as error:
            code, text = -1, str(error)
        finally:
            if made is not None:
                made.forget()
        text = text.encode()[:OUTPUT].decode(errors="ignore")
        return c.HealthResult(start=rfc3339(begin), end=rfc3339(time.time_ns()), exit_code=code, output=text)

    async def _run(self, container: Container, name: str, timeout: float) -> tuple[bytes, bool]:
        stream = await self._execs.start(name, e.ExecStart())
        assert stream is not None
        made = self._execs.find(name)
        output = bytearray()
        timed_out = False
        try:
            try:
                async with asyncio.timeout(timeout):
                    await _collect(stream, output)
                    await made.over.wait()
            except TimeoutError:
                timed_out = True
                _kill(container, name)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DYING):
                        await _collect(stream, output)
                        await made.over.wait()
        except asyncio.CancelledError:
            _kill(container, name)
            raise
        finally:
            stream.close()
        return bytes(output), timed_out


def _kill(container: Container, name: str) -> None:
    if container.keeper is not None:
        with contextlib.suppress(OSError):
            container.keeper.send(m.Signal(exec_id=name, number=9, group=True))


async def _collect(stream: ExecStream, output: bytearray) -> None:
    """Append the stream's payload to `output`, OUTPUT bytes at most, until it ends; the rest is read and thrown away."""
    loop = asyncio.get_running_loop()
    unread = bytearray()
    left = 0
    while True:
        data = await loop.sock_recv(stream.socket, 65536)
        if not data:
            return
        unread += data
        while unread:
            if not left:
                if len(unread) < _HEAD:
                    break
                left = int.from_bytes(unread[4:_HEAD], "big")
                del unread[:_HEAD]
                continue
            piece = unread[:left]
            del unread[:left]
            left -= len(piece)
            output += piece[: OUTPUT - len(output)]


def _unhealthy(container: Container) -> None:
    """The policy "on-unhealthy": end it politely, the exit's own path starts it again."""
    policy = container.record.host.restart_policy
    if policy is None or policy.name != "on-unhealthy":
        return
    from sampan.engine.containers.exits import background
    from sampan.engine.containers.stop import end_to_restart

    background(end_to_restart(container))


def _go(seconds: float) -> str:
    """Return a duration as Go prints it, near enough: 500ms, 3s, 1m30s."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest:g}s"


def _save(container: Container, health: Health, probed: int) -> None:
    folder = container.rooms.state_dir(container.id)
    saved = _Saved(container.record.started, probed, health.status, health.streak, health.log)
    try:
        temporary = folder / ".health"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, msgspec.json.encode(saved))
        finally:
            os.close(fd)
        os.rename(temporary, folder / "health")
    except OSError as error:
        log.warning("health of container %s: %s", container.id[:12], error)


def _load(container: Container) -> tuple[Health, int]:
    """Return what an earlier daemon found of this run of the container, and when."""
    try:
        with open(container.rooms.state_dir(container.id) / "health", "rb") as file:
            saved = msgspec.json.decode(file.read(1 << 17), type=_Saved)
    except (OSError, msgspec.DecodeError):
        return Health(), 0
    if saved.started != container.record.started or saved.status not in ("starting", "healthy", "unhealthy"):
        return Health(), 0
    return Health(saved.status, saved.streak, saved.log[-5:]), saved.probed
