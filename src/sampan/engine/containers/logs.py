"""Logs: records of the json-file driver as frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from sampan.engine.containers.container import Container, open_folder
from sampan.errors import Unsupported
from sampan.kernel.fds import Fd
from sampan.logs import reader
from sampan.wire import system as s

POLL = 0.05  # seconds between looks at a log that is followed
PIECE = 64 * 1024


def frame(record: reader.Record, options: s.LogOptions, tty: bool) -> bytes:
    """Return one record as it is sent."""
    line = record.line
    if options.details:
        line = b" " + line
    if options.timestamps:
        seconds, rest = divmod(record.time_ns, 10**9)
        line = time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:09d}Z ", time.gmtime(seconds)).encode() + line
    if tty:
        return line
    return bytes((1 if record.stream == "stdout" else 2, 0, 0, 0)) + len(line).to_bytes(4, "big") + line


def past(container: Container, *, stdout: bool, stderr: bool) -> Iterator[bytes]:
    """Yield what has been logged so far."""
    try:
        folder = open_folder(container.rooms.folder(container.id))
    except FileNotFoundError:
        return
    wanted = ("stdout",) * stdout + ("stderr",) * stderr
    with folder:
        for record in reader.read(folder.fileno(), f"{container.id}-json.log"):
            if record.stream in wanted:
                yield frame(record, s.LogOptions(), container.record.config.tty)


class Logs:
    """An open `logs` request (api/backend.py LogStream)."""

    def __init__(self, container: Container, options: s.LogOptions) -> None:
        log = container.record.host.log_config
        if log is not None and log.type == "none":
            raise Unsupported("configured logging driver does not support reading")
        self.tty = container.record.config.tty
        self._container = container
        self._options = options
        self._wanted = ("stdout",) * options.stdout + ("stderr",) * options.stderr
        self._folder: Fd | None = None
        self._follower: reader.Follower | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        options, container = self._options, self._container
        try:
            self._folder = open_folder(container.rooms.folder(container.id))
        except FileNotFoundError:
            if not options.follow:
                return
        over = False
        first = True
        while True:
            running = container.record.running or container.record.restarting or not container.record.started
            if self._folder is None and container.rooms.folder(container.id).exists():
                self._folder = open_folder(container.rooms.folder(container.id))
            if self._folder is not None:
                if self._follower is None:
                    self._follower = reader.Follower(self._folder.fileno(), f"{container.id}-json.log")
                records = await asyncio.to_thread(self._follower.poll)
                chosen, over = self._choose(records, first)
                batch = b""
                for record in chosen:
                    batch += frame(record, options, self.tty)
                    if len(batch) > PIECE:
                        yield batch
                        batch = b""
                if batch:
                    yield batch
            first = False
            if over or not options.follow or not running or container.removed:
                return
            await asyncio.wait([container.on_exit()], timeout=POLL)

    def _choose(self, records: list[reader.Record], first: bool) -> tuple[list[reader.Record], bool]:
        options = self._options
        over = bool(options.until) and any(record.time_ns > options.until for record in records)
        found = [
            record for record in records
            if record.stream in self._wanted and record.time_ns >= options.since
            and (not options.until or record.time_ns <= options.until)
        ]  # fmt: skip
        if first and options.tail >= 0:
            found = found[len(found) - min(options.tail, len(found)) :]
        return found, over or (bool(options.until) and time.time_ns() > options.until)

    async def close(self) -> None:
        if self._follower is not None:
            self._follower.close()
        if self._folder is not None:
            self._folder.close()
