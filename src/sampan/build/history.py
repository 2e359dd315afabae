"""Builds that were: when, of what, how each ended, what its steps took, and what it said (`sampan builder history`).

A record is written when a build begins and again at its end, in the background: what a killed daemon leaves is a build that
never ended.  Arguments and secrets are in no record.
"""

from __future__ import annotations

import secrets
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from sampan.build.report import Console
from sampan.engine.images.image import rfc3339
from sampan.errors import InvalidRequest, NotFound
from sampan.state import State, Table
from sampan.wire import builds as w
from sampan.wire.images import Progress

KEPT = 200  # builds
MAX_LOG = 1 << 20  # bytes of what a build said; the middle of more is left out
MAX_STEPS = 2000


class StepLine(msgspec.Struct, frozen=True, kw_only=True):
    """A step.  Times are nanoseconds; outcome: "cached", "done", or "" when it did not come to its end; why: of a miss."""

    text: str
    started: int
    ended: int = 0
    outcome: str = ""
    why: str = ""


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A build.  outcome: "running", "done", "failed", "cancelled", "interrupted"; error: what it failed with."""

    id: str
    name: str
    target: str
    started: int
    ended: int = 0
    outcome: str = "running"
    error: str = ""
    image: str = ""
    steps: tuple[StepLine, ...] = ()


class Log:
    """What a build says: its beginning and its end."""

    def __init__(self) -> None:
        self._first = bytearray()
        self._last = bytearray()
        self._left_out = 0

    def add(self, text: str) -> None:
        data = text.encode(errors="replace")
        room = MAX_LOG // 2 - len(self._first)
        self._first += data[: max(room, 0)]
        self._last += data[max(room, 0) :]
        if len(self._last) > MAX_LOG:
            cut = len(self._last) - MAX_LOG // 2
            self._left_out += cut
            del self._last[:cut]

    def content(self) -> bytes:
        gap = f"\n[{self._left_out} bytes left out]\n".encode() if self._left_out else b""
        return bytes(self._first) + gap + bytes(self._last)


class Watched:
    """A build under way."""

    def __init__(self, name: str, target: str) -> None:
        self.record = BuildRecord(id=secrets.token_hex(12), name=name[:300], target=target[:100], started=time.time_ns())
        self.log = Log()
        self.console: Console | None = None
        self.error = self.image = ""

    def listened(self, say: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Return `say`, heard by the log too."""

        def both(message: Progress) -> None:
            self.log.add(message.stream)
            say(message)

        return both

    def now(self, **changed: Any) -> BuildRecord:
        """Return the record as it is now, with the changes."""
        steps = self.console.steps[:MAX_STEPS] if self.console is not None else ()
        lines = tuple(
            StepLine(text=one.text[:300], started=one.started, ended=one.finished, outcome=one.outcome, why=one.why[:1000])
            for one in steps
        )
        return msgspec.structs.replace(self.record, steps=lines, **changed)


class History:
    """The builds of one data root, the newest KEPT.  Thread-safe; methods that write block."""

    def __init__(self, state: State, folder: Path) -> None:
        self._table = Table(state, "build-history", BuildRecord)
        self._state = state
        self._folder = folder
        self._mutex = threading.Lock()
        self._running: dict[str, Watched] = {}
        folder.mkdir(mode=0o700, exist_ok=True)

    def sweep(self) -> None:
        """What was running when the daemon was killed never ended.  At start only."""
        for key, record in list(self._table.items()):
            if record.outcome == "running":
                self._table.put(key, msgspec.structs.replace(record, outcome="interrupted"))
        known = {key for key, _ in self._table.items()}
        for path in self._folder.iterdir():
            if path.name not in known:
                path.unlink()

    def begin(self, entry: Watched) -> Watched:
        self._running[entry.record.id] = entry
        return entry

    def write_begin(self, entry: Watched) -> None:
        with self._mutex:
            if self._table.get(entry.record.id) is None:  # its end may have been faster
                self._table.put(entry.record.id, entry.record, volatile=True)

    def end(self, entry: Watched, *, cancelled: bool) -> None:
        """Keep how a build ended, and forget the oldest."""
        outcome = "cancelled" if cancelled else "failed" if entry.error else "done"
        record = entry.now(outcome=outcome, error=entry.error[:2000], image=entry.image, ended=time.time_ns())
        path = self._folder / record.id
        path.touch(0o600)
        path.write_bytes(zlib.compress(entry.log.content()))
        with self._mutex:
            with self._state.batch():
                self._table.put(record.id, record)
                old = sorted(self._table.items(), key=lambda item: item[1].started)
                for key, one in old[: max(0, len(old) - KEPT)]:
                    if one.outcome != "running":
                        self._forget(key)
            self._running.pop(record.id, None)

    def _forget(self, key: str) -> None:
        self._table.delete(key)
        with suppress(FileNotFoundError):
            (self._folder / key).unlink()

    def all(self) -> list[BuildRecord]:
        """Return every build, the newest first.  One that has ended runs on here until its end is on the disk."""
        running = {key: entry.now() for key, entry in list(self._running.items())}
        found = dict(self._table.items())
        ended = {key: one for key, one in found.items() if one.outcome != "running"}
        return sorted({**found, **running, **ended}.values(), key=lambda one: -one.started)

    def get(self, text: str) -> BuildRecord:
        """Return the build whose id begins so.  Raises NotFound, InvalidRequest."""
        if len(text) < 2 or text.strip("0123456789abcdef"):
            raise InvalidRequest(f"invalid build {text[:60]!r}: hexadecimal digits are expected, at least two")
        found = [one for one in self.all() if one.id.startswith(text)]
        if len(found) != 1:
            raise NotFound(f"no such build: {text[:60]}" if not found else f"{len(found)} builds begin with {text[:60]}")
        return found[0]

    def log(self, text: str) -> bytes:
        """Return what a build said.  Raises NotFound, InvalidRequest."""
        record = self.get(text)
        running = self._running.get(record.id)
        if running is not None:
            return running.log.content()
        try:
            return zlib.decompressobj().decompress((self._folder / record.id).read_bytes(), 4 * MAX_LOG)
        except (FileNotFoundError, zlib.error):
            return b""

    def remove(self, text: str) -> None:
        """Forget a build that has ended.  Raises NotFound, InvalidRequest."""
        record = self.get(text)
        if record.outcome == "running" and record.id in self._running:
            raise InvalidRequest(f"build {record.id} is still running")
        with self._mutex:
            self._forget(record.id)


def summary(one: BuildRecord) -> w.BuildSummary:
    """Return a build as the API tells of it."""
    return w.BuildSummary(
        id=one.id, name=one.name, target=one.target, started=rfc3339(one.started),
        duration=(one.ended - one.started) / 1e9 if one.ended else None, outcome=one.outcome, error=one.error, image=one.image,
        steps=len(one.steps), cached=sum(step.outcome == "cached" for step in one.steps),
    )  # fmt: skip


def details(one: BuildRecord) -> w.BuildDetails:
    """Return a build with its steps."""
    steps = [
        w.BuildStep(
            text=step.text, duration=(step.ended - step.started) / 1e9 if step.ended else None, outcome=step.outcome, why=step.why
        )
        for step in one.steps
    ]
    return w.BuildDetails(summary=summary(one), steps=steps)
