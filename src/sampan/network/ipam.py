"""A new network's subnets: what was asked for, judged; what was not, chosen from the pools."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Network, ip_address, ip_network

from msgspec import structs

from sampan.errors import Forbidden, InvalidRequest
from sampan.network.addresses import Network, choose_network, overlap
from sampan.network.records import Subnet

OVERLAP = "invalid pool request: Pool overlaps with other one on this address space"


def local_pool(seed: str) -> tuple[Network, int]:
    """Return the pool of this host's own IPv6 networks: a unique local /48 (RFC 4193) in parts of /64."""
    return IPv6Network((b"\xfd" + hashlib.sha256(seed.encode()).digest()[:5] + bytes(10), 48)), 64


def judge(wanted: Sequence[Subnet]) -> None:
    """Refuse subnets that make no sense, all reasons at once.  Raises InvalidRequest."""
    problems = [text for one in wanted for text in _problems(one)]
    for number, one in enumerate(wanted):
        for other in wanted[:number]:
            if not problems and overlap(ip_network(one.subnet), ip_network(other.subnet)):
                problems.append(f"invalid subnet {one.subnet}: it overlaps with {other.subnet}")
    if problems:
        raise InvalidRequest("invalid network config:\n" + "\n".join(problems))


def _problems(one: Subnet) -> list[str]:
    try:
        network = ip_network(one.subnet, strict=False)
        if "/" not in one.subnet or "%" in one.subnet:
            raise ValueError(one.subnet)
    except ValueError:
        return [f"invalid subnet {one.subnet[:64]}: invalid CIDR block notation"]
    found = []
    if str(network) != one.subnet and network != ip_network(one.subnet, strict=False):
        return [f"invalid subnet {one.subnet}"]
    if "/" in one.subnet and ip_address(one.subnet.split("/")[0]) != network.network_address:
        found.append(f"invalid subnet {one.subnet}: it should be {network}")
    if network.is_multicast or network.is_loopback or network.prefixlen < 8:
        found.append(f"invalid subnet {one.subnet}: no addresses for containers")
    if one.ip_range:
        try:
            inner = ip_network(one.ip_range, strict=False)
            if inner.version != network.version or inner.network_address not in network or inner.prefixlen < network.prefixlen:
                found.append(f"invalid ip-range {one.ip_range}: parent subnet {network} doesn't contain ip-range")
            elif ip_address(one.ip_range.split("/")[0]) != inner.network_address:
                found.append(f"invalid ip-range {one.ip_range}: it should be {inner}")
        except ValueError:
            found.append(f"invalid ip-range {one.ip_range[:64]}: invalid CIDR block notation")
    for kind, text in (("gateway", one.gateway), *(("auxiliary address", text) for text in one.aux.values())):
        if not text:
            continue
        try:
            if "%" in text:
                raise ValueError(text)
            if ip_address(text) not in network:
                found.append(f"invalid {kind} {text}: parent subnet {network} doesn't contain this address")
        except ValueError:
            found.append(f"invalid {kind} {text[:64]}: invalid address")
    return found


class Space:
    """What addresses there are to choose from: pools, what other networks hold, what the host routes elsewhere."""

    def __init__(self, pools: Iterable[tuple[Network, int]], held: Iterable[Network], routed: Iterable[Network]) -> None:
        self._pools = tuple(pools)
        self._held = list(held)
        self._routed = list(routed)

    def plan(self, wanted: Sequence[Subnet], *, ipv4: bool, ipv6: bool) -> tuple[Subnet, ...]:
        """Return the network's subnets, each with a gateway.

        Raises InvalidRequest (bad subnets, no pool left), Forbidden in Docker's words for an overlap with another network.
        """
        judge(wanted)
        versions = {version for version, on in ((4, ipv4), (6, ipv6)) if on}
        made: list[Subnet] = []
        for one in wanted:
            network = ip_network(one.subnet)
            if network.version not in versions:
                word = "--ipv6" if network.version == 6 else "--ipv4"
                raise InvalidRequest(f"invalid network config:\ninvalid subnet {one.subnet}: {word} is not enabled")
            if any(overlap(network, other) for other in self._held):
                raise Forbidden(OVERLAP)
            made.append(_with_gateway(one, network))
        for version in sorted(versions - {ip_network(one.subnet).version for one in made}):
            network = choose_network(self._pools, version, [*self._held, *self._routed])
            made.append(_with_gateway(Subnet(subnet=str(network), chosen=False), network))
        return tuple(sorted(made, key=lambda one: ip_network(one.subnet).version))


def _with_gateway(one: Subnet, network: Network) -> Subnet:
    if one.gateway:
        return structs.replace(one, gateway=str(ip_address(one.gateway)))
    taken = {ip_address(text) for text in one.aux.values() if text}
    for number in range(1, 2 + len(taken)):
        address = network.network_address + number
        if address in network and address not in taken:
            return structs.replace(one, gateway=str(address))
    return one
