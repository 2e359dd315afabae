"""`sampan registry serve` as a process."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from support.daemon import SAMPAN
from support.ready import started


class Served:
    """A registry of ours on a loopback port, on a data root of its own."""

    def __init__(self, *options: str) -> None:
        self.work = Path(tempfile.mkdtemp(prefix="sampanserved-", dir="/var/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self.options = list(options)
        self.process: subprocess.Popen[bytes] | None = None
        self.tls = "--tlscert" in options

    def start(self) -> Served:
        command = [str(SAMPAN), "registry", "serve", "--listen", self.host, "--data-root", str(self.work / "data"), *self.options]
        self.process = started(command, self.work / "log")
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)

    def __enter__(self) -> Served:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Make one request; header names have "_" for "-"."""
        made: http.client.HTTPConnection
        if self.tls:
            made = http.client.HTTPSConnection(self.host, timeout=20, context=ssl._create_unverified_context())
        else:
            made = http.client.HTTPConnection(self.host, timeout=20)
        try:
            made.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = made.getresponse()
            return reply.status, dict(reply.headers), reply.read()
        finally:
            made.close()
