"""Servers as processes: started, and known to serve before anybody asks them."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 60.0


class NotReady(RuntimeError):
    """A server that ended, with `status`, before it served."""

    def __init__(self, command: Sequence[Any], status: int, words: str) -> None:
        super().__init__(f"{command[0]} did not get ready ({status}):\n{words[-4000:]}")
        self.status = status


def started(
    command: Sequence[Any], log: Path, *, env: Mapping[str, str] = os.environ, patience: float = PATIENCE, **more: Any
) -> subprocess.Popen[bytes]:
    """Start a server that says when it is ready (sd_notify(3): Sampan's and dockerd), its words appended to `log`.

    Raises NotReady with its last words when it ends, or is ended after `patience` seconds.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sampantest-", dir="/var/tmp") as place,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
        log.open("ab") as words,
    ):
        told = f"{place}/notify"
        ready.bind(told)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env={**env, "NOTIFY_SOCKET": told}, **more
        )
        end = os.pidfd_open(process.pid)
        try:
            seen, _, _ = select.select([ready, end], [], [], patience)
        finally:
            os.close(end)
        if ready not in seen:
            process.send_signal(signal.SIGTERM)  # nothing happens when it has ended by itself
            raise NotReady(command, process.wait(PATIENCE), log.read_text(errors="replace"))
    return process


def until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens on a loopback port, for servers that tell nobody.  Raises RuntimeError when `process` ends."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"{process.args!r} does not listen on {port}") from None
            time.sleep(0.02)  # the kernel has no notice of a listener
