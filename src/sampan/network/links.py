"""The bridge, and the inside of a container's namespace: links with addresses, routes and settings."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable

from sampan.errors import Broken, Conflict
from sampan.kernel import netns, rtnl
from sampan.network.addresses import choose_subnet, mac_of
from sampan.network.records import Endpoint

MTU = 1500


def make_bridge(
    route: rtnl.Route,
    name: str,
    bip: ipaddress.IPv4Interface | None,
    remembered: Callable[[], ipaddress.IPv4Interface | None],
) -> tuple[int, ipaddress.IPv4Interface]:
    """Make or adopt the bridge, up, with its address; return (index, address).

    The address is `bip`, else what the bridge has, else the remembered one, else the first free pool's.
    Raises Conflict when the name is another kind of link's, or the bridge has another address than `bip`.
    """
    link = route.link(name)
    if link is not None and link.kind != "bridge":
        raise Conflict(f"link {name} exists and is no bridge")
    found = route.addresses(link.index) if link is not None else []
    if found and bip is not None and bip not in found:
        raise Conflict(f"bridge {name} has the address {found[0]}, not {bip}")
    gateway = bip or (found[0] if found else remembered() or choose_subnet(route.routes()))
    if link is None:
        route.talk([rtnl.new_bridge(name, mac_of(gateway.ip), MTU)])
        link = route.link(name)
    if link is None:
        raise Broken(f"bridge {name} vanished while it was made")
    for setting, value in (("disable_ipv6", "1"), ("accept_ra", "0")):  # rows 77, 78
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            netns.write_sysctl(f"ipv6/conf/{name}/{setting}", value)
    netns.write_sysctl(f"ipv4/conf/{name}/route_localnet", "1")  # 127.0.0.1 to published ports; filters.py guards it
    if gateway not in found:
        route.talk([rtnl.new_address(link.index, gateway)])
    route.talk([rtnl.link_up(link.index)])
    return link.index, gateway


def configure(endpoint: Endpoint, netns_fd: int) -> None:
    """Inside: loopback up, eth0 with address, up, default route; no IPv6 on eth0 (row 77, CVE-2024-32473)."""
    with netns.inside(netns_fd):
        with contextlib.suppress(FileNotFoundError):
            netns.write_sysctl("ipv6/conf/eth0/disable_ipv6", "1")
        route = rtnl.Route()
    try:
        link = route.link("eth0")
        if link is None:
            raise Broken(f"eth0 of endpoint {endpoint.id[:12]} vanished")
        route.talk(
            [
                rtnl.link_up(1),  # lo is always the first
                rtnl.new_address(link.index, endpoint.interface),
                rtnl.link_up(link.index),
                rtnl.default_route(ipaddress.IPv4Address(endpoint.gateway), link.index),
            ]
        )
    finally:
        route.close()


def loopback_up(netns_fd: int) -> None:
    """Bring up loopback in a namespace that has no other link (`--network none`)."""
    with netns.inside(netns_fd):
        route = rtnl.Route()
    try:
        route.talk([rtnl.link_up(1)])
    finally:
        route.close()
