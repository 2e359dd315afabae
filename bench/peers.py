"""The engines a benchmark compares: Sampan of this checkout, Debian's dockerd, and bare runc, each with roots of its own."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from support.daemon import UnixHttp, busybox_rootfs  # noqa: E402

IMAGE = "busybox:latest"
TRUSTED: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}  # not in 3.11.2


class Peer:
    """An engine that serves the Docker API on a unix socket of its own."""

    def __init__(self, name: str, command: list[str], sock: str, processes: str) -> None:
        self.name, self.sock = name, sock
        self.processes = re.compile(processes)
        self.samples: dict[str, list[float]] = {}
        self.log = open(f"{sock}.log", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    @property
    def host(self) -> str:
        return f"unix://{self.sock}"

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                if self.call(UnixHttp(self.sock), "GET", "/_ping") == b"OK":
                    return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError(f"{self.name} did not start; see {self.sock}.log") from None
                time.sleep(0.05)

    def call(self, connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> bytes:
        """Make a request; raise RuntimeError with the engine's message on an error status."""
        headers = {}
        if isinstance(body, bytes):
            data: bytes | None = body
            headers["Content-Type"] = "application/x-tar"
        elif body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        else:
            data = None
        connection.request(method, path, data, headers)
        reply = connection.getresponse()
        content = reply.read()
        if reply.status >= 400:
            raise RuntimeError(f"{self.name}: {method} {path}: {reply.status} {content[:300]!r}")
        return content

    def import_image(self) -> None:
        self.call(UnixHttp(self.sock), "POST", "/images/create?fromSrc=-&repo=busybox&tag=latest", busybox_rootfs())

    def create(self, connection: http.client.HTTPConnection, command: list[str]) -> str:
        return json.loads(self.call(connection, "POST", "/containers/create", {"Image": IMAGE, "Cmd": command}))["Id"]

    def docker(self, *arguments: str) -> None:
        subprocess.run(["docker", "-H", self.host, *arguments], check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def pids(self) -> list[int]:
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if self.processes.search(line) and "bench.py" not in line:
                found.append(int(pid))
        return found

    def pss_kib(self) -> int:
        """Return the proportional set size of all the engine's processes together, KiB."""
        total = 0
        for pid in self.pids():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))
        return total

    def add(self, operation: str, value: float) -> None:
        self.samples.setdefault(operation, []).append(value)

    def stop(self) -> None:
        connection = UnixHttp(self.sock)
        try:
            for container in json.loads(self.call(connection, "GET", "/containers/json?all=1")):
                self.call(connection, "DELETE", f"/containers/{container['Id']}?force=1")
        except (OSError, RuntimeError) as error:
            print(f"# {self.name}: {error}", file=sys.stderr)
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def sampan(work: Path) -> Peer:
    """Start this checkout's daemon."""
    sock = str(work / "sampan.sock")
    roots = ["--data-root", str(work / "sampan-data"), "--exec-root", str(work / "sampan-exec")]
    command = [
        str(ROOT / ".venv/bin/sampan"), "daemon", "-H", f"unix://{sock}", *roots, "--pidfile", str(work / "sampan.pid"),
        "--bridge", "sampanbench0", "--bip", "10.214.1.1/24", "--cgroup-parent", "/sampanbench",
    ]  # fmt: skip
    return Peer("sampan", command, sock, r"sampan[ .]|^sampan")


def dockerd(work: Path) -> Peer | None:
    """Start Debian's dockerd, or return None where it is not installed."""
    if shutil.which("dockerd") is None:
        return None
    sock = str(work / "dockerd.sock")
    roots = ["--data-root", str(work / "docker-data"), "--exec-root", str(work / "docker-exec")]
    command = [
        "dockerd",
        "-H",
        f"unix://{sock}",
        *roots,
        "--pidfile",
        str(work / "docker.pid"),
        "--bip",
        "10.214.2.1/24",
    ]
    return Peer("dockerd", command, sock, r"dockerd|containerd")


class Runc:
    """Bare `runc run` of the same root file system, as a yardstick without an engine."""

    name = "runc"

    def __init__(self, work: Path) -> None:
        self.samples: dict[str, list[float]] = {}
        self.bundle = work / "bundle"
        rootfs = self.bundle / "rootfs"
        rootfs.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(busybox_rootfs())) as tar:
            tar.extractall(rootfs, **TRUSTED)
        subprocess.run(["runc", "spec"], cwd=self.bundle, check=True)
        spec = json.loads((self.bundle / "config.json").read_text())
        spec["process"].update(args=["true"], terminal=False)
        (self.bundle / "config.json").write_text(json.dumps(spec))
        self._count = 0

    def run(self) -> None:
        self._count += 1
        subprocess.run(["runc", "run", f"sampanbench{self._count}"], cwd=self.bundle, check=True, capture_output=True)

    def add(self, operation: str, value: float) -> None:
        self.samples.setdefault(operation, []).append(value)


def runc(work: Path) -> Runc | None:
    """Return the runc yardstick, or None where runc is not installed."""
    return Runc(work) if shutil.which("runc") else None


def workspace() -> Path:
    return Path(tempfile.mkdtemp(prefix="sampanbench-", dir="/var/tmp"))
