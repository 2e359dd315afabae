"""A build step's container: made from a chain of layers instead of an image, run to its end, its changes kept as a layer.

It is an ordinary container otherwise: same defaults, same launch, same events (SECURITY.md row 72).  Its record says that it
belongs to a build, so that a daemon that was killed meanwhile takes it away at its next start.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from msgspec import structs

from sampan.engine import spec
from sampan.engine.containers import attach, connections, places, remove, start, validate
from sampan.engine.containers.container import Container
from sampan.engine.containers.containers import Containers
from sampan.engine.records import ContainerRecord
from sampan.kernel.fds import Fd
from sampan.oci.digest import Digest
from sampan.oci.runtime import Mount
from sampan.wire import containers as c

_HEAD = 8  # bytes of a frame's head: stream, three zeros, length (engine-api 2.3)


@dataclass(frozen=True)
class StepBody:
    """What to run.  image: the base's ID or name, for people; hostname: "" for the container's own id."""

    chain: tuple[Digest, ...]
    argv: tuple[str, ...]
    env: tuple[str, ...]
    host: c.HostConfig
    user: str = ""
    folder: str = "/"
    image: str = ""
    network_disabled: bool = False
    hostname: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def create(containers: Containers, body: StepBody) -> Container:
    """Make the container, or leave no trace.  Blocks for one commit.  Raises InvalidRequest, Unsupported, NotFound."""
    rooms = containers.rooms
    host = validate.host(body.host)
    identity = secrets.token_hex(32)
    config = c.ContainerConfig(
        hostname=body.hostname or identity[:12], user=body.user, attach_stdout=True, attach_stderr=True, env=list(body.env),
        cmd=list(body.argv), image=body.image, working_dir=body.folder, labels=body.labels,
    )  # fmt: skip
    validate.config(config, host)
    record = ContainerRecord(
        id=identity, name="", created=time.time_ns(), image=body.image, image_ref=body.image, path=body.argv[0],
        args=tuple(body.argv[1:]), config=config, host=host, places=places.of_body(rooms.data_root, config, host), build=True,
    )  # fmt: skip
    record = connections.normal(record, rooms.networks)
    with ExitStack() as undo:
        name = rooms.index.generate()
        rooms.index.add(name, identity)
        undo.callback(rooms.index.remove, name)
        base = None if spec.shares_host(record) or spec.joins(record) else rooms.ranges.take()
        undo.callback(rooms.ranges.give_back, base)
        record = structs.replace(record, name=name, uid_base=base)
        with rooms.state.batch():
            rooms.layers.prepare(identity, body.chain, volatile=True)
            undo.callback(rooms.layers.remove, identity)
            rooms.records.put(identity, record)
        undo.pop_all()
    container = Container(rooms, record)
    containers.add(container)
    container.emit("create")
    return container


def userns(container: Container) -> Fd | None:
    """Return the user namespace that mounts are mapped through, the caller's to close; None when it shares the host's."""
    base = container.record.uid_base
    rooms = container.rooms
    return rooms.ranges.namespace(base, rooms.launcher.spawner.userns) if base is not None else None


Output = Callable[[int, bytes], Awaitable[None]]


async def run(container: Container, mounts: Sequence[tuple[Mount, Fd]], output: Output) -> int:
    """Run it to its end and return its exit code; output is called with (1 or 2, what came), and waited for.

    The trees of `mounts` are closed.  When cancelled, it is killed first.
    """
    container.lent = list(mounts)
    stream = await attach.attach(container, stdin=False, stdout=True, stderr=True, stream=True, logs=False)
    ended = container.on_exit()
    try:
        async with container.lock:
            await asyncio.shield(start.start(container))
        await _pump(stream, output)
        await ended
        await asyncio.to_thread(container.left)  # its changes become a layer
    finally:
        ended.cancel()
        stream.close()
        for _, tree in container.lent:
            tree.close()
        container.lent = []
    return container.record.exit_code


async def _pump(stream: attach.Stream, output: Output) -> None:
    """Take the frames apart until the end of output."""
    loop = asyncio.get_running_loop()
    head, left = b"", 0
    while data := await loop.sock_recv(stream.socket, 1 << 16):
        while data:
            if left:
                await output(head[0], data[:left])
                left, data = max(0, left - len(data)), data[left:]
                if not left:
                    head = b""
                continue
            wanted = _HEAD - len(head)
            head, data = head + data[:wanted], data[wanted:]
            if len(head) == _HEAD:
                left = int.from_bytes(head[4:], "big")
                head = head if left else b""


async def discard(container: Container) -> None:
    """Take it away, whatever it does."""
    async with container.lock:
        if not container.removed:
            await remove.remove(container, force=True, volumes=True)


async def release(container: Container) -> None:
    """Take the ended container away but leave its snapshot, which a layer is made of."""
    async with container.lock:
        await remove.remove(container, force=True, volumes=True, snapshot=False)
