"""The bridge driver: a bridge on the host, a veth pair for each endpoint, elements in the firewall."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
from collections.abc import Sequence
from contextlib import ExitStack

from msgspec import structs

from sampan.errors import Broken, Conflict, InvalidRequest
from sampan.kernel import netns, rtnl
from sampan.network import inside, shaping
from sampan.network.addresses import mac_of
from sampan.network.defaults import MTU
from sampan.network.filters import Zone
from sampan.network.host import Host
from sampan.network.records import BRIDGE, MTU_OPTION, Endpoint, NetworkInfo

HOST_IPV4, HOST_IPV6 = "com.docker.network.host_ipv4", "com.docker.network.host_ipv6"
PREFIX = "com.docker.network.container_iface_prefix"
GUARD = "sampan.guard"  # "false": containers may send with others' addresses (gateways, virtual machines)
TRACK = "sampan.track"  # "true": connections within the network are tracked, for others' rules about them
_BOOLEANS = ("enable_icc", "enable_ip_masquerade", "inhibit_ipv4", "default_bridge")
_TRUTH = ("1", "t", "true", "0", "f", "false", "")
_MADE = re.compile(r"veth[0-9a-f]{8}", re.ASCII)
_MODES = ("nat", "nat-unprotected", "routed", "isolated")


class Bridge:
    """See driver.Driver."""

    addresses = True
    publishes = True
    macs = True

    def __init__(self, host: Host) -> None:
        self._host = host
        self._index: dict[str, int] = {}

    def check(self, info: NetworkInfo) -> NetworkInfo:
        """Judge the options; name the link.  Raises InvalidRequest, Unsupported, Conflict."""
        options = info.options
        for key in (*(f"{BRIDGE}{name}" for name in _BOOLEANS), GUARD, TRACK):
            if options.get(key, "").lower() not in _TRUTH:
                raise InvalidRequest(f"invalid value for option {key}: {options[key][:32]!r} is no boolean")
        for version in (4, 6):
            mode = info.mode(version)
            if mode not in _MODES:
                raise InvalidRequest(f"unknown gateway mode {mode[:32]!r}: one of {', '.join(_MODES)}")
            if mode == "isolated" and not info.internal:
                raise InvalidRequest("gateway mode 'isolated' can only be used for an internal network")
        for key, versions in ((f"{BRIDGE}host_binding_ipv4", (4, 6)), (HOST_IPV4, (4,)), (HOST_IPV6, (6,))):
            _judge_address(key, options.get(key, ""), versions)
        name = options.get(f"{BRIDGE}name", "") or f"br-{info.id[:12]}"
        try:
            for one in (name, *_trusted(info)):
                rtnl.check_name(one)
            if PREFIX in options:
                rtnl.check_name(f"{options[PREFIX]}100")
        except ValueError as error:
            raise InvalidRequest(f"invalid network option: {error}") from None
        link = self._host.route.link(name)
        if link is not None and link.kind != "bridge":
            raise Conflict(f"link {name} exists and is no bridge")
        return structs.replace(info, link=name, mtu=_mtu(options), made_link=link is None)

    def mac(self, info: NetworkInfo) -> str:
        return ""

    def zone(self, info: NetworkInfo) -> Zone:
        """Return the network as the firewall knows it."""
        return Zone(
            bridge=info.link, icc=info.enabled("enable_icc"), masquerade=info.enabled("enable_ip_masquerade"),
            internal=info.internal, guarded=info.options.get(GUARD, "").lower() not in ("0", "f", "false"), mode=info.mode(4),
            mode6=info.mode(6), ipv6=info.ipv6, source=info.options.get(HOST_IPV4, ""),
            source6=info.options.get(HOST_IPV6, ""), trusted=tuple(_trusted(info)),
            tracked=info.options.get(TRACK, "").lower() in ("1", "t", "true"),
        )  # fmt: skip

    def create(self, info: NetworkInfo) -> None:
        """Make or adopt the bridge, up, with its addresses; let the network into the firewall."""
        with ExitStack() as undo:
            self._host.forward()
            if info.ipv6:
                self._host.forward6()
            if self._make_link(info) and info.made_link:
                undo.callback(self._delete_link, info)
            self._host.firewall.add_zone(info.id, self.zone(info))
            undo.pop_all()

    def _make_link(self, info: NetworkInfo) -> bool:
        route, name = self._host.route, info.link
        gateways = _addresses(info)
        link = route.link(name)
        made = link is None
        if made:
            seed = gateways[0].ip if gateways else ipaddress.IPv4Address(int(info.id[:8], 16))
            route.talk([rtnl.new_bridge(name, mac_of(seed), info.mtu)])
            link = route.link(name)
        if link is None:
            raise Broken(f"bridge {name} vanished while it was made")
        if link.kind != "bridge":
            raise Conflict(f"link {name} exists and is no bridge")
        settings = {"disable_ipv6": "0" if info.ipv6 else "1", "accept_ra": "0", "accept_dad": "0"}  # rows 77, 78
        if info.mode(6) == "isolated":
            settings["addr_gen_mode"] = "1"  # no link-local address either
        for setting, value in settings.items():
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                netns.write_sysctl(f"ipv6/conf/{name}/{setting}", value)
        netns.write_sysctl(f"ipv4/conf/{name}/route_localnet", "1")  # 127.0.0.1 to published ports; filters.py guards it
        found: list[rtnl.Interface] = []
        if not made:
            found = [*route.addresses(link.index), *route.addresses6(link.index)]
        missing = [gateway for gateway in gateways if gateway not in found]
        route.talk([*(rtnl.new_address(link.index, gateway) for gateway in missing), rtnl.link_up(link.index)])
        self._index[info.id] = link.index
        return made

    def _delete_link(self, info: NetworkInfo) -> None:
        self._host.route.talk([rtnl.delete_link(info.link)], tolerate=frozenset({errno.ENODEV}))

    def remove(self, info: NetworkInfo) -> None:
        """Out of the firewall; the bridge goes when it was made for the network."""
        self._host.firewall.remove_zone(info.id)
        self._index.pop(info.id, None)
        if not info.made_link:
            return
        if info.link == f"br-{info.id[:12]}":
            self._host.doom(info.link)  # its name is never used again
        else:
            self._delete_link(info)

    def attach(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int, routes: frozenset[int]) -> None:
        """Make the pair; the host's end goes up last, so that nothing arrives before the inside is ready."""
        route = self._host.route
        index = self._index.get(info.id)
        if index is None:
            raise Broken(f"network {info.name} has no bridge")
        pair = rtnl.Veth(endpoint.veth_host, index, endpoint.mtu, netns_fd, endpoint.ifname, endpoint.mac)
        with ExitStack() as undo:
            route.talk([rtnl.new_veth(pair)])
            undo.callback(self._host.sweep, pair.name)
            # Bridge ports carry no address of their own; without this each would send its router solicitations in.
            with contextlib.suppress(FileNotFoundError):
                netns.write_sysctl(f"ipv6/conf/{pair.name}/disable_ipv6", "1")
            inside.configure(endpoint, netns_fd, routes)
            self.limit(endpoint, undo)
            route.talk([rtnl.port_up(pair.name, isolated=not info.enabled("enable_icc"))])
            undo.pop_all()

    def limit(self, endpoint: Endpoint, undo: ExitStack | None = None) -> None:
        """Make the link's limits what the endpoint's options say."""
        wanted = shaping.limits(endpoint.options)
        if undo is not None:
            if not any(wanted):
                return
            undo.callback(self._host.sweep, shaping.ifb(endpoint.veth_host))
        shaping.apply(self._host.route, endpoint.veth_host, wanted)

    def detach(self, info: NetworkInfo, endpoint: Endpoint) -> None:
        """Delete the pair, soon."""
        self._host.sweep(endpoint.veth_host)
        if shaping.limits(endpoint.options).outwards:
            self._host.sweep(shaping.ifb(endpoint.veth_host))

    def leave(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int) -> None:
        """Wait for the pair's deletion, so that the interface's name is free again."""
        if self._host.upkeep is not None:
            self._host.upkeep.settle()

    def repair(self, info: NetworkInfo, endpoints: Sequence[Endpoint]) -> bool:
        """The bridge with its addresses and settings; its endpoints' links, where they still are, back on it and up."""
        route = self._host.route
        link = route.link(info.link)
        has: set[str] = set()
        if link is not None:
            has = {str(one.ip) for one in route.addresses(link.index)} | {str(one.ip) for one in route.addresses6(link.index)}
        wanting = link is None or not link.up or not {str(one.ip) for one in _addresses(info)} <= has
        self._host.forward()
        if info.ipv6:
            self._host.forward6()
        self._make_link(info)
        for endpoint in endpoints:
            port = route.link(endpoint.veth_host)
            if port is not None and (port.master != self._index[info.id] or not port.up):
                route.talk([rtnl.set_master(endpoint.veth_host, self._index[info.id])])
                route.talk([rtnl.port_up(endpoint.veth_host, isolated=not info.enabled("enable_icc"))])
                wanting = True
        return wanting

    def present(self, endpoint: Endpoint) -> bool:
        """An attach that was broken off left the host's end down, which goes up last."""
        link = self._host.route.link(endpoint.veth_host)
        return link is not None and link.up

    def strangers(self, known: set[str]) -> list[str]:
        """Return the links that an earlier daemon was killed over: on our bridges, or blocks of such, and nobody's."""
        links = self._host.route.links()
        masters = set(self._index.values())
        lost = [one.name for one in links if one.master in masters and _MADE.fullmatch(one.name) and one.name not in known]
        names = {one.name for one in links}
        return [*lost, *(shaping.ifb(name) for name in lost if shaping.ifb(name) in names)]


