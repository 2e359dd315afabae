"""Published ports are held: a bound socket keeps each host port for the container's life (SECURITY.md row 85).

The kernel carries the traffic (filters.py), nobody ever reads from these sockets; they make every other bind(2) fail
with EADDRINUSE, and they are how a port that somebody else has is noticed.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import ExitStack

from sampan.errors import Broken, InvalidRequest, Unsupported
from sampan.kernel.netns import read_sysctl
from sampan.network.records import PROTOCOLS, PortBinding, Published

_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),
}


class PortTaken(Broken):
    """The host port is somebody's already."""


def check(binding: PortBinding) -> str:
    """Return the host address to bind ("" when only IPv6 was asked for, which is not served yet).

    Raises InvalidRequest for a port, protocol or address that cannot be, Unsupported for an IPv6 address.
    """
    if binding.proto not in PROTOCOLS:
        raise InvalidRequest(f"invalid proto: {binding.proto!r}")
    if not 1 <= binding.container_port <= 65535:
        raise InvalidRequest(f"invalid container port: {binding.container_port}")
    if not (binding.first == binding.last == 0 or 1 <= binding.first <= binding.last <= 65535):
        raise InvalidRequest(f"invalid host port range: {binding.first}-{binding.last}")
    text = binding.host_ip.strip("[]")
    if not text:
        return "0.0.0.0"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidRequest(f"invalid host address: {binding.host_ip!r}") from None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if int(address) == 0:
        return ""
    raise Unsupported(f"publishing on the IPv6 address {address} is not supported yet")


def bind(proto: str, host_ip: str, port: int) -> socket.socket:
    """Return a socket that holds the port.  Raises OSError (EADDRINUSE, EADDRNOTAVAIL ...)."""
    kind, number = _KINDS[proto]
    try:
        held = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        raise Unsupported(f"this kernel has no {proto}: {error.strerror}") from None
    try:
        try:
            held.bind((host_ip, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or kind != socket.SOCK_STREAM:
                raise
            # Perhaps only connections in TIME_WAIT are in the way.  SO_REUSEADDR steps over those, and listen(2)
            # then fails beside another listener and keeps others off, reuse or not.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((host_ip, port))
            held.listen(1)
        if kind == socket.SOCK_DGRAM:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the kernel's least
    except BaseException:
        held.close()
        raise
    return held


class Ports:
    """The ports that this daemon holds; not thread-safe, its owner holds a lock."""

    def __init__(self) -> None:
        self._held: dict[str, list[socket.socket]] = {}
        self._ours: dict[tuple[str, int], set[str]] = {}
        self._keys: dict[str, list[tuple[str, int, str]]] = {}
        self._next: dict[str, int] = {}

    def hold(self, owner: str, wanted: list[PortBinding]) -> list[Published]:
        """Hold a host port for each binding, all or none.

        Raises PortTaken with Docker's words, InvalidRequest, Unsupported.
        """
        done = []
        with ExitStack() as undo:
            undo.callback(self.release, owner)
            for binding in wanted:
                host_ip = check(binding)
                if host_ip:
                    port = self._find(owner, binding, host_ip)
                    done.append(Published(binding.container_port, binding.proto, host_ip, port))
            undo.pop_all()
        return done

    def hold_again(self, owner: str, published: tuple[Published, ...]) -> None:
        """Hold exactly these, all or none (a restarted daemon).  Raises PortTaken."""
        self.hold(owner, [PortBinding(p.container_port, p.proto, p.host_ip, p.host_port, p.host_port) for p in published])

    def release(self, owner: str) -> None:
        """Give up what `owner` holds; nothing when it holds nothing."""
        for held in self._held.pop(owner, ()):
            held.close()
        for proto, port, host_ip in self._keys.pop(owner, ()):
            self._ours[proto, port].discard(host_ip)

    def close(self) -> None:
        for owner in list(self._held):
            self.release(owner)

    def _find(self, owner: str, binding: PortBinding, host_ip: str) -> int:
        proto = binding.proto
        if binding.first:
            candidates = list(range(binding.first, binding.last + 1))
        else:
            low, high = (int(word) for word in read_sysctl("ipv4/ip_local_port_range").split())
            start = min(max(self._next.get(proto, low), low), high)
            candidates = [*range(start, high + 1), *range(low, start)]
        problem: PortTaken | None = None
        for port in candidates:
            try:
                self._bind(owner, proto, host_ip, port)
            except PortTaken as error:
                problem = error
                continue
            if not binding.first:
                self._next[proto] = port + 1
            return port
        if problem is not None and len(candidates) == 1:
            raise problem
        raise PortTaken(f"Bind for {host_ip}:{candidates[0]}-{candidates[-1]} failed: all ports are allocated")

    def _bind(self, owner: str, proto: str, host_ip: str, port: int) -> None:
        users = self._ours.setdefault((proto, port), set())
        if users and (host_ip in users or "0.0.0.0" in users or host_ip == "0.0.0.0"):
            raise PortTaken(f"Bind for {host_ip}:{port} failed: port is already allocated")
        try:
            held = bind(proto, host_ip, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(f"failed to bind host port {host_ip}:{port}/{proto}: address already in use") from None
            raise Broken(f"failed to bind host port {host_ip}:{port}/{proto}: {error.strerror}") from error
        self._held.setdefault(owner, []).append(held)
        self._keys.setdefault(owner, []).append((proto, port, host_ip))
        users.add(host_ip)
