"""The inside of a container's namespace: links with addresses, routes and settings."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable
from ipaddress import ip_address

from sampan.errors import Broken, InvalidRequest
from sampan.kernel import netns, rtnl
from sampan.kernel.netlink import Request
from sampan.network.records import Endpoint

SYSCTLS = "com.docker.network.endpoint.sysctls"
IFNAME = "com.docker.network.endpoint.ifname"
_GONE = frozenset({errno.ESRCH, errno.ENODEV, errno.ENOENT})
_PLACES = ("ipv4.conf.IFNAME.", "ipv6.conf.IFNAME.", "ipv4.neigh.IFNAME.", "ipv6.neigh.IFNAME.", "mpls.conf.IFNAME.")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


def sysctls(options: dict[str, str]) -> list[tuple[str, str]]:
    """Return the settings of an endpoint as (path below /proc/sys/net with IFNAME in it, value).  Raises InvalidRequest.

    Only settings of the endpoint's own interface, and no character that could lead elsewhere (SECURITY.md row 11).
    The docker command makes small letters of an endpoint's options, so IFNAME comes as ifname too.
    """
    made = []
    for text in options.get(SYSCTLS, "").split(","):
        if not text:
            continue
        name, equals, value = text.strip().partition("=")
        rest = name.removeprefix("net.").replace(".ifname.", ".IFNAME.", 1)
        place = next((place for place in _PLACES if rest.startswith(place)), None)
        last = rest[len(place) :] if place else ""
        plain = value.isascii() and value.isprintable() and len(value) <= 64
        if not (equals and place and last and set(last) <= _NAME and value and plain):
            raise InvalidRequest(f"unrecognised or invalid network interface sysctl setting: {text[:96]!r}")
        made.append((rest.replace(".", "/"), value))
    return made


def link_state(endpoint: Endpoint) -> None:
    """Before the link is up: IPv6 off where the network has none (row 77, CVE-2024-32473), no advertisements believed."""
    place = f"ipv6/conf/{endpoint.ifname}"
    on = {"disable_ipv6": "0", "accept_ra": "0", "accept_dad": "0", "addr_gen_mode": "0"}
    wanted = on if endpoint.ip6 else {"disable_ipv6": "1"}
    for name, value in wanted.items():
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            netns.write_sysctl(f"{place}/{name}", value)
    for path, value in sysctls(endpoint.options):
        try:
            netns.write_sysctl(path.replace("IFNAME", endpoint.ifname), value)
        except OSError as error:
            raise InvalidRequest(f"setting {path} of endpoint {endpoint.id[:12]}: {error.strerror}") from None


def configure(endpoint: Endpoint, netns_fd: int, routes: frozenset[int]) -> None:
    """Loopback up; the endpoint's interface with its addresses, up; default routes for the IP versions of `routes`."""
    with netns.inside(netns_fd):
        link_state(endpoint)
        route = rtnl.Route()
    try:
        link = route.link(endpoint.ifname)
        if link is None:
            raise Broken(f"{endpoint.ifname} of endpoint {endpoint.id[:12]} vanished")
        route.talk(
            [
                rtnl.link_up(1),  # lo is always the first
                *(rtnl.new_address(link.index, address) for address in endpoint.addresses),
                rtnl.link_up(link.index),
                *_defaults(endpoint, link.index, routes),
            ]
        )
    finally:
        route.close()


def _defaults(endpoint: Endpoint, index: int, routes: Iterable[int]) -> list[Request]:
    gateways = {4: endpoint.gateway, 6: endpoint.gateway6}
    return [rtnl.default_route(ip_address(gateways[version]), index) for version in sorted(routes) if gateways[version]]


def reroute(netns_fd: int, four: Endpoint | None, six: Endpoint | None) -> None:
    """Lead the namespace's default routes by these endpoints; None is no route.  Links that are gone are passed over."""
    with netns.inside(netns_fd):
        route = rtnl.Route()
    try:
        for version, endpoint in ((4, four), (6, six)):
            route.talk([rtnl.no_default_route(version)], tolerate=_GONE)
            link = route.link(endpoint.ifname) if endpoint is not None else None
            if endpoint is not None and link is not None:
                route.talk(_defaults(endpoint, link.index, (version,)))
    finally:
        route.close()


def remove_link(netns_fd: int, name: str) -> None:
    """Delete a link of the namespace; one that is not there is passed over."""
    with netns.inside(netns_fd):
        route = rtnl.Route()
    try:
        route.talk([rtnl.delete_link(name)], tolerate=_GONE)
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
