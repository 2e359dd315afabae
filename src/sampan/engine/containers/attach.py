"""Attach: one end of a socket pair for the client, the other for the keeper, now or at the start."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Generator
from contextlib import closing

from sampan import messages as m
from sampan.engine.containers.container import Container
from sampan.engine.containers.logs import past
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

    def feed(self, far: Socket, before: Generator[bytes], wanted: m.Attachment | None) -> None:
        """Send `before` as fast as the client takes it, then join; or end, when nothing is wanted after it."""
        self._feeding = asyncio.ensure_future(self._feed(far, before, wanted))

    async def _feed(self, far: Socket, before: Generator[bytes], wanted: m.Attachment | None) -> None:
        far.setblocking(False)
        try:
            with closing(before):
                for chunk in before:
                    await asyncio.get_running_loop().sock_sendall(far, chunk)
            far.setblocking(True)
            if wanted is not None:
                self.join(far, wanted)
                return
        except (OSError, Conflict):  # the client has left, or the container has ended: so does the stream
            pass
        except BaseException:
            far.close()
            raise
        far.close()

    def detached(self) -> None:
        self._container.emit("detach")


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
        made.feed(far, past(container, stdout=stdout, stderr=stderr), wanted)
    elif wanted is not None:
        made.join(far, wanted)
    else:
        far.close()
    return made