def _judge_address(key: str, text: str, versions: tuple[int, ...]) -> None:
    with contextlib.suppress(ValueError):
        if not text or ("%" not in text and ipaddress.ip_address(text).version in versions):
            return
    kind = "IP" if len(versions) > 1 else f"IPv{versions[0]}"
    raise InvalidRequest(f"invalid value for option {key}: {text[:64]!r} is no {kind} address")


def _trusted(info: NetworkInfo) -> list[str]:
    """Return the host's interfaces from where published ports are reached at the containers' own addresses too."""
    text = info.options.get(f"{BRIDGE}trusted_host_interfaces", "")
    return text.split(":") if text else []


def _addresses(info: NetworkInfo) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
    """Return what the bridge is to have: the gateways, but where the host is to keep out of it."""
    found = [ipaddress.ip_interface(f"{s.gateway}/{s.subnet.partition('/')[2]}") for s in info.subnets if s.gateway]
    inhibited = info.enabled("inhibit_ipv4", default=False)
    return [one for one in found if info.mode(one.version) != "isolated" and not (inhibited and one.version == 4)]


def _mtu(options: dict[str, str]) -> int:
    text = options.get(MTU_OPTION, "") or str(MTU)
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 68 <= int(text) <= 65535):
        raise InvalidRequest(f"invalid value for option {MTU_OPTION}: {text[:32]!r} is no MTU between 68 and 65535")
    return int(text)
