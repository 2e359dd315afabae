"""The nf_tables tables of one daemon, all of one name: `ip`, `ip6` (once a network has IPv6) and `bridge`.

Rules are few and fixed; networks, endpoints and published ports are elements of sets and maps, so that nothing a
packet meets grows with their number.

`ip`, `ip6`:
    raw prerouting   nothing on a bridge speaks to or from 127.0.0.0/8 or ::1 (route_localnet would let it: CVE-2020-8558)
    nat prerouting   a published port of one of the host's addresses leads to its container.  Never for loopback
                     addresses: DNAT comes before the martian check, so a LAN host could send such packets in
    nat output       the same for what the host itself sends, 127.0.0.1 too
    forward          within a bridge: allowed unless the network says no (icc); an internal network: nothing else;
                     into a bridge: answers, published ports, of a routed network what was opened, and ICMP; the rest is
                     dropped (rows 74, 81)
    postrouting      masquerade what leaves; and into the bridge what came from loopback, and what the bridge sent
                     to itself by way of a host address, so that answers come back the same way (sources are kept
                     otherwise, row 80)
`bridge`:
    prerouting       a container's link carries its own MAC and addresses and nobody else's, in Ethernet, ARP, IP and
                     neighbour advertisements; no router advertisements, redirects or other protocols (rows 78, 82).
                     IPv4 from one container of a network to another is not tracked: with br_netfilter that would be a
                     third of what netfilter costs a connection, and nothing here asks for it (decisions/0003-tracking.md)

Accepting here never overrides a drop in somebody else's table; theirs is never touched.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sampan.kernel import nftables as nft
from sampan.kernel.rtnl import mac_bytes
from sampan.network.addresses import link_local_of
from sampan.network.records import LOOPBACK6, PROTOCOLS, Endpoint, Published

ETHERTYPES = {"ip": b"\x08\x00", "arp": b"\x08\x06", "ip6": b"\x86\xdd"}
ICMPV6, ROUTER_ADVERTISEMENT, NEIGHBOUR_ADVERTISEMENT, REDIRECT = 58, 134, 136, 137


class Family(NamedTuple):
    """What differs between `ip` and `ip6`: offsets of the addresses, their length, their type's name."""

    number: int
    source: int
    destination: int
    size: int
    type: str
    loopback: tuple[bytes, int]
    any: str
    icmp: int


V4 = Family(nft.IPV4, 12, 16, 4, "ipv4_addr", (bytes([127, 0, 0, 0]), 8), "0.0.0.0", 1)
V6 = Family(nft.IPV6, 8, 24, 16, "ipv6_addr", (bytes(15) + b"\x01", 128), "::", ICMPV6)


class Zone(NamedTuple):
    """A network as the filters know it.  mode, mode6: NetworkInfo.mode; source, source6: the addresses to leave with instead of
    the way's own, where it masquerades; tracked: whether connections within it are."""

    bridge: str
    icc: bool = True
    masquerade: bool = True
    internal: bool = False
    guarded: bool = True
    mode: str = "nat"
    mode6: str = "nat"
    ipv6: bool = False
    source: str = ""
    source6: str = ""
    trusted: tuple[str, ...] = ()
    tracked: bool = False


Open = tuple[Zone, Endpoint]


def table_name(bridge: str) -> str:
    """Return the tables' name."""
    return f"sampan_{bridge}"


def element(endpoint: Endpoint, port: Published) -> tuple[Family, str, bytes, bytes | None] | None:
    """Return (family, map or set, key, data) of a published port; None for one on ::1 (relay.py) or of a family it has not."""
    host = ipaddress.ip_address(port.host_ip)
    if host == LOOPBACK6:
        return None
    family, own = (V4, endpoint.ip) if host.version == 4 else (V6, endpoint.ip6)
    if not own:
        return None
    key = [bytes([PROTOCOLS[port.proto]]), port.host_port.to_bytes(2, "big")]
    if not port.host_port:
        return family, "opened", _inner(endpoint, family, port), None
    data = nft.concatenation(ipaddress.ip_address(own).packed, port.container_port.to_bytes(2, "big"))
    if port.host_ip == family.any:
        return family, "ports", nft.concatenation(*key), data
    return family, "ports_at", nft.concatenation(host.packed, *key), data


def _inner(endpoint: Endpoint, family: Family, port: Published) -> bytes:
    """Return a published port as the container knows it."""
    own = ipaddress.ip_address(endpoint.ip if family is V4 else endpoint.ip6).packed
    return nft.concatenation(own, bytes([PROTOCOLS[port.proto]]), port.container_port.to_bytes(2, "big"))


