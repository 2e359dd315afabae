"""A daemon for who has none: `sampan run` starts it when the default socket has nobody behind it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.cli.main import Invocation

SECONDS = 30.0
LOG = "/var/log/sampan.log"


def start_for(call: Invocation) -> bool:
    """Start a daemon at the default socket and wait until it answers; False when that is not ours to do.

    Readiness is told through NOTIFY_SOCKET (sd_notify(3)); the daemon's own end is seen through a pidfd.
    """
    if not call.is_default_host or os.geteuid() != 0:
        return False
    print("sampan: no daemon is running; starting one (sampan daemon)", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="sampan-") as folder:  # 0700: nobody else tells us lies
        path = f"{folder}/ready"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(path)
            os.makedirs(Path(LOG).parent, exist_ok=True)
            log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            try:
                daemon = subprocess.Popen(
                    [sys.executable, "-IB", "-c", "from sampan.cli.main import entry; entry()", "daemon"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                    env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": path},
                )  # fmt: skip
            finally:
                os.close(log)
            return _ready(ready, daemon)


def _ready(ready: socket.socket, daemon: subprocess.Popen[bytes]) -> bool:
    from sampan.cli.main import Exit

    end = os.pidfd_open(daemon.pid)
    try:
        while True:
            seen, _, _ = select.select([ready.fileno(), end], [], [], SECONDS)
            if ready.fileno() in seen and b"READY=1" in ready.recv(4096).split(b"\n"):
                daemon.returncode = 0  # it goes on without us; Popen must not warn that it does
                return True
            if end in seen or not seen:
                raise Exit(125, f"the daemon did not start; its log is {LOG}")
    finally:
        os.close(end)
