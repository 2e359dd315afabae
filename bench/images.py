"""`bench/images.py`: load, pull and push of a Debian-like image of about 200 MB, on Sampan and on Debian's dockerd in one run.

    bench/images.py [--rounds N] [--only load,pull,push] [--require]
    bench/images.py --only many [--rounds N] [--require]      1,000 images with 5,000 names: daemon's start, lists

The image: three layers of this host's own files below /usr, as a distribution's packages put them there.  The registry: Debian's
docker-registry on loopback.  Engines take turns; figures are medians.  Needs root, dockerd, docker-registry, tar.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from peers import Peer, UnixHttp, dockerd, sampan, workspace

SIZES = (120 << 20, 60 << 20, 20 << 20)  # bytes of files of each layer
BUDGETS = {"load": 2.5, "pull": 2.0, "push": 1.5}  # dockerd / sampan, at least


def as_docker(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return the entry with whole seconds, as in the layers that docker, buildkit and debuerreotype write."""
    entry.mtime = int(entry.mtime)
    return entry


def layers(work: Path) -> list[Path]:
    """Return the layers' tars."""
    found = []
    folders = sorted(path for path in Path("/usr").rglob("*") if path.is_dir() and not path.is_symlink())
    random.Random(1).shuffle(folders)  # whole folders, as packages bring them
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file() or path.is_symlink()]
    at = 0
    for number, size in enumerate(SIZES):
        target = work / f"layer{number}.tar"
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
            left = size
            while left > 0 and at < len(paths):
                path, at = paths[at], at + 1
                if path.is_symlink() or (path.stat().st_size < 8 << 20 and ".git" not in str(path)):
                    tar.add(path, recursive=False, filter=as_docker)
                    left -= 0 if path.is_symlink() else path.stat().st_size
        found.append(target)
    return found


def archive(work: Path, tars: list[Path], name: str) -> Path:
    """Return a docker-save archive of the layers."""
    digests = [hashlib.file_digest(open(tar, "rb"), "sha256").hexdigest() for tar in tars]  # noqa: SIM115
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]},
         "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one}" for one in digests]}}
    ).encode()  # fmt: skip
    image = hashlib.sha256(config).hexdigest()
    table = [{"Config": f"{image}.json", "RepoTags": [name], "Layers": [f"{one}/layer.tar" for one in digests]}]
    target = work / "image.tar"
    with tarfile.open(target, "w") as tar:
        for path, content in ((f"{image}.json", config), ("manifest.json", json.dumps(table).encode())):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for one, layer in zip(digests, tars, strict=True):
            tar.add(layer, f"{one}/layer.tar")
    return target


class Registry:
    """docker-registry on loopback."""

    def __init__(self, work: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self.data = work / "registry"
        (work / "registry.yml").write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.data}}}}}\nhttp: {{addr: {self.host}, secret: bench}}\n"
        )
        self.process = subprocess.Popen(["docker-registry", "serve", str(work / "registry.yml")], stderr=subprocess.DEVNULL)
        time.sleep(1)

    def clear(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def request(peer: Peer, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> bytes:
    connection = UnixHttp(peer.sock)
    connection.blocksize = 1 << 20
    connection.request(method, path, body, headers or {})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    if reply.status >= 400 or b'"error"' in content:
        raise RuntimeError(f"{peer.name}: {method} {path}: {reply.status} {content[-300:]!r}")
    return content


def remove(peer: Peer, *names: str) -> None:
    for name in names:
        request(peer, "DELETE", f"/images/{name}?force=1")


def load(peer: Peer, tar: Path) -> None:
    with open(tar, "rb") as file:
        headers = {"Content-Type": "application/x-tar", "Content-Length": str(tar.stat().st_size)}
        request(peer, "POST", "/images/load?quiet=1", file, headers)


def measured(peer: Peer, operation: str, work: Callable[[], object]) -> None:
    os.sync()
    begun = time.perf_counter()
    work()
    peer.add(operation, time.perf_counter() - begun)


def rounds(peers: list[Peer], registry: Registry, tar: Path, chosen: list[str], count: int) -> None:
    name = f"{registry.host}/bench"
    for _ in range(count):
        for peer in peers:
            if "load" in chosen:
                measured(peer, "load", lambda peer=peer: load(peer, tar))
                remove(peer, f"{name}:1")
            if "push" in chosen or "pull" in chosen:
                load(peer, tar)
                registry.clear()
                path = f"/images/{name}/push?tag=1"
                measured(
                    peer, "push", lambda peer=peer, path=path: request(peer, "POST", path, headers={"X-Registry-Auth": "e30="})
                )
                remove(peer, f"{name}:1")
        for peer in peers if "pull" in chosen else ():
            measured(peer, "pull", lambda peer=peer: request(peer, "POST", f"/images/create?fromImage={name}&tag=1"))
            remove(peer, f"{name}:1")


def many(count: int) -> bool:
    """Time the start and the lists of a daemon with a thousand images; return whether a budget is missed."""
    from support.daemon import Daemon
    from support.images import crowd

    daemon = Daemon()
    starts, firsts, lists = [], [], []
    try:
        daemon.data_root.mkdir(mode=0o700)
        crowd(daemon.data_root, 1000, 5)
        for _ in range(count):
            begun = time.perf_counter()
            daemon.start()
            starts.append(time.perf_counter() - begun)
            connection = UnixHttp(daemon.sock)
            for number in range(6):
                begun = time.perf_counter()
                connection.request("GET", "/images/json")
                connection.getresponse().read()
                (lists if number else firsts).append(time.perf_counter() - begun)
            connection.close()
            daemon.kill(signal.SIGTERM)
        daemon.start()
    finally:
        daemon.close()
    missed = False
    for what, found, budget in (("start", starts, 1.0), ("first list after it", firsts, 0.15), ("lists", lists, 0.15)):
        missed = missed or max(found) > budget
        figures = [1000 * one for one in (statistics.median(found), max(found), budget)]
        print("{:20} median {:5.0f} ms, most {:5.0f} (budget {:.0f})".format(what, *figures))
    return missed


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="load,pull,push")
    parser.add_argument("--require", action="store_true")
    options = parser.parse_args()
    if options.only == "many":
        return 1 if many(options.rounds) and options.require else 0
    work = workspace()
    registry = Registry(work)
    peers = [peer for peer in (sampan(work), dockerd(work)) if peer is not None]
    missed = False
    try:
        tar = archive(work, layers(work), f"{registry.host}/bench:1")
        for peer in peers:
            peer.wait_until_ready()
        print(f"image: {tar.stat().st_size / 1e6:.0f} MB in {len(SIZES)} layers")
        rounds(peers, registry, tar, options.only.split(","), options.rounds)
        for operation in peers[0].samples:
            medians = [statistics.median(peer.samples[operation]) for peer in peers]
            ratio = medians[1] / medians[0] if len(medians) > 1 else float("nan")
            missed = missed or ratio < BUDGETS[operation]
            figures = "".join(f"{peer.name:>10} {median:7.2f} s" for peer, median in zip(peers, medians, strict=True))
            print(f"{operation:6}{figures}   {ratio:5.2f}x (budget {BUDGETS[operation]}x)")
    finally:
        for peer in peers:
            peer.stop()
        registry.stop()
        shutil.rmtree(work, ignore_errors=True)
        subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)
    return 1 if missed and options.require else 0


if __name__ == "__main__":
    sys.exit(main())
