"""Logs: what the drivers have written, as frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from sampan.engine.containers.container import Container, open_folder
from sampan.errors import Unsupported
from sampan.kernel.fds import Fd
from sampan.kernel.inotify import In, Inotify
from sampan.logs import reader
from sampan.logs.runs import STDERR, STDOUT, Framer, Run
from sampan.wire import system as s

PIECE = 256 * 1024  # bytes sent at once
_CHANGES = In.MODIFY | In.MOVED_TO | In.CREATE


def file_of(container: Container) -> str | None:
    """Return the name of the file that a container's driver writes, None when it keeps none."""
    log = container.record.host.log_config
    driver = (log.type if log else "") or "json-file"
    if driver == "json-file":
        return f"{container.id}-json.log"
    if driver == "none" or (log and (log.config or {}).get("cache-disabled", "").lower() in ("true", "1", "t")):
        return None
    return f"{container.id}{reader.LOCAL}"


class Past:
    """What has been logged so far, as often as it is asked for.  A context manager."""

    def __init__(self, container: Container, *, stdout: bool, stderr: bool) -> None:
        self._container, self._name = container, file_of(container)
        self._wanted = (STDOUT,) * stdout + (STDERR,) * stderr
        self._framer = Framer(tty=container.record.config.tty)
        self._follower: reader.Follower | None = None
        self._last: int | None = None

    def chunks(self) -> Iterator[bytes]:
        """Yield what has been added since the last call."""
        if self._follower is None and not self._open():
            return
        assert self._follower is not None
        while found := self._follower.poll():
            yield self._framer.frames(run for run in found if run.stream in self._wanted)

    def until(self, time_ns: int) -> None:
        """From here on leave out what is later."""
        self._last = time_ns
        if self._follower is not None:
            self._follower.until(time_ns)

    def _open(self) -> bool:
        if self._name is None:
            return False
        try:
            self._follower = reader.Follower(str(self._container.rooms.folder(self._container.id)), self._name, times=False)
        except FileNotFoundError:
            return False
        if self._last is not None:
            self._follower.until(self._last)
        return True

    def __enter__(self) -> Past:
        return self

    def __exit__(self, *_: object) -> None:
        if self._follower is not None:
            self._follower.close()


def _tell(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Logs:
    """An open `logs` request (api/backend.py LogStream)."""

    def __init__(self, container: Container, options: s.LogOptions) -> None:
        name = file_of(container)
        if name is None:
            raise Unsupported("configured logging driver does not support reading")
        self.tty = container.record.config.tty
        self._container = container
        self._options = options
        self._name = name
        self._wanted = (STDOUT,) * options.stdout + (STDERR,) * options.stderr
        self._framer = Framer(timestamps=options.timestamps, details=options.details, tty=self.tty)
        self._folder: Fd | None = None
        self._follower: reader.Follower | None = None
        self._watch: Inotify | None = None
        self._over = False
        self._work: asyncio.Future[bytes] | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield frames; with `follow` until the container ends for good, through restarts of its policy and rotations."""
        options, container = self._options, self._container
        if options.follow:
            self._watch = Inotify()
        while True:
            goes_on = options.follow and not container.removed and container.may_write
            ended = container.on_exit() if goes_on else None
            try:
                while data := await self._in_thread():
                    yield data
                if self._over or ended is None:
                    return
                await self._change(ended)
            finally:
                if ended is not None:
                    ended.cancel()

    async def _in_thread(self) -> bytes:
        """A request that is cancelled meanwhile leaves the thread alone; `close` waits for it."""
        self._work = asyncio.ensure_future(asyncio.to_thread(self._next))
        return await asyncio.shield(self._work)

    def _next(self) -> bytes:
        """Return the frames of what is new, b"" when nothing is."""
        if self._follower is None and not self._open():
            return b""
        assert self._follower is not None
        made: list[bytes] = []
        size = 0
        while size < PIECE and not self._over and (found := self._follower.poll()):
            made.append(self._framer.frames(self._chosen(found)))
            size += len(made[-1])
        return b"".join(made)

    def _open(self) -> bool:
        options = self._options
        try:
            if self._folder is None:
                self._folder = open_folder(self._container.rooms.folder(self._container.id))
                if self._watch is not None:
                    self._watch.add(self._folder, _CHANGES)
            self._follower = reader.Follower(
                self._folder, self._name, since_ns=options.since or None, tail=options.tail if options.tail >= 0 else None,
                times=bool(options.timestamps or options.details or options.until),
            )  # fmt: skip
        except FileNotFoundError:
            return False
        return True

    def _chosen(self, found: list[Run]) -> Iterator[Run]:
        until = self._options.until
        for run in found:
            if until and run.time_ns > until:
                self._over = True
                return
            if run.stream in self._wanted:
                yield run

    async def _change(self, ended: asyncio.Future[None]) -> None:
        """Wait until the folder has changed, the container has ended, or `until` has come."""
        assert self._watch is not None
        if self._folder is None:  # never started: its start makes the folder
            await asyncio.wait([ended, self._container.on_start()], return_when=asyncio.FIRST_COMPLETED)
            return
        loop = asyncio.get_running_loop()
        changed: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._watch.fileno(), _tell, changed)
        left = None
        if self._options.until:
            left = max(0.0, (self._options.until - time.time_ns()) / 1e9)
            self._over = left == 0
        try:
            await asyncio.wait([changed, ended], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._watch.fileno())
            changed.cancel()
        while self._watch.read():
            pass

    async def close(self) -> None:
        if self._work is not None:
            await asyncio.wait([self._work])
        for owned in (self._follower, self._watch, self._folder):
            if owned is not None:
                owned.close()
