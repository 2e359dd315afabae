"""Which subnet a bridge has, and which address a container gets: the lowest free one."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from sampan.errors import Conflict, InvalidRequest, Unavailable

# Docker's default pools, in its order (caps.md 11): 172.17-172.31 as /16, then 192.168 in sixteen /20.
POOLS = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Interface:
    """Return the gateway (the first address) of the first pool that overlaps none of `taken`.

    Raises Unavailable when none is left.
    """
    used = list(taken)
    for pool in POOLS:
        if not any(pool.overlaps(other) for other in used):
            return IPv4Interface((pool.network_address + 1, pool.prefixlen))
    raise Unavailable("all predefined address pools have been fully subnetted")


def parse_bip(text: str) -> IPv4Interface:
    """Return the bridge's address of `--bip ADDRESS/PREFIX`.  Raises InvalidRequest."""
    try:
        found = IPv4Interface(text)
    except ValueError:
        raise InvalidRequest(f"invalid bridge address {text!r}: wanted ADDRESS/PREFIX") from None
    network = found.network
    edge = found.ip in (network.network_address, network.broadcast_address)
    if not 8 <= network.prefixlen <= 30 or edge or found.ip.is_loopback or found.ip.is_multicast:
        raise InvalidRequest(f"invalid bridge address {text!r}: no address of a subnet between /8 and /30")
    return found


class Pool:
    """The addresses of one subnet that are taken; not thread-safe, its owner holds a lock."""

    def __init__(self, gateway: IPv4Interface) -> None:
        self.gateway = gateway
        self.network = gateway.network
        self._first = int(self.network.network_address) + 1
        self._last = int(self.network.broadcast_address) - 1
        self._taken = {int(gateway.ip)}
        self._low = self._first  # nothing below is free

    def take(self, wanted: str | None = None) -> IPv4Address:
        """Take the lowest free address, or `wanted`.

        Raises InvalidRequest for an address outside the subnet, Conflict for a taken one, Unavailable when none is left.
        """
        if wanted is not None:
            return self._take_this(wanted)
        for number in range(self._low, self._last + 1):
            if number not in self._taken:
                self._taken.add(number)
                self._low = number + 1
                return IPv4Address(number)
        raise Unavailable(f"no available IPv4 addresses on this network's address pools: {self.network}")

    def _take_this(self, wanted: str) -> IPv4Address:
        try:
            address = IPv4Address(wanted)
        except ValueError:
            raise InvalidRequest(f"invalid IPv4 address: {wanted!r}") from None
        if not self._first <= int(address) <= self._last:
            raise InvalidRequest(f"no configured subnet contains IP address {address}")
        if int(address) in self._taken:
            raise Conflict(f"Address already in use: {address}")
        self._taken.add(int(address))
        return address

    def give_back(self, address: str) -> None:
        """Free an address; one that is not taken is passed over, the gateway never freed."""
        number = int(IPv4Address(address))
        if number != int(self.gateway.ip):
            self._taken.discard(number)
            self._low = min(self._low, max(number, self._first))


def mac_of(address: IPv4Address) -> str:
    """Return the MAC that goes with an address: 02:42 and its bytes.

    Whoever gets a reused address has the same MAC, so no neighbour's ARP entry is ever stale.
    """
    return (b"\x02\x42" + address.packed).hex(":")
