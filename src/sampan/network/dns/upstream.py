"""Whom to ask what is not known here: the servers of the container, or those of the host's resolv.conf as it is now."""

from __future__ import annotations

import os
import socket
import time

RESOLV = "/etc/resolv.conf"
_LOOK_AGAIN = 1.0  # seconds between looks at the file's time
_MOST = 3  # servers, as resolv.conf(5) has it


def family(server: str) -> int:
    return socket.AF_INET6 if ":" in server else socket.AF_INET


def valid(server: str) -> bool:
    """Return whether it is an address (an IPv6 one may have a scope)."""
    try:
        socket.inet_pton(family(server), server.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


class Upstreams:
    """The host's servers, read again when the file has changed."""

    def __init__(self, path: str = RESOLV) -> None:
        self._path = path
        self._looked = 0.0
        self._stamp: tuple[int, int] | None = None
        self._servers: list[str] = []

    def servers(self, own: list[str]) -> list[str]:
        """Return the servers to ask, in order; `own` are the container's (--dns)."""
        if own:
            return [server for server in own if valid(server)][:_MOST]
        now = time.monotonic()
        if now - self._looked > _LOOK_AGAIN:
            self._looked = now
            self._read()
        return self._servers

    def _read(self) -> None:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:
                lines = file.read(65536).splitlines()
        except OSError:
            self._servers, self._stamp = [], None
            return
        self._stamp = stamp
        words = [line.split() for line in lines]
        found = [one[1] for one in words if len(one) > 1 and one[0] == "nameserver"]
        self._servers = [server for server in found if valid(server)][:_MOST]
