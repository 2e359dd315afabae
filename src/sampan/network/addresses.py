"""Which subnets a network has, and which address a container gets: the lowest free one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from sampan.errors import Forbidden, InvalidRequest, Unavailable
from sampan.network.records import Subnet

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Docker's default pools, in its order (caps.md 11): 172.17-172.31 as /16, then 192.168 in sixteen /20.
POOLS: tuple[tuple[Network, int], ...] = (
    *((IPv4Network(f"172.{second}.0.0/16"), 16) for second in range(17, 32)),
    (IPv4Network("192.168.0.0/16"), 20),
)
FULL = "all predefined address pools have been fully subnetted"


def parse_pool(text: str) -> tuple[Network, int]:
    """Return (base, prefix length of its parts) of `base=CIDR,size=N`.  Raises InvalidRequest."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    try:
        base, size = ip_network(fields["base"]), int(fields["size"])
    except (KeyError, ValueError):
        raise InvalidRequest(f"invalid default address pool {text[:64]!r}: wanted base=CIDR,size=PREFIX") from None
    if set(fields) != {"base", "size"} or not base.prefixlen <= size <= base.max_prefixlen - 2 or size - base.prefixlen > 16:
        raise InvalidRequest(f"invalid default address pool {text[:64]!r}: size is no prefix length of parts of the base")
    return base, size


def _parts(pools: Iterable[tuple[Network, int]], version: int) -> Iterator[Network]:
    for base, size in pools:
        if base.version == version:
            yield from base.subnets(new_prefix=size)


def choose_network(pools: Iterable[tuple[Network, int]], version: int, taken: Iterable[Network]) -> Network:
    """Return the first part of `pools` that overlaps none of `taken`.  Raises InvalidRequest when none is left."""
    used = [other for other in taken if other.version == version]
    for part in _parts(pools, version):
        if not any(overlap(part, other) for other in used):
            return part
    raise InvalidRequest(FULL)


def overlap(one: Network, other: Network) -> bool:
    """Return whether two networks have an address in common."""
    return one.version == other.version and (one.network_address in other or other.network_address in one)


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
    """The addresses of one subnet that are taken; not thread-safe, its owner holds a lock.

    The gateway and the auxiliary addresses are taken from the start and never freed.
    """

    def __init__(self, subnet: Subnet) -> None:
        self.record = subnet
        self.network: Network = ip_network(subnet.subnet)
        self.gateway = subnet.way_out
        first, last = int(self.network.network_address) + 1, int(self.network.broadcast_address)
        last -= self.network.version == 4
        if self.network.prefixlen >= self.network.max_prefixlen - 1:  # /31 and /127: RFC 3021, RFC 6164
            first, last = int(self.network.network_address), int(self.network.broadcast_address)
        self._first, self._last = first, last
        inner = ip_network(subnet.ip_range) if subnet.ip_range else self.network
        self._low = max(first, int(inner.network_address))
        self._begin, self._end = self._low, min(last, int(inner.broadcast_address))
        fixed = [text for text in (subnet.gateway, *subnet.aux.values()) if text]
        self._fixed = {int(ip_address(text)) for text in fixed}
        self._taken = set(self._fixed)

    def __contains__(self, address: Address) -> bool:
        return address in self.network

    def take(self, wanted: str | None = None) -> Address:
        """Take the lowest free address, or `wanted`.

        Raises InvalidRequest for an address outside the subnet, Forbidden for a taken one, Unavailable when none is left.
        """
        if wanted is not None:
            return self._take_this(wanted)
        for number in range(self._low, self._end + 1):
            if number not in self._taken:
                self._taken.add(number)
                self._low = number + 1
                return self._address(number)
        raise Unavailable(f"no available IPv{self.network.version} addresses on this network's address pools: {self.network}")

    def free(self) -> bool:
        """Return whether `take` would find an address."""
        return any(number not in self._taken for number in range(self._low, self._end + 1))

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.network.version == 4 else IPv6Address(number)

    def _take_this(self, wanted: str) -> Address:
        try:
            address = ip_address(wanted)
        except ValueError:
            address = None
        if address is None or address.version != self.network.version:
            raise InvalidRequest(f"invalid IPv{self.network.version} address: {wanted[:64]!r}") from None
        if not self._first <= int(address) <= self._last:
            raise InvalidRequest(f"no configured subnet or ip-range contain the IP address {address}")
        if int(address) in self._taken:
            raise Forbidden(f"Address already in use: {address}")
        self._taken.add(int(address))
        return address

    def adopt(self, address: str) -> None:
        """Note an address as taken, whoever may have it already (a restarted daemon)."""
        self._taken.add(int(ip_address(address)))

    def give_back(self, address: str) -> None:
        """Free an address; one that is not taken, or is the gateway's or an auxiliary one, is passed over."""
        number = int(ip_address(address))
        if number not in self._fixed:
            self._taken.discard(number)
            self._low = min(self._low, max(number, self._begin))


def mac_of(address: Address) -> str:
    """Return the MAC that goes with an address: 02:42 and its last four bytes.

    Whoever gets a reused address has the same MAC, so no neighbour's ARP entry is ever stale.
    """
    return (b"\x02\x42" + address.packed[-4:]).hex(":")


def link_local_of(mac: str) -> IPv6Address:
    """Return the IPv6 link-local address that the kernel makes of a MAC (EUI-64, RFC 4291 appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:])