def _dnat(family: Family, name: str) -> list[bytes]:
    """By `ports_at` (one of the host's addresses) or `ports` (any of them): only of what is found there the route is asked for."""
    words = family.size // 4
    at = [nft.load(1, family.destination, family.size)] if name == "ports_at" else []
    first = nft.REG + len(at) * words
    local = nft.match_local_daddr(nft.REG + words + 1) if not at else []  # beside what is found
    return [
        *at,
        nft.load_meta("l4proto", first),
        nft.load_dport(first + 1),
        nft.expression("lookup", set=name, sreg=nft.REG, dreg=nft.REG),
        *local,
        nft.expression("nat", type=1, family=family.number, addr=nft.REG, proto=nft.REG + words),
    ]


def _declare(batch: nft.Batch, family: Family) -> None:
    batch.set(nft.Set("ports", ("inet_proto", "inet_service"), (family.type, "inet_service")))
    batch.set(nft.Set("ports_at", (family.type, "inet_proto", "inet_service"), (family.type, "inet_service")))
    for name in ("opened", "inner"):
        batch.set(nft.Set(name, (family.type, "inet_proto", "inet_service")))
    for name in ("bridges", "internal", "masquerade", "unprotected", "routed"):
        batch.set(nft.Set(name, ("ifname",)))
    batch.set(nft.Set("addresses", (family.type,)))
    for name in ("within", "icc", "trusted"):
        batch.set(nft.Set(name, ("ifname", "ifname")))
    batch.set(nft.Set("sources", ("ifname",), (family.type,)))
    batch.chain("raw_prerouting", nft.Hook("filter", nft.PRE_ROUTING, -300))
    batch.chain("prerouting", nft.Hook("nat", nft.PRE_ROUTING, -100))
    batch.chain("output", nft.Hook("nat", nft.LOCAL_OUT, -100))
    batch.chain("forward", nft.Hook("filter", nft.FORWARD, 0))
    batch.chain("postrouting", nft.Hook("nat", nft.POST_ROUTING, 100))


def _rules(batch: nft.Batch, family: Family) -> None:
    """The fixed rules of `ip` and `ip6`."""
    drop, accept, masquerade = nft.verdict(nft.DROP), nft.verdict(nft.ACCEPT), nft.expression("masq")
    into, out_of = nft.load_meta("oifname"), nft.load_meta("iifname")
    through = (nft.load_meta("iifname"), nft.load_meta("oifname", nft.REG + 4))
    source = nft.load(1, family.source, family.size)
    destination = nft.load(1, family.destination, family.size)
    not_loopback = nft.match_prefix(destination, family.loopback, nft.NEQ)

    # The comparison first: it costs every packet less than a look into a set.
    for end in (destination, source):
        batch.rule("raw_prerouting", [*nft.match_prefix(end, family.loopback), *nft.in_set("bridges", out_of), drop])

    for name in ("ports", "ports_at"):  # no port is in both
        batch.rule("prerouting", [*not_loopback, *_dnat(family, name)])
        batch.rule("output", _dnat(family, name))

    # First, and for nearly every packet last: a connection is established only when its first packet was let through below.
    batch.rule("forward", [*nft.match_ct("state", nft.CT_ESTABLISHED | nft.CT_RELATED), accept])
    open_ends = [*nft.in_set("internal", out_of, inverted=True), *nft.in_set("internal", into, inverted=True)]
    batch.rule("forward", [*nft.match_ct("status", nft.CT_DNAT), *open_ends, accept])
    batch.rule("forward", [*nft.in_set("icc", *through), accept])
    batch.rule("forward", [*nft.in_set("internal", out_of), drop])
    batch.rule("forward", [*nft.in_set("internal", into), drop])
    batch.rule("forward", [*nft.in_set("bridges", into, inverted=True), accept])
    from_outside = nft.in_set("bridges", out_of, inverted=True)
    batch.rule("forward", [*nft.in_set("unprotected", into), *from_outside, accept])
    words = family.size // 4
    port = (destination, nft.load_meta("l4proto", nft.REG + words), nft.load_dport(nft.REG + words + 1))
    batch.rule("forward", [*nft.in_set("opened", *port), accept])
    batch.rule("forward", [*nft.in_set("trusted", *through), *nft.in_set("inner", *port), accept])
    echo = nft.match_bytes(nft.load_meta("l4proto"), bytes([family.icmp]))
    batch.rule("forward", [*nft.in_set("routed", into), *from_outside, *echo, accept])
    batch.rule("forward", [drop])

    batch.rule("postrouting", [*nft.match_prefix(source, family.loopback), *nft.in_set("bridges", into), masquerade])
    # What is not a container's is done with: nothing below is about it.
    batch.rule("postrouting", [*nft.in_set("addresses", source, inverted=True), *from_outside, accept])
    # Not by iifname: with br_netfilter a bridged packet has none here.
    hairpin = [*nft.in_set("bridges", into), *nft.match_ct("status", nft.CT_DNAT), *nft.in_set("addresses", source)]
    batch.rule("postrouting", [*hairpin, masquerade])
    batch.rule("postrouting", [*nft.in_set("within", *through), accept])
    snat = nft.expression("nat", type=0, family=family.number, addr=nft.REG)
    batch.rule("postrouting", [out_of, nft.expression("lookup", set="sources", sreg=nft.REG, dreg=nft.REG), snat])
    batch.rule("postrouting", [*nft.in_set("masquerade", out_of), masquerade])


