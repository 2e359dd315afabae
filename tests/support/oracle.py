"""A real dockerd of the tests' own, to be asked what Docker does: data root, socket and bridge apart from everybody else's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from support.daemon import Answer, UnixHttp, busybox_rootfs
from support.ready import started


def missing() -> str:
    """Return what this host lacks for an oracle, "" when it has everything."""
    if os.geteuid() != 0:
        return "root"
    for program in ("dockerd", "containerd", "runc", "ip"):
        if shutil.which(program) is None:
            return program
    return ""


class Oracle:
    """`dockerd` as a process, asked as support.daemon.Daemon is."""

    def __init__(self) -> None:
        self.work = Path(tempfile.mkdtemp(prefix="sampanoracle-", dir="/var/tmp"))
        self.sock = self.work / "d.sock"
        self.bridge = f"smporc{os.getpid() % 10000}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.sock}"

    def start(self) -> Oracle:
        for words in (("add", self.bridge, "type", "bridge"), ("set", self.bridge, "up")):
            subprocess.run(["ip", "link", *words], check=True)
        subprocess.run(["ip", "addr", "add", f"10.{60 + os.getpid() % 40}.7.1/24", "dev", self.bridge], check=True)
        command = [
            "dockerd", "--data-root", self.work / "data", "--exec-root", self.work / "exec", "--pidfile", self.work / "pid",
            "-H", self.host, "--bridge", self.bridge, "--iptables=false", "--ip-masq=false", "--cgroup-parent", "/sampanoracle",
        ]  # fmt: skip
        self.process = started(command, self.work / "log", start_new_session=True)
        return self

    def call(
        self, method: str, path: str, body: bytes | None = None, *, headers: dict[str, str] | None = None, timeout: float = 60
    ) -> Answer:
        connection = UnixHttp(self.sock, timeout)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return Answer(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def import_busybox(self) -> None:
        assert self.call("POST", "/images/create?fromSrc=-&repo=busybox&tag=latest", busybox_rootfs()).status == 200

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["docker", "-H", self.host, *arguments], capture_output=True, timeout=60, check=False)

    def close(self) -> None:
        """Remove its containers, stop it, and take away what it leaves."""
        if self.process is not None and self.process.poll() is None:
            for container in self.call("GET", "/containers/json?all=1").json:
                self.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True, check=False)
        for path in Path("/sys/fs/cgroup").glob("*/sampanoracle"):
            for here, _, _ in os.walk(path, topdown=False):  # BuildKit's steps leave groups of their own
                os.rmdir(here)
        with open("/proc/self/mountinfo") as table:
            points = [line.split()[4] for line in table if str(self.work) in line.split()[4]]
        for point in reversed(points):
            subprocess.run(["umount", "-l", point], capture_output=True, check=False)
        shutil.rmtree(self.work, ignore_errors=True)
