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
    u16,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_GROUP, IFLA_NET_NS_FD = 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA, IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 5, 4, 33
VETH_INFO_PEER = 1
IFLA_MACVLAN_MODE, IFLA_VLAN_ID, IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS = 1, 1, 1, 2
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
VLAN_IDS = range(1, 4095)
IFA_F_NODAD = 2
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
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


class Child(NamedTuple):
    """A link on top of the link `parent` (index), to be made in the namespace `netns` (borrowed) under `name`.

    kind, data: what it is ("macvlan", "ipvlan") and how, as macvlan() and ipvlan() say; mac: "" for the kernel's choice.
    """

    kind: str
    data: bytes
    parent: int
    mtu: int
    netns: int
    name: str
    mac: str


class Veth(NamedTuple):
    """A pair to be made: `name` here under `master`, `peer` with `mac` in the namespace `netns` (borrowed)."""

    name: str
    master: int
    mtu: int
    netns: int
    peer: str
    mac: str


def check_name(name: str) -> str:
    """Return `name` when the kernel takes it as an interface's; ValueError otherwise (dev_valid_name).

    A name with % would be a pattern; "all" and "default" are folders of their own in /proc/sys/net.
    """
    bad = not name.isascii() or any(c in "/:%" or c <= " " or c == "\x7f" for c in name)
    if not 0 < len(name) <= NAME_MAX or bad or name in (".", "..", "all", "default"):
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


def macvlan(mode: str) -> bytes:
    """Return how a macvlan is: one of MACVLAN_MODES."""
    return u32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])


def ipvlan(mode: str, flag: str) -> bytes:
    """Return how an ipvlan is: one of IPVLAN_MODES and one of IPVLAN_FLAGS.  All of a parent's are alike."""
    return u16(IFLA_IPVLAN_MODE, IPVLAN_MODES[mode]) + u16(IFLA_IPVLAN_FLAGS, IPVLAN_FLAGS[flag])


def new_child(link: Child) -> Request:
    """A link on a parent, down.  EEXIST when the name is taken, EBUSY when the parent carries links of another kind."""
    payload = b"".join(
        (
            _info(),
            text(IFLA_IFNAME, check_name(link.name)),
            attribute(IFLA_ADDRESS, mac_bytes(link.mac)) if link.mac else b"",
            u32(IFLA_MTU, link.mtu),
            u32(IFLA_LINK, link.parent),
            u32(IFLA_NET_NS_FD, link.netns),
            nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, link.kind), nest(IFLA_INFO_DATA, link.data)),
        )
    )
    return Request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, link.name)


def new_vlan(name: str, parent: int, number: int) -> Request:
    """The VLAN `number` of a link, down.  EEXIST when the name is taken or the link has the VLAN, EOPNOTSUPP without 802.1Q."""
    how = nest(IFLA_INFO_DATA, u16(IFLA_VLAN_ID, number))
    kind = nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vlan"), how)
    payload = _info() + text(IFLA_IFNAME, check_name(name)) + u32(IFLA_LINK, parent) + kind
    return Request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, name)


def port_up(name: str, *, isolated: bool = False) -> Request:
    """Set a bridge's port up, in hairpin mode; an isolated one reaches no other isolated one (Linux 4.18).

    With br_netfilter loaded (dockerd loads it) DNAT happens on the bridge, and a frame whose new destination is
    its own sender goes back out of the port it came from: only hairpin mode lets it (should_deliver, br_forward.c).
    """
    data = [attribute(IFLA_BRPORT_MODE, b"\x01")]
    if isolated:
        data.append(attribute(IFLA_BRPORT_ISOLATED, b"\x01"))
    port = nest(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), nest(IFLA_INFO_SLAVE_DATA, *data))
    return Request(RTM_NEWLINK, NLM_F_ACK, _info(0, IFF_UP, IFF_UP) + text(IFLA_IFNAME, name) + port, name)


def set_master(name: str, master: int) -> Request:
    """Put a link under a bridge."""
    return Request(RTM_SETLINK, NLM_F_ACK, _info() + text(IFLA_IFNAME, name) + u32(IFLA_MASTER, master), name)


def set_group(name: str, group: int) -> Request:
    """Put a link into a group."""
    return Request(RTM_SETLINK, NLM_F_ACK, _info() + text(IFLA_IFNAME, name) + u32(IFLA_GROUP, group), name)


