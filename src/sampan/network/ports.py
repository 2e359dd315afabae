"""Published ports are held: a bound socket keeps each host port for the container's life (SECURITY.md row 85).

The kernel carries the traffic (filters.py), nobody ever reads from these sockets; they make every other bind(2) fail
with EADDRINUSE, and they are how a port that somebody else has is noticed.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from sampan.errors import Broken, InvalidRequest, Unsupported
from sampan.kernel.netns import read_sysctl
from sampan.network.records import LOOPBACK6, PROTOCOLS, PortBinding, Published

_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),
}


_BACKLOG = 1024


class PortTaken(Broken):
    """The host port is somebody's already."""


def check(binding: PortBinding, default: str = "0.0.0.0", *, four: bool = True, six: bool = False) -> list[str]:
    """Return the host addresses to bind; empty when only IPv6 was asked for where there is none.

    default: the address when none is asked for; with 0.0.0.0 `::` as well where the container has IPv6.
    Raises InvalidRequest for a port, protocol or address that cannot be, or one of an IP version the container has not.
    """
    if binding.proto not in PROTOCOLS:
        raise InvalidRequest(f"invalid proto: {binding.proto!r}")
    if not 1 <= binding.container_port <= 65535:
        raise InvalidRequest(f"invalid container port: {binding.container_port}")
    if not (binding.first == binding.last == 0 or 1 <= binding.first <= binding.last <= 65535):
        raise InvalidRequest(f"invalid host port range: {binding.first}-{binding.last}")
    text = binding.host_ip.strip("[]")
    if not text and default == "0.0.0.0":
        return [*(["0.0.0.0"] if four else []), *(["::"] if six else [])]
    text = text or default
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidRequest(f"invalid host address: {binding.host_ip!r}") from None
    if address == LOOPBACK6:  # carried by hand, whichever address the container has (relay.py)
        if binding.proto == "sctp":
            raise Unsupported("publishing an sctp port on ::1 is not supported")
        return [str(address)]
    if address.version == 4 and four:
        return [str(address)]
    if address.version == 6 and six:
        return [str(address)]
    if int(address) == 0:
        return []
    raise Unsupported(f"publishing on {address}: the container has no IPv{address.version} address on this network")


def bind(proto: str, host_ip: str, port: int, *, again: bool = False) -> socket.socket:
    """Return a socket that holds the port.  Raises OSError (EADDRINUSE, EADDRNOTAVAIL ...).

    again: an earlier daemon's may hold it still: on ::1, where the answering process goes on listening.
    """
    carried = host_ip == str(LOOPBACK6)
    kind, number = _KINDS[proto]
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    try:
        held = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    except OSError as error:
        raise Unsupported(f"this kernel has no {proto}: {error.strerror}") from None
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if carried and again:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
        if carried:
            # Set after bind(2), it lets nobody in who is not of the same user and says so too: the next daemon.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if kind == socket.SOCK_STREAM:
                # For the connections to inherit: in TIME_WAIT they are stepped over only if they had it themselves.
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held.listen(_BACKLOG)
        elif kind == socket.SOCK_DGRAM:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the kernel's least
    except BaseException:
        held.close()
        raise
    return held


Key = tuple[str, int, str]


class Ports:
    """The ports that this daemon holds; not thread-safe, its owner holds a lock."""

    def __init__(self) -> None:
        self._held: dict[str, dict[Key, socket.socket]] = {}
        self._ours: dict[tuple[str, int], set[str]] = {}
        self._next: dict[str, int] = {}

    def hold(self, owner: str, wanted: Sequence[tuple[PortBinding, Sequence[str]]], *, again: bool = False) -> list[Published]:
        """Hold, besides what `owner` has, a host port for each binding at each of its host addresses, all or none.

        Raises PortTaken with Docker's words, InvalidRequest, Unsupported.
        """
        done: list[Published] = []
        with ExitStack() as undo:
            for binding, hosts in wanted:
                if not hosts:
                    continue
                port = self._find(owner, binding, hosts, undo, again=again)
                done += [Published(binding.container_port, binding.proto, host, port) for host in hosts]
            undo.pop_all()
        return done

    def hold_again(self, owner: str, published: Sequence[Published]) -> None:
        """Hold exactly these, all or none (a restarted daemon).  Raises PortTaken."""
        wanted = [PortBinding(p.container_port, p.proto, p.host_ip, p.host_port, p.host_port) for p in published if p.host_port]
        self.hold(owner, [(one, [one.host_ip]) for one in wanted], again=True)

    def socket(self, owner: str, port: Published) -> socket.socket:
        """Return the socket (borrowed) that holds a port of `owner`.  Raises KeyError."""
        return self._held[owner][port.proto, port.host_port, port.host_ip]

    def release(self, owner: str, published: Sequence[Published] | None = None) -> None:
        """Give up what `owner` holds, or only these; nothing when it holds nothing."""
        keys = None if published is None else [(p.proto, p.host_port, p.host_ip) for p in published]
        for key in list(self._held.get(owner, {})) if keys is None else keys:
            self._drop(owner, key)

    def _drop(self, owner: str, key: Key) -> None:
        held = self._held.get(owner, {}).pop(key, None)
        if held is not None:
            held.close()
            proto, port, host_ip = key
            self._ours[proto, port].discard(host_ip)
        if not self._held.get(owner):
            self._held.pop(owner, None)

    def close(self) -> None:
        for owner in list(self._held):
            self.release(owner)

    def _find(self, owner: str, binding: PortBinding, hosts: Sequence[str], undo: ExitStack, *, again: bool) -> int:
        proto = binding.proto
        if binding.first:
            candidates = list(range(binding.first, binding.last + 1))
        else:
            low, high = (int(word) for word in read_sysctl("ipv4/ip_local_port_range").split())
            start = min(max(self._next.get(proto, low), low), high)
            candidates = [*range(start, high + 1), *range(low, start)]
        problem: PortTaken | None = None
        for port in candidates:
            with ExitStack() as tried:
                try:
                    for host_ip in hosts:
                        self._bind(owner, (proto, port, host_ip), again=again)
                        tried.callback(self._drop, owner, (proto, port, host_ip))
                except PortTaken as error:
                    problem = error
                    continue
                undo.push(tried.pop_all())
            if not binding.first:
                self._next[proto] = port + 1
            return port
        if problem is not None and len(candidates) == 1:
            raise problem
        raise PortTaken(f"Bind for {hosts[0]}:{candidates[0]}-{candidates[-1]} failed: all ports are allocated")

    def _bind(self, owner: str, key: Key, *, again: bool) -> None:
        proto, port, host_ip = key
        users = self._ours.setdefault((proto, port), set())
        every = "::" if ":" in host_ip else "0.0.0.0"
        beside = {user for user in users if (":" in user) == (":" in host_ip)}
        if beside and (host_ip in beside or every in beside or host_ip == every):
            raise PortTaken(f"Bind for {host_ip}:{port} failed: port is already allocated")
        try:
            held = bind(proto, host_ip, port, again=again)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(f"failed to bind host port {host_ip}:{port}/{proto}: address already in use") from None
            raise Broken(f"failed to bind host port {host_ip}:{port}/{proto}: {error.strerror}") from error
        self._held.setdefault(owner, {})[key] = held
        users.add(host_ip)
