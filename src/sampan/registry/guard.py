"""Where a registry may send us: to addresses of its own kind, and the address that was judged is the one dialled.

A registry names other hosts: the realm where tokens come from, the storage that it redirects to.  A public one must not
make the daemon talk to this host's loopback, to a cloud's metadata service, or to private networks (SECURITY.md rows 50, 51).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from sampan.errors import Forbidden

PUBLIC, PRIVATE, LOOPBACK, NEVER = range(4)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCALHOST = {"ip4": "127.0.0.1", "ip6": "::1"}


def zone(text: str) -> int:
    """Return what kind of address `text` is: PUBLIC, PRIVATE, LOOPBACK, or NEVER (link-local, multicast, unspecified)."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return zone(str(inner))
    if address.is_loopback:
        return LOOPBACK
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return NEVER
    return PUBLIC if address.is_global else PRIVATE


def literal_zone(name: str) -> int | None:
    """Return the zone of a literal address or of "localhost"; None for other names."""
    if name == "localhost":
        return LOOPBACK
    try:
        return zone(name)
    except ValueError:
        return None


class Guard:
    """What one registry's hosts are allowed to be.  home: the zone of the registry itself, known once it was resolved."""

    def __init__(self, host: str) -> None:
        self.home = literal_zone(host)

    def check(self, name: str) -> None:
        """Judge a host that the registry names, when it is a literal address.  Raises Forbidden."""
        found = literal_zone(name)
        if found is not None:
            self._judge(name, found)

    def _judge(self, name: str, found: int) -> None:
        if found == NEVER or found > (self.home if self.home is not None else PUBLIC):
            raise Forbidden(f"the registry points to {name[:200]}, an address that it has no business with")

    def resolver(self, *, foreign: bool) -> AbstractResolver:
        """Return aiohttp's resolver for the registry's own host, or for hosts that it names."""
        return _Resolver(self, foreign)


class _Resolver(AbstractResolver):
    def __init__(self, guard: Guard, foreign: bool) -> None:
        self._guard = guard
        self._foreign = foreign

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return the addresses to dial; all of them were judged.  Raises OSError, Forbidden."""
        if host == "localhost" or host.endswith(".localhost"):
            found: list[tuple[socket.AddressFamily, str]] = [
                (socket.AF_INET, _LOCALHOST["ip4"]), (socket.AF_INET6, _LOCALHOST["ip6"]),
            ]  # fmt: skip
            found = [one for one in found if family in (one[0], socket.AF_UNSPEC)]
        else:
            loop = asyncio.get_running_loop()
            rows: Any = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
            found = [(row[0], str(row[4][0])) for row in rows]
        zones = [zone(address) for _, address in found]
        if self._foreign:
            for (_, address), one in zip(found, zones, strict=True):
                self._guard._judge(f"{host} ({address})", one)
        elif zones and self._guard.home is None:
            self._guard.home = min(zones)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in found
        ]

    async def close(self) -> None:
        return None
