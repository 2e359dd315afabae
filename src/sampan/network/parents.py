"""What macvlan and ipvlan have in common: each endpoint a link of its own on top of a link of the host, the parent.

    parent=eth0       a link of the host's
    parent=eth0.50    the same; where there is none, VLAN 50 of eth0 is made, and deleted with the last network on it
    no parent         an internal network, on a parent that is made for it (a veth whose other end nobody has; Docker
                      makes a dummy)

The host itself does not reach the endpoints, nor they it (the kernel keeps a parent and what stands on it apart), and
nothing is published: whoever is on the LAN reaches every port.
"""

from __future__ import annotations

import contextlib
import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack

from msgspec import structs

from sampan.errors import Conflict, InvalidRequest, NotFound, Unsupported
from sampan.kernel import netns, rtnl
from sampan.network import inside, shaping
from sampan.network.host import Host
from sampan.network.records import MTU_OPTION, Endpoint, NetworkInfo

PARENT = "parent"


class OnParent(ABC):
    """See driver.Driver; macvlan and ipvlan say which modes there are and what a link is like."""

    addresses = True
    publishes = False
    macs = True
    kind = ""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._users: dict[str, NetworkInfo] = {}

    def mac(self, info: NetworkInfo) -> str:
        return ""

    @abstractmethod
    def judge(self, info: NetworkInfo) -> None:
        """Judge the driver's own options.  Raises InvalidRequest, Unsupported."""

    @abstractmethod
    def beside(self, info: NetworkInfo, other: NetworkInfo) -> None:
        """Judge a network beside another one on its parent.  Raises Conflict."""

    @abstractmethod
    def link(self, info: NetworkInfo, endpoint: Endpoint, parent: int, netns_fd: int) -> rtnl.Child:
        """Return the endpoint's link as it is to be made."""

    def check(self, info: NetworkInfo) -> NetworkInfo:
        """Judge parent and mode.  Raises InvalidRequest, NotFound when the parent is not there, Conflict, Unsupported."""
        self.judge(info)
        parent = info.options.get(PARENT, "")
        if not parent:
            return structs.replace(info, link=f"dm-{info.id[:11]}", internal=True, made_link=True)
        try:
            rtnl.check_name(parent)
        except ValueError as error:
            raise InvalidRequest(f"invalid parent: {error}") from None
        link = self._host.route.link(parent)
        found = link or self._below(parent)
        if found.kind in ("macvlan", "ipvlan"):
            raise InvalidRequest(f"parent {parent} is itself a {found.kind} link")
        others = [one for one in self._users.values() if one.link == parent]
        for other in others:
            self.beside(info, other)
        made = link is None or any(one.made_link for one in others)
        return structs.replace(info, link=parent, made_link=made, mtu=_mtu(info, found))

    def _below(self, name: str) -> rtnl.Link:
        """Return the link that the VLAN of that name is to be made on.  Raises NotFound, InvalidRequest."""
        below, number = _vlan(name)
        link = self._host.route.link(below) if below else None
        if link is None:
            which = f"nor is there {below} to make it on" if below else "and a VLAN's name is its link's and its number: eth0.50"
            raise NotFound(f"parent {name}: no such network device, {which}")
        if number not in rtnl.VLAN_IDS:
            raise InvalidRequest(f"parent {name}: vlan id must be between 1-4094, received: {number}")
        return link

    def create(self, info: NetworkInfo) -> None:
        """See that the parent is there and up."""
        if self._host.route.link(info.link) is not None:
            self._host.route.talk([rtnl.link_up(info.link)])
        elif not info.made_link:
            raise NotFound(f"parent {info.link} of network {info.name} is not there")
        elif info.options.get(PARENT, ""):
            self._make_vlan(info)
        else:
            self._make_pair(info)
        self._users[info.id] = info

    def _make_vlan(self, info: NetworkInfo) -> None:
        below, (_, number) = self._below(info.link), _vlan(info.link)
        with ExitStack() as undo:
            try:
                self._host.route.talk([rtnl.new_vlan(info.link, below.index, number)])
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                raise Unsupported(f"parent {info.link}: this kernel has no VLANs (CONFIG_VLAN_8021Q)") from None
            undo.callback(self._host.delete, info.link)
            with contextlib.suppress(FileNotFoundError):
                netns.write_sysctl(f"ipv6/conf/{info.link}/accept_ra", "0")  # row 78: the VLAN's routers are not the host's
            self._host.route.talk([rtnl.link_up(info.link)])
            undo.pop_all()

    def _make_pair(self, info: NetworkInfo) -> None:
        # The other end goes where nobody is; this one is a parent like any other.
        with netns.current() as here, ExitStack() as undo:
            pair = rtnl.Veth(info.link, 0, info.mtu, here.fileno(), f"{info.link[:-1]}p", "02:42:00:00:00:01")
            self._host.route.talk([rtnl.new_veth(pair)])
            undo.callback(self._host.delete, info.link)
            for name in (pair.name, pair.peer):
                with contextlib.suppress(FileNotFoundError):
                    netns.write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
            self._host.route.talk([rtnl.link_up(info.link), rtnl.link_up(pair.peer)])
            undo.pop_all()

    def remove(self, info: NetworkInfo) -> None:
        """The parent goes when it was made, with the last network on it."""
        self._users.pop(info.id, None)
        if info.made_link and not any(one.link == info.link for one in self._users.values()):
            self._host.delete(info.link)

    def attach(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int, routes: frozenset[int]) -> None:
        """Make the link inside at once: on the host it never shows."""
        parent = self._host.route.link(info.link)
        if parent is None:
            raise NotFound(f"parent {info.link} of network {info.name} is not there")
        self.limit(endpoint)
        try:
            self._host.route.talk([rtnl.new_child(self.link(info, endpoint, parent.index, netns_fd))])
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise Conflict(f"parent {info.link} has links of another kind on it: a {self.kind} does not go beside them") from None
        try:
            inside.configure(endpoint, netns_fd, routes)
        except BaseException:
            inside.remove_link(netns_fd, endpoint.ifname)
            raise

    def limit(self, endpoint: Endpoint) -> None:
        """Nothing of the link is on the host, where a limit could not be undone."""
        if any(shaping.limits(endpoint.options)):
            raise Unsupported(f"bandwidth limits are not supported on {self.kind} networks")

    def detach(self, info: NetworkInfo, endpoint: Endpoint) -> None:
        del info, endpoint  # nothing of it is on the host: the link goes with the namespace, or by `leave`

    def leave(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int) -> None:
        inside.remove_link(netns_fd, endpoint.ifname)

    def repair(self, info: NetworkInfo, endpoints: Sequence[Endpoint]) -> bool:
        """Make the parent again; the kernel took the endpoints' links along with it."""
        wanting = self._host.route.link(info.link) is None
        self.create(info)
        return wanting

    def present(self, endpoint: Endpoint) -> bool:
        return True


def _vlan(name: str) -> tuple[str, int]:
    """Return (link, number) of `eth0.50`; ("", 0) for what is no VLAN's name."""
    below, _, digits = name.rpartition(".")
    return (below, int(digits)) if below and digits.isascii() and digits.isdigit() else ("", 0)


def _mtu(info: NetworkInfo, parent: rtnl.Link) -> int:
    text = info.options.get(MTU_OPTION, "") or str(parent.mtu)
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 68 <= int(text) <= parent.mtu):
        raise InvalidRequest(
            f"invalid value for option {MTU_OPTION}: {text[:32]!r} is no MTU between 68 and the parent's {parent.mtu}"
        )
    return int(text)
