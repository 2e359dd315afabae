"""What a daemon holds, to be compared before and after: descriptors, threads, processes, containers, images, files."""

from __future__ import annotations

import contextlib
import os
import select
import time
from dataclasses import dataclass, fields

from support.daemon import Daemon

PATIENCE = 20.0
# asyncio's pool fills up once; the next start's brood is there or on its way.
SLACK = {"threads": 6, "processes": 3}


def _parents() -> dict[int, int]:
    """Return the parent of every process."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isascii() and entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
    return parents


def children(pid: int) -> set[int]:
    """Return the processes whose parent is `pid`."""
    return {one for one, parent in _parents().items() if parent == pid}


def descendants(pid: int) -> set[int]:
    """Return the processes below `pid`: spawner, keepers, inits, what runs in containers."""
    parents = _parents()
    found: set[int] = set()
    while more := {one for one, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def _below(folder: str, depth: int) -> list[str]:
    """Return what is in a folder, so deep; what goes meanwhile is left out (removed trees are emptied at leisure)."""
    found: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            found.append(entry.path)
            if depth > 1 and entry.is_dir(follow_symlinks=False):
                found += _below(entry.path, depth - 1)
    return found


def left_below(pid: int) -> set[int]:
    """Wait until no process is below `pid`; return what stays."""
    while found := descendants(pid):
        watched = []
        for one in found:
            with contextlib.suppress(ProcessLookupError):
                watched.append(os.pidfd_open(one))
        ended = select.select(watched, [], [], PATIENCE)[0] if watched else [pid]  # none: they have all just gone
        for fd in watched:
            os.close(fd)
        if not ended and descendants(pid):
            return found
    return set()


@dataclass
class Holds:
    """What a daemon holds: descriptors, threads, and everything of a container's or an image's."""

    descriptors: int
    threads: int
    containers: frozenset[str]
    images: frozenset[str]
    files: frozenset[str]
    processes: int

    @classmethod
    def now(cls, daemon: Daemon) -> Holds:
        places = ("data/containers", "data/content", "data/layers", "data/volumes", "exec/containers")
        return cls(
            descriptors=len(os.listdir(f"/proc/{daemon.pid}/fd")),
            threads=len(os.listdir(f"/proc/{daemon.pid}/task")),
            containers=frozenset(one["Id"] for one in daemon.ok("GET", "/containers/json?all=1")),
            images=frozenset(one["Id"] for one in daemon.ok("GET", "/images/json?all=1")),
            files=frozenset(path for place in places for path in _below(str(daemon.work / place), 3)),
            processes=len(descendants(daemon.pid)),
        )

    def gained(self, before: Holds) -> dict[str, object]:
        found: dict[str, object] = {}
        for field in fields(self):
            now, then = getattr(self, field.name), getattr(before, field.name)
            if isinstance(now, int):
                if now > then + SLACK.get(field.name, 0):
                    found[field.name] = (then, now)
            elif now - then:
                found[field.name] = sorted(now - then)
        return found


def nothing_more_than(daemon: Daemon, before: Holds) -> None:
    """Wait until the daemon holds no more than before: it closes its end of a connection a moment after the client."""
    deadline = time.monotonic() + PATIENCE
    while gained := Holds.now(daemon).gained(before):
        assert time.monotonic() < deadline, gained