def _guard(batch: nft.Batch) -> None:
    """The table of family bridge, whole but for its elements."""
    batch.set(nft.Set("guarded", ("ifname",)))
    batch.set(nft.Set("allowed", ("ifname", "ether_addr", "ipv4_addr")))
    batch.set(nft.Set("allowed6", ("ifname", "ether_addr", "ipv6_addr")))
    batch.set(nft.Set("speakers", ("ifname", "ether_addr", "ipv4_addr")))
    batch.set(nft.Set("inside", ("ipv4_addr",)))
    batch.set(nft.Set("peers", ("ether_addr", "ipv4_addr")))
    batch.chain("prerouting", nft.Hook("filter", nft.PRE_ROUTING, -300))
    drop, accept = nft.verdict(nft.DROP), nft.verdict(nft.ACCEPT)
    link, sender = nft.load_meta("iifname"), nft.load(0, 6, 6, nft.REG + 4)
    kind = nft.load(0, 12, 2)

    def third(base: int, offset: int, size: int) -> bytes:
        return nft.load(base, offset, size, nft.REG + 6)

    icmp = nft.match_bytes(nft.load_meta("l4proto"), bytes([ICMPV6]))
    is_arp, is_ip6 = (nft.match_bytes(kind, ETHERTYPES[name]) for name in ("arp", "ip6"))
    # Most packets are decided by the first two rules.  The sender's MAC and the frame's type are one load, and one part of a key.
    own = nft.in_set("speakers", link, nft.load(0, 6, 8, nft.REG + 4), third(1, 12, 4))
    peer = nft.in_set("peers", nft.load(0, 0, 6), nft.load(1, 16, 4, nft.REG + 2))  # by its MAC: what is routed has the bridge's
    batch.rule("prerouting", [*nft.in_set("inside", nft.load(1, 16, 4)), *peer, *own, nft.expression("notrack"), accept])
    batch.rule("prerouting", [*own, accept])
    batch.rule("prerouting", [*nft.in_set("guarded", link, inverted=True), accept])
    # An ARP message names its sender twice: in the frame and in itself.
    inner = nft.load(1, 8, 6, nft.REG + 4)
    spoken = third(1, 14, 4)
    both = [*nft.in_set("allowed", link, sender, spoken), *nft.in_set("allowed", link, inner, spoken)]
    batch.rule("prerouting", [*is_arp, *both, accept])
    for message in (ROUTER_ADVERTISEMENT, REDIRECT):
        batch.rule("prerouting", [*is_ip6, *icmp, *nft.match_bytes(nft.load(2, 0, 1), bytes([message])), drop])
    claim = nft.match_bytes(nft.load(2, 0, 1), bytes([NEIGHBOUR_ADVERTISEMENT]))
    target = nft.in_set("allowed6", link, sender, third(2, 8, 16), inverted=True)
    batch.rule("prerouting", [*is_ip6, *icmp, *claim, *target, drop])
    batch.rule("prerouting", [*is_ip6, *nft.in_set("allowed6", link, sender, third(1, 8, 16)), accept])
    batch.rule("prerouting", [drop])


