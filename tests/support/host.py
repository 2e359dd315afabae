"""The host as found: everything Sampan could leave behind, as sets that can be compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

OURS = ("sampan", "smp")


def _lines(*command: str) -> list[str]:
    if shutil.which(command[0]) is None:
        return []
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def _links() -> frozenset[str]:
    found = _lines("ip", "-j", "link")
    return frozenset(link["ifname"] for link in json.loads("".join(found) or "[]"))


def _cgroups() -> frozenset[str]:
    return frozenset(
        directory
        for top in ("/sys/fs/cgroup",)
        for directory, names, _ in os.walk(top)
        if names is not None and any(part.startswith(OURS) for part in directory.split("/"))
    )


def engine_processes() -> frozenset[str]:
    """Return "pid command line" of every process of Sampan: daemon, spawner, keepers."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isascii() and entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                name = (entry / "comm").read_text().strip()
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state == "Z" and parent == "1":
                continue  # it has ended, and is init's to reap
            if name.startswith("sampan") or any(b"sampan.launch" in w or b"sampan.daemon" in w for w in words):
                found.add(f"{entry.name} {name}")
    return frozenset(found)


@dataclass(frozen=True)
class HostState:
    """A picture of what can leak."""

    mounts: frozenset[str]
    links: frozenset[str]
    netns: frozenset[str]
    nft_tables: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    run_files: frozenset[str]

    @classmethod
    def now(cls) -> HostState:
        with open("/proc/self/mountinfo") as table:
            mounts = frozenset(line.split()[4] for line in table)
        return cls(
            mounts=mounts,
            links=_links(),
            netns=frozenset(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else frozenset(),
            nft_tables=frozenset(_lines("nft", "list", "tables")),
            cgroups=_cgroups(),
            processes=engine_processes(),
            run_files=frozenset(str(path) for path in Path("/run").glob("sampan*")),
        )

    def leaked_since(self, before: HostState) -> dict[str, list[str]]:
        """Return what is here now and was not in `before`, by kind; empty when the host is as it was."""
        gained = {field.name: sorted(getattr(self, field.name) - getattr(before, field.name)) for field in fields(self)}
        return {kind: names for kind, names in gained.items() if names}
