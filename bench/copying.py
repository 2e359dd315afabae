"""Copying in and out of a running container, Sampan and dockerd in turns: a large file and a tree of small ones.

    bench/copying.py [--rounds N] [--only sampan|dockerd] [--memory]

By the API, so that a client's start does not blur the figures, with tars made beforehand, and with the docker command.
Needs root, /bin/busybox (static) and the docker command.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from peers import ROOT, TRUSTED, Peer, UnixHttp, dockerd, sampan, workspace

LARGE, FILES, BYTES = 100 << 20, 5000, 2000
BUDGETS = {"in": 1.0, "out": 1.5}


def large() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("large")
        entry.size = LARGE
        tar.addfile(entry, io.BytesIO(os.urandom(1 << 20) * 100))
    return out.getvalue()


def small() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(FILES):
            if number % 100 == 0:
                entry = tarfile.TarInfo(f"tree/d{number // 100}")
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            entry = tarfile.TarInfo(f"tree/d{number // 100}/f{number}")
            entry.size = BYTES
            tar.addfile(entry, io.BytesIO(os.urandom(BYTES)))
    return out.getvalue()


class Target:
    """A running container of an engine."""

    def __init__(self, peer: Peer, files: Path) -> None:
        self.peer = peer
        self.files = files
        peer.wait_until_ready()
        peer.import_image()
        self.connection = UnixHttp(peer.sock)
        self.room = bytearray(1 << 18)
        self.id = peer.create(self.connection, ["sleep", "3600"])
        peer.call(self.connection, "POST", f"/containers/{self.id}/start")

    def fresh(self) -> None:
        self.peer.docker("exec", self.id, "sh", "-c", "rm -rf /tmp/*")

    def put(self, tar: bytes) -> None:
        self.peer.call(self.connection, "PUT", f"/containers/{self.id}/archive?path=/tmp", tar)

    def get(self, path: str) -> None:
        self.connection.request("GET", f"/containers/{self.id}/archive?path={path}")
        reply = self.connection.getresponse()
        while reply.readinto(self.room):  # a client's own work blurs the figures: none but the copy
            pass

    def measure(self, name: str, work: Callable[[], None]) -> None:
        began = time.perf_counter()
        work()
        self.peer.add(name, time.perf_counter() - began)

    def round(self, tars: dict[str, bytes]) -> None:
        for what in tars:
            self.fresh()
            self.measure(f"api in, {what}", functools.partial(self.put, tars[what]))
            self.measure(f"api out, {what}", functools.partial(self.get, f"/tmp/{what}"))
            self.fresh()
            place = self.files / f"out-{self.peer.name}"
            subprocess.run(["rm", "-rf", place], check=True)
            cp = functools.partial(self.peer.docker, "cp")
            self.measure(f"docker cp in, {what}", functools.partial(cp, str(self.files / what), f"{self.id}:/tmp"))
            self.measure(f"docker cp out, {what}", functools.partial(cp, f"{self.id}:/tmp/{what}", str(place)))
            self.fresh()
            subprocess.run(["rm", "-rf", place], check=True)
            self.measure(f"own cp in, {what}", functools.partial(self.own, str(self.files / what), f"{self.id}:/tmp"))
            self.measure(f"own cp out, {what}", functools.partial(self.own, f"{self.id}:/tmp/{what}", str(place)))

    def own(self, source: str, target: str) -> None:
        """cp with the engine's own command."""
        program = str(ROOT / ".venv/bin/sampan") if self.peer.name == "sampan" else "docker"
        subprocess.run([program, "-H", self.peer.host, "cp", source, target], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--memory", action="store_true", help="on a tmpfs: without what the disk's file system costs both")
    arguments = parser.parse_args()
    tars = {"large": large(), "tree": small()}
    work = Path(tempfile.mkdtemp(prefix="sampanbench-", dir="/dev/shm")) if arguments.memory else workspace()
    found: list[Peer] = []
    try:
        for tar in tars.values():
            with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
                archive.extractall(work, **TRUSTED)
        for name, make in (("sampan", sampan), ("dockerd", dockerd)):
            peer = make(work) if arguments.only in ("", name) else None
            found += [peer] if peer is not None else []
        targets = [Target(peer, work) for peer in found]
        for _ in range(arguments.rounds):
            for target in targets:
                target.round(tars)
    finally:
        for peer in found:
            peer.stop()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{'operation (median, best)':28} " + " ".join(f"{peer.name:>17}" for peer in found) + "    dockerd/sampan")
    for name in found[0].samples:
        figures = [(statistics.median(peer.samples[name]), min(peer.samples[name])) for peer in found]
        budget = BUDGETS["out" if " out" in name else "in"]
        line = f"{name:28} " + " ".join(f"{1000 * middle:7.0f} {1000 * best:7.0f} ms" for middle, best in figures)
        if len(figures) > 1:
            line += f"{figures[1][0] / figures[0][0]:8.2f} {figures[1][1] / figures[0][1]:8.2f}  (at least {budget})"
        print(line)


if __name__ == "__main__":
    main()