class Tables:
    """Makes batches: everything anew, or one network or endpoint more or less.

    six: whether `ip6` is among the tables.  A delta is only right while the tables are as `build` made them.
    """

    def __init__(self, name: str, *, six: bool) -> None:
        self._families = (V4, V6) if six else (V4,)
        self._batches = {family.number: nft.Batch(name, family.number) for family in self._families}
        self._guard = nft.Batch(name, nft.BRIDGE)

    @property
    def batches(self) -> list[nft.Batch]:
        """Return the changes so far, for one commit."""
        return [*self._batches.values(), self._guard]

    def build(self) -> None:
        """Make the tables anew, whatever they were; elements follow."""
        for batch in self.batches:
            batch.add_table()  # so that the deletion finds one
            batch.delete_table()
            batch.add_table()
        for family in self._families:
            _declare(self._batches[family.number], family)
            _rules(self._batches[family.number], family)
        _guard(self._guard)

    def zones(self, zones: Sequence[Zone], *, add: bool) -> None:
        """Add or delete the elements of networks."""
        for family in self._families:
            sets: dict[str, list[bytes]] = {}
            for zone in zones:
                for name, wanted in _memberships(zone, family).items():
                    if wanted:
                        link = nft.ifname(zone.bridge)
                        sets.setdefault(name, []).append(link * 2 if name in ("within", "icc") else link)
                sets.setdefault("trusted", []).extend(nft.ifname(one) + nft.ifname(zone.bridge) for one in zone.trusted)
            batch = self._batches[family.number]
            for name, keys in sets.items():
                self._change(batch, name, dict.fromkeys(keys), add=add)
            leaving = [(zone.bridge, _source(zone, family)) for zone in zones if _translates(zone, family)]
            sources = {nft.ifname(bridge): ipaddress.ip_address(source).packed for bridge, source in leaving if source}
            self._change(batch, "sources", dict(sources), add=add)

    def endpoints(self, opened: Iterable[Open], *, add: bool) -> None:
        """Add or delete the elements of endpoints: published ports, and what their links may say."""
        maps: dict[tuple[int, str], dict[bytes, bytes | None]] = {}
        guarded: dict[bytes, bytes | None] = {}
        for zone, endpoint in opened:
            for port in endpoint.published:
                found = element(endpoint, port)
                if found is not None and found[0].number in self._batches:
                    maps.setdefault((found[0].number, found[1]), {})[found[2]] = found[3]
                    if zone.trusted:
                        maps.setdefault((found[0].number, "inner"), {})[_inner(endpoint, found[0], port)] = None
            for family, text in ((V4, endpoint.ip), (V6, endpoint.ip6)):
                if text and family.number in self._batches:
                    maps.setdefault((family.number, "addresses"), {})[ipaddress.ip_address(text).packed] = None
            if zone.guarded:
                guarded[nft.ifname(endpoint.veth_host)] = None
                for name, key in _allowed(endpoint):
                    maps.setdefault((nft.BRIDGE, name), {})[key] = None
                if zone.icc and not zone.tracked and endpoint.ip:
                    own = ipaddress.ip_address(endpoint.ip).packed
                    maps.setdefault((nft.BRIDGE, "inside"), {})[own] = None
                    maps.setdefault((nft.BRIDGE, "peers"), {})[nft.concatenation(mac_bytes(endpoint.mac), own)] = None
        for (number, name), pairs in maps.items():
            self._change(self._guard if number == nft.BRIDGE else self._batches[number], name, pairs, add=add)
        self._change(self._guard, "guarded", guarded, add=add)

    @staticmethod
    def _change(batch: nft.Batch, name: str, pairs: dict[bytes, bytes | None], *, add: bool) -> None:
        if pairs and add:
            batch.add_elements(name, pairs.items())
        elif pairs:
            batch.delete_elements(name, pairs)


def _translates(zone: Zone, family: Family) -> bool:
    """Return whether what leaves gets another source address."""
    return zone.masquerade and not zone.internal and (zone.mode if family is V4 else zone.mode6) != "routed"


def _source(zone: Zone, family: Family) -> str:
    return zone.source if family is V4 else zone.source6


def _memberships(zone: Zone, family: Family) -> dict[str, bool]:
    mode = zone.mode if family is V4 else zone.mode6
    return {
        "bridges": True, "within": True, "icc": zone.icc, "internal": zone.internal,
        "masquerade": _translates(zone, family) and not _source(zone, family),
        "unprotected": mode == "nat-unprotected", "routed": mode == "routed",
    }  # fmt: skip


def _allowed(endpoint: Endpoint) -> list[tuple[str, bytes]]:
    link, mac = nft.ifname(endpoint.veth_host), mac_bytes(endpoint.mac)
    made = []
    for address in endpoint.addresses:
        name = "allowed" if address.version == 4 else "allowed6"
        made.append((name, nft.concatenation(link, mac, address.ip.packed)))
        if address.version == 4:
            made.append(("speakers", nft.concatenation(link, mac + ETHERTYPES["ip"], address.ip.packed)))
    if endpoint.ip6:
        for extra in (link_local_of(endpoint.mac).packed, bytes(16)):  # "::" asks whether an address is taken
            made.append(("allowed6", nft.concatenation(link, mac, extra)))
    return made
