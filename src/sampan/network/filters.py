"""The one nf_tables table of a bridge: what leaves, what may come in, where published ports lead.

    raw prerouting   nobody but the bridge itself sends to container addresses (row 74); nothing on the bridge speaks
                     to or from 127.0.0.0/8 (route_localnet would let it: CVE-2020-8558)
    nat prerouting   a published port of one of the host's addresses leads to its container.  Never for 127.0.0.0/8:
                     DNAT comes before the martian check, so a LAN host could send such packets in
    nat output       the same for what the host itself sends, 127.0.0.1 too
    forward          into the bridge: answers, published ports, the bridge's own; the rest is dropped (row 81)
    postrouting      masquerade what leaves; and into the bridge what came from 127.0.0.1, and what the bridge sent
                     to itself by way of a host address, so that answers come back the same way (sources are kept
                     otherwise, row 80)

A published port is one element of `ports` (any host address) or `ports_at` (one host address).  Accepting here never
overrides a drop in somebody else's table; theirs is never touched.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable

from sampan.kernel import nftables as nft
from sampan.network.records import PROTOCOLS, Endpoint, Published

LOOPBACK = (bytes([127, 0, 0, 0]), 8)
_DATA = ("ipv4_addr", "inet_service")
ANY = "0.0.0.0"


def table_name(bridge: str) -> str:
    """Return the table's name."""
    return f"sampan_{bridge}"


def remove(transport: nft.Nftables, bridge: str) -> None:
    """Delete the table, if it is there."""
    batch = nft.Batch(table_name(bridge))
    batch.delete_table()
    with contextlib.suppress(FileNotFoundError):
        transport.commit(batch)


def element(ip: str, port: Published) -> tuple[str, bytes, bytes]:
    """Return (map, key, data) of a published port."""
    key = [bytes([PROTOCOLS[port.proto]]), port.host_port.to_bytes(2, "big")]
    data = nft.concatenation(ipaddress.IPv4Address(ip).packed, port.container_port.to_bytes(2, "big"))
    if port.host_ip == ANY:
        return "ports", nft.concatenation(*key), data
    return "ports_at", nft.concatenation(ipaddress.IPv4Address(port.host_ip).packed, *key), data


def _dnat(name: str) -> list[bytes]:
    at = [nft.load_daddr(nft.REG)] if name == "ports_at" else []
    first = nft.REG + len(at)
    return [
        *at,
        nft.load_meta("l4proto", first),
        nft.load_dport(first + 1),
        nft.expression("lookup", set=name, sreg=nft.REG, dreg=nft.REG),
        nft.expression("nat", type=1, family=nft.IPV4, addr=nft.REG, proto=nft.REG + 1),
    ]


def _chains(batch: nft.Batch) -> None:
    batch.set(nft.Set("ports", ("inet_proto", "inet_service"), _DATA))
    batch.set(nft.Set("ports_at", ("ipv4_addr", "inet_proto", "inet_service"), _DATA))
    batch.chain("raw_prerouting", nft.Hook("filter", nft.PRE_ROUTING, -300))
    batch.chain("prerouting", nft.Hook("nat", nft.PRE_ROUTING, -100))
    batch.chain("output", nft.Hook("nat", nft.LOCAL_OUT, -100))
    batch.chain("forward", nft.Hook("filter", nft.FORWARD, 0))
    batch.chain("postrouting", nft.Hook("nat", nft.POST_ROUTING, 100))


def build(bridge: str, gateway: ipaddress.IPv4Interface, endpoints: Iterable[Endpoint]) -> nft.Batch:
    """Return the batch that makes the table anew, whatever it was, in one transaction."""
    batch = nft.Batch(table_name(bridge))
    batch.add_table()  # so that the deletion finds one
    batch.delete_table()
    batch.add_table()
    _chains(batch)
    subnet = (gateway.network.network_address.packed, gateway.network.prefixlen)
    drop, accept = nft.verdict(nft.DROP), nft.verdict(nft.ACCEPT)
    into, out_of = nft.match_meta("oifname", bridge), nft.match_meta("iifname", bridge)
    elsewhere = nft.match_meta("iifname", bridge, nft.NEQ) + nft.match_meta("iifname", "lo", nft.NEQ)
    not_loopback = nft.match_ip("daddr", LOOPBACK, nft.NEQ)

    batch.rule("raw_prerouting", [*out_of, *nft.match_ip("daddr", LOOPBACK), drop])
    batch.rule("raw_prerouting", [*out_of, *nft.match_ip("saddr", LOOPBACK), drop])
    others = nft.match_ip("daddr", (gateway.ip.packed, 32), nft.NEQ)
    batch.rule("raw_prerouting", [*elsewhere, *nft.match_ip("daddr", subnet), *others, drop])

    batch.rule("prerouting", [*not_loopback, *_dnat("ports_at")])
    batch.rule("prerouting", [*nft.match_local_daddr(), *not_loopback, *_dnat("ports")])
    batch.rule("output", _dnat("ports_at"))
    batch.rule("output", [*nft.match_local_daddr(), *_dnat("ports")])

    batch.rule("forward", [*into, *out_of, accept])
    batch.rule("forward", [*into, *nft.match_ct("state", nft.CT_ESTABLISHED | nft.CT_RELATED), accept])
    batch.rule("forward", [*into, *nft.match_ct("status", nft.CT_DNAT), accept])
    batch.rule("forward", [*into, drop])

    masquerade = nft.expression("masq")
    away = nft.match_meta("oifname", bridge, nft.NEQ)
    batch.rule("postrouting", [*away, *nft.match_ip("saddr", subnet), masquerade])
    batch.rule("postrouting", [*into, *nft.match_ip("saddr", LOOPBACK), masquerade])
    batch.rule("postrouting", [*into, *nft.match_ip("saddr", subnet), *nft.match_ct("status", nft.CT_DNAT), masquerade])
    publish(batch, endpoints)
    return batch


def _by_map(endpoints: Iterable[Endpoint]) -> dict[str, dict[bytes, bytes]]:
    maps: dict[str, dict[bytes, bytes]] = {}
    for endpoint in endpoints:
        for port in endpoint.published:
            name, key, data = element(endpoint.ip, port)
            maps.setdefault(name, {})[key] = data
    return maps


def publish(batch: nft.Batch, endpoints: Iterable[Endpoint]) -> None:
    """Add the elements of the endpoints' published ports."""
    for name, pairs in _by_map(endpoints).items():
        batch.add_elements(name, pairs.items())


def withdraw(batch: nft.Batch, endpoints: Iterable[Endpoint]) -> None:
    """Delete the elements of the endpoints' published ports."""
    for name, pairs in _by_map(endpoints).items():
        batch.delete_elements(name, pairs)
