"""A daemon of the tests' own: data root, exec root, socket, bridge, subnet and cgroup parent apart from everybody else's."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from support.ready import started

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPAN = ROOT / ".venv/bin/sampan"
COLLECTORS = {"never": "disable()", "always": "set_threshold(1)"}
BUSYBOX = Path("/bin/busybox")
_numbers = itertools.count(os.getpid() % 200)


def daemon_program() -> list[str]:
    """Return the words that start the command; SAMPAN_TEST_GC=never|always rules its garbage collector (SECURITY.md P19)."""
    rule = COLLECTORS.get(os.environ.get("SAMPAN_TEST_GC", ""))
    if rule is None:
        return [str(SAMPAN)]
    ruled = f"from sampan import become; become._CODE = 'import gc; gc.{rule}; ' + become._CODE"  # what it becomes by execve
    return [str(SAMPAN.with_name("python3")), "-IB", "-c", f"{ruled}; from sampan.cli.main import entry; entry()"]


class UnixHttp(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path | str, timeout: float = 60) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Answer:
    """A reply, read whole."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.body[:300]!r})"


def busybox_rootfs() -> bytes:
    """Return a tar of a root file system made of the host's static busybox."""
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "root", "tmp", "usr", "usr/bin"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for name, text in (
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser:x:1000:1000::/tmp:/bin/sh\n",
            ),
            ("etc/group", "root:x:0:\nnogroup:x:65534:\nuser:x:1000:\nextra:x:2000:user\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        tar.add(BUSYBOX, "bin/busybox")
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
    return out.getvalue()


class Daemon:
    """`sampan daemon` as a process, and the requests tests make of it."""

    def __init__(self, *options: str, environment: dict[str, str] | None = None) -> None:
        number = next(_numbers)
        self.work = Path(tempfile.mkdtemp(prefix="sampantest-", dir="/var/tmp"))
        self.sock = self.work / "d.sock"
        self.data_root, self.exec_root = self.work / "data", self.work / "exec"
        self.bridge = f"smpt{number}b{os.getpid() % 1000}"[:15]
        self.subnet = f"10.{100 + number % 100}.{os.getpid() % 250}.1/24"
        self.cgroup_parent = f"/sampantest-{self.work.name.removeprefix('sampantest-')}"
        self.options = list(options)
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self._log = open(self.work / "daemon.log", "ab")  # noqa: SIM115

    @property
    def host(self) -> str:
        return f"unix://{self.sock}"

    @property
    def log(self) -> str:
        return (self.work / "daemon.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, patience: float = 60) -> Daemon:
        """Start it and return when it answers."""
        command = [
            *daemon_program(), "daemon", "-H", self.host, "--data-root", str(self.data_root), "--exec-root", str(self.exec_root),
            "--bridge", self.bridge, "--bip", self.subnet, "--cgroup-parent", self.cgroup_parent,
            "--pidfile", str(self.work / "pid"), *self.options,
        ]  # fmt: skip
        self.process = started(command, self.work / "daemon.log", env=self.environment, patience=patience, start_new_session=True)
        return self

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal and wait for the daemon's end."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)
        self.process = None

    def restart(self, number: int = signal.SIGKILL) -> None:
        self.kill(number)
        self.start()

    def call(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, timeout: float = 60
    ) -> Answer:
        """Make one request on a connection of its own."""
        connection = UnixHttp(self.sock, timeout)
        fields = dict(headers or {})
        data: bytes | None
        if body is None or isinstance(body, bytes):
            data = body
        else:
            data = json.dumps(body).encode()
            fields.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, data, fields)
            reply = connection.getresponse()
            return Answer(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Make a request that must succeed; return the decoded JSON, or the bytes."""
        answer = self.call(method, path, body, **more)
        assert answer.status < 400, f"{method} {path}: {answer}"
        if answer.headers.get("Content-Type", "").startswith("application/json") and answer.body:
            try:
                return answer.json
            except json.JSONDecodeError:
                return answer.body
        return answer.body

    def docker(
        self, *arguments: str, check: bool = True, input: bytes | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the real docker client against it."""
        done = subprocess.run(
            ["docker", "-H", self.host, *arguments], capture_output=True, input=input, timeout=timeout, check=False
        )
        if check:
            assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.returncode} {done.stderr.decode()}"
        return done

    def sampan(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run the `sampan` command against it."""
        done = subprocess.run([SAMPAN, "-H", self.host, *arguments], capture_output=True, timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"sampan {' '.join(arguments)}: {done.returncode} {done.stderr.decode()}"
        return done

    def import_busybox(self, name: str = "busybox") -> None:
        self.ok("POST", f"/images/create?fromSrc=-&repo={name}&tag=latest", busybox_rootfs())

    def create(self, *command: str, name: str = "", image: str = "busybox", **body: Any) -> str:
        query = f"?name={name}" if name else ""
        return str(self.ok("POST", f"/containers/create{query}", {"Image": image, "Cmd": list(command), **body})["Id"])

    def run(self, *command: str, **body: Any) -> tuple[int, bytes]:
        """Run a container to its end; return (exit code, output), and remove it."""
        container = self.create(*command, **{"Tty": True, **body})
        try:
            self.ok("POST", f"/containers/{container}/start")
            code = self.ok("POST", f"/containers/{container}/wait")["StatusCode"]
            output = self.call("GET", f"/containers/{container}/logs?stdout=1&stderr=1").body
        finally:
            self.ok("DELETE", f"/containers/{container}?force=1")
        return code, output.replace(b"\r\n", b"\n")

    def remove_all(self) -> None:
        for container in self.ok("GET", "/containers/json?all=1"):
            self.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")

    def close(self) -> None:
        """Remove every container, stop the daemon and take its roots and its bridge away."""
        if self.process is not None and self.process.poll() is None:
            self.remove_all()
            self.kill(signal.SIGTERM)
        self._log.close()
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True, check=False)
        for table in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout.splitlines():
            if self.bridge in table:
                subprocess.run(["nft", "delete", *table.split()], check=False)
        if not os.environ.get("SAMPAN_TEST_KEEP"):
            shutil.rmtree(self.work, ignore_errors=True)


def pings_while(sock: Path, work: list[threading.Thread]) -> list[float]:
    """Ping a daemon until the work has ended; return the seconds that each answer took."""
    waits = []
    connection = UnixHttp(sock)
    while alive := [one for one in work if one.is_alive()]:
        begun = time.monotonic()
        connection.request("GET", "/_ping")
        assert connection.getresponse().read() == b"OK"
        waits.append(time.monotonic() - begun)
        alive[0].join(0.01)
    connection.close()
    return waits
