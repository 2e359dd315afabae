"""The engine's end of a keeper's connection, in the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from sampan import messages as m
from sampan.kernel.fds import Fd
from sampan.kernel.process import pidfd_open
from sampan.launch.channel import Channel

log = logging.getLogger("sampan.engine")
Heard = tuple[m.AnyMessage | None, list[Fd]]


def gone(pid: int) -> Future[None]:
    """Return a future that is done when the process has ended; for the loop's own thread, to be awaited by any."""
    future: Future[None] = Future()
    try:
        pidfd = pidfd_open(pid)
    except OSError:  # it has ended
        future.set_result(None)
        return future
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(pidfd.fileno())
        pidfd.close()
        future.set_result(None)

    loop.add_reader(pidfd.fileno(), ended)
    return future


class Keeper:
    """One connection.  Messages during the start are awaited; later ones go to the callbacks."""

    def __init__(self, channel: Channel, pid: int = 0) -> None:
        self._channel = channel
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[Heard] | None = None
        self._early: list[Heard] = []
        self._execs: dict[str, asyncio.Future[m.ExecStarted | m.ExecFailed]] = {}
        self.on_exit: Callable[[m.Exited | None], None] | None = None
        self.on_exec_exit: Callable[[m.ExecExited], None] | None = None
        self._loop.add_reader(channel.fileno(), self._readable)

    async def next(self, patience: float = 90.0) -> Heard:
        """Return the next message and its descriptors; (None, []) when the keeper is gone.  For the start only."""
        if self._early:
            return self._early.pop(0)
        self._waiting = self._loop.create_future()
        try:
            async with asyncio.timeout(patience):
                return await self._waiting
        finally:
            self._waiting = None

    def settle(self) -> None:
        """The start is over: what has come early and what comes from now on goes to the callbacks."""
        early, self._early = self._early, []
        self._settled = True
        for message, fds in early:
            self._dispatch(message, fds)

    _settled = False

    def send(self, message: m.Message, fds: Iterable[int | Fd] = ()) -> None:
        """Send.  Raises OSError when the keeper is gone or does not read."""
        self._channel.send(message, fds, nonblocking=True)

    async def exec(self, request: m.Exec, fds: Iterable[int | Fd]) -> m.ExecStarted | m.ExecFailed:
        """Start a process; return how that went."""
        future: asyncio.Future[m.ExecStarted | m.ExecFailed] = self._loop.create_future()
        self._execs[request.exec_id] = future
        try:
            self.send(request, fds)
            return await future
        finally:
            self._execs.pop(request.exec_id, None)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()

    _closed = False

    def _readable(self) -> None:
        try:
            message, fds = self._channel.receive(nonblocking=True)
        except BlockingIOError:
            return
        except Exception:
            log.exception("a keeper's message cannot be read")
            message, fds = None, []
        if message is None:
            self._loop.remove_reader(self._channel.fileno())
        if self._settled:
            self._dispatch(message, fds)
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result((message, fds))
        else:
            self._early.append((message, fds))

    def _dispatch(self, message: m.AnyMessage | None, fds: list[Fd]) -> None:
        for fd in fds:
            fd.close()
        if message is None or isinstance(message, m.Exited):
            for exec_id, future in list(self._execs.items()):
                if not future.done():
                    future.set_result(m.ExecFailed(exec_id=exec_id, step="exec", code=3, text="the container has ended"))
            callback, self.on_exit = self.on_exit, None
            if callback is not None:
                callback(message)
        elif isinstance(message, m.ExecStarted | m.ExecFailed):
            waiting = self._execs.get(message.exec_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif isinstance(message, m.ExecExited):
            if self.on_exec_exit is not None:
                self.on_exec_exit(message)
        elif isinstance(message, m.Refused):
            log.warning("keeper refused %s: %s", message.request, message.text)
            if message.request == "Exec":
                for exec_id, future in list(self._execs.items()):
                    if not future.done():
                        future.set_result(m.ExecFailed(exec_id=exec_id, step="exec", code=0, text=message.text))
