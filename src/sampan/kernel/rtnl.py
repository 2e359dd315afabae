"""rtnetlink(7): links, addresses and routes, as requests that can be sent several at a time.

Numbers from include/uapi/linux/{rtnetlink,if_link,if_addr,veth}.h.  The functions that end in a Request only encode;
`Route` sends.  A veth pair is made with its other end already in the target namespace (IFLA_NET_NS_FD inside
VETH_INFO_PEER), so nothing is ever moved or renamed.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass
from typing import NamedTuple

from sampan.kernel.netlink import (
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Answer,
    Netlink,
    Request,
    attribute,
    attributes,
    nest,
    text,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_GROUP, IFLA_NET_NS_FD = 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA, IFLA_BRPORT_MODE = 4, 5, 4
VETH_INFO_PEER = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
IFF_UP = 1
NAME_MAX = 15  # IFNAMSIZ less its NUL

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_GONE = frozenset({errno.ENODEV})


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    master: int
    up: bool


class Veth(NamedTuple):
    """A pair to be made: `name` here under `master`, `peer` with `mac` in the namespace `netns` (borrowed)."""

    name: str
    master: int
    mtu: int
    netns: int
    peer: str
    mac: str


def check_name(name: str) -> str:
    """Return `name` when the kernel takes it as an interface's; ValueError otherwise (dev_valid_name)."""
    bad = not name.isascii() or any(c in "/:" or c <= " " or c == "\x7f" for c in name)
    if not 0 < len(name) <= NAME_MAX or bad or name in (".", ".."):
        raise ValueError(f"invalid interface name {name!r}")
    return name


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of `mac`; ValueError when it is not one."""
    value = bytes.fromhex(mac.replace(":", ""))
    if len(value) != 6 or len(mac) != 17:
        raise ValueError(f"invalid MAC address {mac!r}")
    return value


def _info(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(0, 0, index, flags, change)


def new_bridge(name: str, mac: str, mtu: int) -> Request:
    """A bridge, down.  EEXIST when the name is taken."""
    payload = b"".join(
        (
            _info(),
            text(IFLA_IFNAME, check_name(name)),
            attribute(IFLA_ADDRESS, mac_bytes(mac)),
            u32(IFLA_MTU, mtu),
            nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge")),
        )
    )
    return Request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, name)


def new_veth(pair: Veth) -> Request:
    """A veth pair, both ends down.  EEXIST when a name is taken on either side."""
    peer = b"".join(
        (
            _info(),
            text(IFLA_IFNAME, check_name(pair.peer)),
            attribute(IFLA_ADDRESS, mac_bytes(pair.mac)),
            u32(IFLA_MTU, pair.mtu),
            u32(IFLA_NET_NS_FD, pair.netns),
        )
    )
    payload = b"".join(
        (
            _info(),
            text(IFLA_IFNAME, check_name(pair.name)),
            u32(IFLA_MTU, pair.mtu),
            u32(IFLA_MASTER, pair.master),
            nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), nest(IFLA_INFO_DATA, nest(VETH_INFO_PEER, peer))),
        )
    )
    return Request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, pair.name)


def link_up(link: int | str) -> Request:
    """Set the link of that index or name up."""
    name = text(IFLA_IFNAME, link) if isinstance(link, str) else b""
    index = link if isinstance(link, int) else 0
    return Request(RTM_NEWLINK, NLM_F_ACK, _info(index, IFF_UP, IFF_UP) + name, str(link))


def port_up(name: str) -> Request:
    """Set a bridge's port up, in hairpin mode.

    With br_netfilter loaded (dockerd loads it) DNAT happens on the bridge, and a frame whose new destination is
    its own sender goes back out of the port it came from: only hairpin mode lets it (should_deliver, br_forward.c).
    """
    mode = nest(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_MODE, b"\x01"))
    port = nest(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), mode)
    return Request(RTM_NEWLINK, NLM_F_ACK, _info(0, IFF_UP, IFF_UP) + text(IFLA_IFNAME, name) + port, name)


def set_group(name: str, group: int) -> Request:
    """Put a link into a group."""
    return Request(RTM_SETLINK, NLM_F_ACK, _info() + text(IFLA_IFNAME, name) + u32(IFLA_GROUP, group), name)


def delete_link(name: str) -> Request:
    """Delete a link (and a veth's other end); waits for a grace period of the kernel, some 16 ms."""
    return Request(RTM_DELLINK, NLM_F_ACK, _info() + text(IFLA_IFNAME, name), name)


def delete_group(group: int) -> Request:
    """Delete every link of a group, all in one grace period; ENODEV when there is none."""
    return Request(RTM_DELLINK, NLM_F_ACK, _info() + u32(IFLA_GROUP, group), f"link group {group:#x}")


def new_address(index: int, address: ipaddress.IPv4Interface) -> Request:
    """Give a link an address, with its network's broadcast address."""
    payload = b"".join(
        (
            _IFADDR.pack(socket.AF_INET, address.network.prefixlen, 0, 0, index),
            attribute(IFA_LOCAL, address.ip.packed),
            attribute(IFA_ADDRESS, address.ip.packed),
            attribute(IFA_BROADCAST, address.network.broadcast_address.packed),
        )
    )
    return Request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, str(address))


