"""Sockets of the test's own inside running containers' network namespaces: nothing of theirs is needed, and nothing is guessed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sampan.kernel import netns
from support.daemon import Daemon


def socket_in(
    daemon: Daemon, container: str, kind: socket.SocketKind = socket.SOCK_STREAM, family: int = socket.AF_INET
) -> socket.socket:
    """Return a socket in the container's namespace."""
    pid = daemon.ok("GET", f"/containers/{container}/json")["State"]["Pid"]
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        with netns.inside(fd):
            made = socket.socket(family, kind)
    finally:
        os.close(fd)
    made.settimeout(5)
    return made


def listens(daemon: Daemon, container: str, port: int, address: str = "0.0.0.0") -> socket.socket:
    """Return a listening socket in the container's namespace."""
    made = socket_in(daemon, container, family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.bind((address, port))
    made.listen(16)
    return made


def reaches(daemon: Daemon, container: str, address: str, port: int, patience: float = 5) -> bool:
    """Return whether a TCP connection from the container comes about."""
    with socket_in(daemon, container, family=socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        client.settimeout(patience)
        try:
            client.connect((address, port))
        except OSError:
            return False
        return True


def pid_of_names(daemon: Daemon) -> int:
    """Return the daemon's answering process."""
    root = str(daemon.exec_root).encode()
    (found,) = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_names(entry, root)]
    return found


def _is_names(entry: Path, root: bytes) -> bool:
    try:
        return (entry / "comm").read_text() == "sampan-names\n" and root in (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
