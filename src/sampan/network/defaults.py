"""What the daemon's options say about networks, and the default network that comes of it.

Its IPv4 subnet is `bip`'s, else that of the bridge that is there, else what it had before, else `fixed_cidr`'s, else the
first free one of the pools.  With `ipv6` it has a second subnet: `bip6`'s, else `fixed_cidr_v6`'s, else what it had before,
else one of the pools'.  A fixed CIDR within the subnet is the part of it that containers get addresses from.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from msgspec import Struct, structs

from sampan.errors import Conflict, InvalidRequest
from sampan.kernel import rtnl
from sampan.network.addresses import POOLS, Network, choose_network, parse_bip, parse_pool
from sampan.network.ipam import judge, local_pool
from sampan.network.names import check_address, check_option, check_search
from sampan.network.records import BRIDGE, MTU_OPTION, WAY_OUT, NetworkInfo, Subnet

MTU = 1500
_Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class Defaults(Struct, frozen=True, kw_only=True):
    """The options, by the names that daemon.json has for them; each is judged by `check`.

    default_address_pools: where subnets come from that nobody chose.  default_network_opts: options of new networks by their
    driver.  host_gateway_ip: what host-gateway stands for, empty for the gateway.
    """

    bridge: str = "sampan0"
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    ipv6: bool = False
    icc: bool = True
    ip: str = "0.0.0.0"
    ip_forward: bool = True
    ip_masq: bool = True
    mtu: int = MTU
    default_address_pools: tuple[str, ...] = ()
    default_network_opts: dict[str, dict[str, str]] = {}
    host_gateway_ip: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot be.  Raises InvalidRequest."""
        try:
            rtnl.check_name(self.bridge)
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        for text in (*self.dns, *([self.host_gateway_ip] if self.host_gateway_ip else [])):
            check_address(text)
        for text in self.dns_search:
            check_search(text)
        for text in self.dns_opts:
            check_option(text)
        for text in self.default_address_pools:
            parse_pool(text)
        for version, text in ((4, self.default_gateway), (6, self.default_gateway_v6), (4, self.ip)):
            if text and ipaddress.ip_address(check_address(text)).version != version:
                raise InvalidRequest(f"invalid IPv{version} address: {text!r}")
        if not 68 <= self.mtu <= 65535:
            raise InvalidRequest(f"invalid MTU {self.mtu}: not between 68 and 65535")
        for one, other in ((self.fixed_cidr_v6, self.ipv6), (self.bip6, self.ipv6), (self.default_gateway_v6, self.ipv6)):
            if one and not other:
                raise InvalidRequest(f"{one} is of no use without --ipv6")

    def wanted(self, info: NetworkInfo) -> NetworkInfo:
        """Return a network to be made with the default options of its driver, where it says nothing itself."""
        return structs.replace(info, options={**self.default_network_opts.get(info.driver, {}), **info.options})

    def address_pools(self, seed: str) -> list[tuple[Network, int]]:
        """Return where subnets come from: the pools, and for IPv6 one of `seed` where they have none."""
        pools = [parse_pool(text) for text in self.default_address_pools]
        six = any(base.version == 6 for base, _ in pools)
        return [*(pools or POOLS), *([] if six else [local_pool(seed)])]


def default_network(info: NetworkInfo, options: Defaults, route: rtnl.Route, seed: str) -> NetworkInfo:
    """Return the default network's record as it is from now on.

    Raises Conflict (the bridge is no bridge, or has another address than `bip`), InvalidRequest.
    """
    name = options.bridge
    link = route.link(name)
    if link is not None and link.kind != "bridge":
        raise Conflict(f"link {name} exists and is no bridge")
    before = info.subnets if info.link == name else ()
    pools = options.address_pools(seed)
    found: list[_Interface] = list(route.addresses(link.index)) if link is not None else []
    bip = parse_bip(options.bip) if options.bip else None
    if found and bip is not None and bip not in found:
        raise Conflict(f"bridge {name} has the address {found[0]}, not {bip}")
    four = bip or (found[0] if found else None) or _had(before, 4) or _first(options.fixed_cidr, 4)
    subnets = [_subnet(four or _gateway(choose_network(pools, 4, route.routes())), options.fixed_cidr, options.default_gateway, 4)]
    if options.ipv6:
        six = _interface(options.bip6, 6) or _first(options.fixed_cidr_v6, 6) or _had(before, 6)
        six = six or _gateway(choose_network(pools, 6, route.routes6()))
        subnets.append(_subnet(six, options.fixed_cidr_v6, options.default_gateway_v6, 6))
    judge(subnets)
    said = {
        f"{BRIDGE}default_bridge": "true", f"{BRIDGE}enable_icc": str(options.icc).lower(),
        f"{BRIDGE}enable_ip_masquerade": str(options.ip_masq).lower(), f"{BRIDGE}host_binding_ipv4": options.ip,
        f"{BRIDGE}name": name, MTU_OPTION: str(options.mtu),
    }  # fmt: skip
    return structs.replace(
        info, subnets=tuple(subnets), options=said, link=name, mtu=options.mtu, ipv6=options.ipv6,
        made_link=link is None or info.made_link,
    )  # fmt: skip


def _subnet(gateway: _Interface, part: str, way_out: str, version: int) -> Subnet:
    inner = _first(part, version)
    whole = str(gateway.network)
    return Subnet(
        subnet=whole, gateway=str(gateway.ip), ip_range=str(inner.network) if inner and str(inner.network) != whole else "",
        aux={f"{WAY_OUT}{version}": way_out} if way_out else {},
    )  # fmt: skip


def _had(before: Sequence[Subnet], version: int) -> _Interface | None:
    found = [ipaddress.ip_interface(f"{one.gateway}/{one.subnet.partition('/')[2]}") for one in before]
    return next((one for one in found if one.version == version), None)


def _gateway(network: Network) -> _Interface:
    return ipaddress.ip_interface(f"{network.network_address + 1}/{network.prefixlen}")


def _interface(text: str, version: int) -> _Interface | None:
    """Return ADDRESS/PREFIX; None for none.  Raises InvalidRequest."""
    if not text:
        return None
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        found = None
    if found is None or "/" not in text or "%" in text or found.version != version:
        raise InvalidRequest(f"invalid IPv{version} address {text[:64]!r}: wanted ADDRESS/PREFIX")
    return found


def _first(text: str, version: int) -> _Interface | None:
    """Return the first address of a CIDR, with its prefix; None for none.  Raises InvalidRequest."""
    found = _interface(text, version)
    return _gateway(found.network) if found is not None else None