def default_route(gateway: ipaddress.IPv4Address, index: int) -> Request:
    """Route everything by `gateway` (main table, RTPROT_BOOT, global scope)."""
    payload = b"".join(
        (
            _RTMSG.pack(socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0),
            attribute(RTA_GATEWAY, gateway.packed),
            u32(RTA_OIF, index),
        )
    )
    return Request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, f"default route by {gateway}")


def _link(answer: Answer) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(answer.payload)
    found = dict(attributes(answer.payload, 16))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        kind=info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=int.from_bytes(found.get(IFLA_MTU, b""), sys.byteorder),
        master=int.from_bytes(found.get(IFLA_MASTER, b""), sys.byteorder),
        up=bool(flags & IFF_UP),
    )


class Route(Netlink):
    """A NETLINK_ROUTE socket of the namespace in which it was made."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def link(self, name: str) -> Link | None:
        """Return the link of that name, or None."""
        ask = Request(RTM_GETLINK, 0, _info() + text(IFLA_IFNAME, name), name)
        found = self.talk([ask], tolerate=_GONE)
        return _link(found[0]) if found else None

    def links(self) -> list[Link]:
        """Return every link."""
        return [_link(answer) for answer in self.talk([Request(RTM_GETLINK, NLM_F_DUMP, _info(), "links")])]

    def addresses(self, index: int = 0) -> list[ipaddress.IPv4Interface]:
        """Return the IPv4 addresses of one link, or of all."""
        ask = Request(RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0), "addresses")
        result = []
        for answer in self.talk([ask]):
            _, prefix, _, _, owner = _IFADDR.unpack_from(answer.payload)
            local = dict(attributes(answer.payload, 8)).get(IFA_LOCAL)
            if local is not None and index in (0, owner):
                result.append(ipaddress.IPv4Interface((local, prefix)))
        return result

    def routes(self) -> list[ipaddress.IPv4Network]:
        """Return the IPv4 destinations of the main table, the default route left out."""
        ask = Request(RTM_GETROUTE, NLM_F_DUMP, _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), "routes")
        result = []
        for answer in self.talk([ask]):
            fields = _RTMSG.unpack_from(answer.payload)
            destination = dict(attributes(answer.payload, 12)).get(RTA_DST)
            if destination is not None and fields[4] == 254:
                result.append(ipaddress.IPv4Network((destination, fields[1])))
        return result

    def remove(self, names: list[str], group: int) -> None:
        """Delete the links of `names`, those already gone passed over, in one grace period.

        `group` is a link group that only the caller uses.
        """
        self.talk([set_group(name, group) for name in names], tolerate=_GONE)
        self.talk([delete_group(group)], tolerate=_GONE)
