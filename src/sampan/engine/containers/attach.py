"""Attach: one end of a socket pair for the client, the other for the keeper, now or at the start."""

from __future__ import annotations

import os
import socket

from sampan import messages as m
from sampan.engine.containers.container import Container
from sampan.engine.containers.logs import past
from sampan.errors import Conflict


class Stream:
    """What the API pumps (api/backend.py AttachStream)."""

    def __init__(self, near: socket.socket, tty: bool, container: Container, far: socket.socket | None = None) -> None:
        self.tty = tty
        self._near = near
        self._far = far
        self._container = container
        self.detach_keys = ""

    @property
    def socket(self) -> socket.socket:
        """Our end, non-blocking."""
        return self._near

    def fileno(self) -> int:
        return self._near.fileno()

    def close(self) -> None:
        self._near.close()
        if self._far is not None:
            self._container.pending[:] = [item for item in self._container.pending if item[0] is not self._far]
            self._far.close()

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
    tty = record.config.tty
    if logs:
        far.setblocking(True)
        far.settimeout(5)
        for chunk in past(container, stdout=stdout, stderr=stderr):
            far.sendall(chunk)
        far.settimeout(None)
    container.emit("attach")
    if not stream:
        far.close()
        return Stream(near, tty, container)
    wanted = m.Attachment(fd=0, stdin=stdin and record.config.open_stdin, stdout=stdout, stderr=stderr)
    if container.keeper is not None and record.running:
        try:
            with far:
                container.keeper.send(m.Attach(attachment=wanted), [far.fileno()])
        except OSError as error:
            near.close()
            raise Conflict(f"container {record.id} is not running: {os.strerror(error.errno or 0)}") from None
        return Stream(near, tty, container)
    container.pending.append((far, wanted))
    return Stream(near, tty, container, far)
