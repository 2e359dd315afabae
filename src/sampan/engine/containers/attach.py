"""Attach: one end of a socket pair for the client, the other for the keeper, now or at the start."""

from __future__ import annotations

import asyncio
import os
import socket

from sampan import messages as m
from sampan.engine.containers.container import Container
from sampan.engine.containers.logs import Past
from sampan.engine.keepers import Keeper
from sampan.errors import Conflict

Socket = socket.socket  # Stream has a property of the module's name


class Stream:
    """What the API pumps (api/backend.py AttachStream)."""

    def __init__(self, near: socket.socket, tty: bool, container: Container, far: socket.socket | None = None) -> None:
        self.tty = tty
        self._near = near
        self._far = far
        self._container = container
        self._feeding: asyncio.Task[None] | None = None
        self.detach_keys = ""

    @property
    def socket(self) -> socket.socket:
        """Our end, non-blocking."""
        return self._near

    def fileno(self) -> int:
        return self._near.fileno()

    def close(self) -> None:
        self._near.close()
        if self._feeding is not None and not self._feeding.done():
            self._feeding.cancel()  # it closes the other end: the loop still watches it
        elif self._far is not None:
            self._container.pending[:] = [item for item in self._container.pending if item[0] is not self._far]
            self._far.close()

    def join(self, far: Socket, wanted: m.Attachment) -> None:
        """Give the other end to the keeper, now or at the container's start.  Raises Conflict."""
        record = self._container.record
        if self._container.keeper is None or not record.running:
            self._container.pending.append((far, wanted))
            return
        try:
            self._container.keeper.send(m.Attach(attachment=wanted), [far.fileno()])
        except OSError as error:
            self._near.close()
            raise Conflict(f"container {record.id} is not running: {os.strerror(error.errno or 0)}") from None
        finally:
            self._far = None
            far.close()

    def feed(self, far: Socket, past: Past, wanted: m.Attachment | None) -> None:
        """Send the log as fast as the client takes it, then join so that no byte is missing or twice; or end."""
        self._feeding = asyncio.ensure_future(self._feed(far, past, wanted))

    async def _feed(self, far: Socket, past: Past, wanted: m.Attachment | None) -> None:
        far.setblocking(False)
        try:
            with past:
                await _send(far, past)
                # Nothing is awaited from the log's end to here: a container that is not running now has not said more.
                if wanted is not None and self._container.keeper is not None and self._container.record.running:
                    await self._continue(self._container.keeper, far, past, wanted)
                elif wanted is not None:
                    self.join(far, wanted)
                    return
        except (OSError, Conflict):  # the client has left: so does the stream
            pass
        except BaseException:
            far.close()
            raise
        far.close()

    async def _continue(self, keeper: Keeper, far: Socket, past: Past, wanted: m.Attachment) -> None:
        """Join, and let the keeper send once the log up to the moment of joining has been sent."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                try:
                    keeper.send(m.Attach(attachment=wanted, gate=1), [far.fileno(), theirs.fileno()])
                except OSError:
                    pass  # it has ended since, and closed its log: there is nothing to wait for
            joined = await asyncio.get_running_loop().sock_recv(ours, 8)
            if len(joined) == 8:
                past.until(int.from_bytes(joined, "big"))
            await _send(far, past)
            if joined:
                ours.send(b"+")

    def detached(self) -> None:
        self._container.emit("detach")


async def _send(far: socket.socket, past: Past) -> None:
    for chunk in past.chunks():
        await asyncio.get_running_loop().sock_sendall(far, chunk)


async def attach(container: Container, *, stdin: bool, stdout: bool, stderr: bool, stream: bool, logs: bool) -> Stream:
    """Return an open attach.  Raises Conflict."""
    record = container.record
    if record.paused:
        raise Conflict(f"container {record.id} is paused, unpause the container before attach")
    if record.restarting:
        raise Conflict(f"container {record.id} is restarting, wait until the container is running")
    near, far = socket.socketpair()
    near.setblocking(False)
    made = Stream(near, record.config.tty, container, far)
    wanted = m.Attachment(fd=0, stdin=stdin and record.config.open_stdin, stdout=stdout, stderr=stderr) if stream else None
    container.emit("attach")
    if logs:
        made.feed(far, Past(container, stdout=stdout, stderr=stderr), wanted)
    elif wanted is not None:
        made.join(far, wanted)
    else:
        far.close()
    return made