def delete_link(name: str) -> Request:
    """Delete a link (and a veth's other end); waits for a grace period of the kernel, some 16 ms."""
    return Request(RTM_DELLINK, NLM_F_ACK, _info() + text(IFLA_IFNAME, name), name)


def delete_group(group: int) -> Request:
    """Delete every link of a group, all in one grace period; ENODEV when there is none."""
    return Request(RTM_DELLINK, NLM_F_ACK, _info() + u32(IFLA_GROUP, group), f"link group {group:#x}")


def new_address(index: int, address: Interface) -> Request:
    """Give a link an address: IPv4 with its network's broadcast address, IPv6 usable at once (no duplicate detection)."""
    six = address.version == 6
    payload = b"".join(
        (
            _IFADDR.pack(_AF[address.version], address.network.prefixlen, IFA_F_NODAD if six else 0, 0, index),
            attribute(IFA_LOCAL, address.ip.packed),
            attribute(IFA_ADDRESS, address.ip.packed),
            b"" if six else attribute(IFA_BROADCAST, address.network.broadcast_address.packed),
        )
    )
    return Request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, str(address))


def default_route(gateway: Address, index: int) -> Request:
    """Route everything by `gateway` (main table, RTPROT_BOOT, global scope)."""
    payload = b"".join(
        (
            _RTMSG.pack(_AF[gateway.version], 0, 0, 0, 254, 3, 0, 1, 0),
            attribute(RTA_GATEWAY, gateway.packed),
            u32(RTA_OIF, index),
        )
    )
    return Request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, f"default route by {gateway}")


def no_default_route(version: int) -> Request:
    """Delete the main table's first default route; ESRCH when there is none."""
    return Request(RTM_DELROUTE, NLM_F_ACK, _RTMSG.pack(_AF[version], 0, 0, 0, 254, 0, 255, 0, 0), "default route")


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

    def knows(self, kind: str) -> bool:
        """Return whether the kernel has links of a kind that stand on a parent: one without is refused, and never made."""
        payload = _info() + nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind))
        try:
            self.talk([Request(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, payload, kind)])
        except OSError as error:
            return error.errno == errno.EINVAL
        return False

    def addresses(self, index: int = 0) -> list[ipaddress.IPv4Interface]:
        """Return the IPv4 addresses of one link, or of all."""
        found = self._addresses(index, socket.AF_INET)
        return [ipaddress.IPv4Interface(pair) for pair in found]

    def addresses6(self, index: int = 0) -> list[ipaddress.IPv6Interface]:
        """Return the IPv6 addresses of one link, or of all."""
        return [ipaddress.IPv6Interface(pair) for pair in self._addresses(index, socket.AF_INET6)]

    def _addresses(self, index: int, family: int) -> list[tuple[bytes, int]]:
        ask = Request(RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(family, 0, 0, 0, 0), "addresses")
        result = []
        for answer in self.talk([ask]):
            _, prefix, _, _, owner = _IFADDR.unpack_from(answer.payload)
            found = dict(attributes(answer.payload, 8))
            local = found.get(IFA_LOCAL, found.get(IFA_ADDRESS))
            if local is not None and index in (0, owner):
                result.append((local, prefix))
        return result

    def routes(self) -> list[ipaddress.IPv4Network]:
        """Return the IPv4 destinations of the main table, the default route left out."""
        return [ipaddress.IPv4Network(pair) for pair in self._routes(socket.AF_INET)]

    def routes6(self) -> list[ipaddress.IPv6Network]:
        """Return the IPv6 destinations of the main table, the default route left out."""
        return [ipaddress.IPv6Network(pair) for pair in self._routes(socket.AF_INET6)]

    def _routes(self, family: int) -> list[tuple[bytes, int]]:
        ask = Request(RTM_GETROUTE, NLM_F_DUMP, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "routes")
        result = []
        for answer in self.talk([ask]):
            fields = _RTMSG.unpack_from(answer.payload)
            destination = dict(attributes(answer.payload, 12)).get(RTA_DST)
            if destination is not None and fields[4] == 254:
                result.append((destination, fields[1]))
        return result

    def remove(self, names: list[str], group: int) -> None:
        """Delete the links of `names`, those already gone passed over, in one grace period.

        `group` is a link group that only the caller uses.
        """
        self.talk([set_group(name, group) for name in names], tolerate=_GONE)
        self.talk([delete_group(group)], tolerate=_GONE)
