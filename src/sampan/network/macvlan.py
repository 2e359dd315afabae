"""The macvlan driver: each endpoint a link of its own on top of a link of the host, seen by the LAN as a host of its own.

The host itself does not reach them, nor they it (the kernel keeps a parent and its macvlans apart), and nothing is
published: whoever is on the LAN reaches every port.  Without `parent` the network is internal, on a bridge-less
parent that is made for it (a veth whose other end nobody has; Docker makes a dummy).
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from contextlib import ExitStack

from msgspec import structs

from sampan.errors import InvalidRequest, NotFound, Unsupported
from sampan.kernel import netns, rtnl
from sampan.network import inside, shaping
from sampan.network.host import Host
from sampan.network.records import MTU_OPTION, Endpoint, NetworkInfo

PARENT, MODE = "parent", "macvlan_mode"
_GONE = frozenset({errno.ENODEV})


class Macvlan:
    """See driver.Driver."""

    addresses = True
    publishes = False

    def __init__(self, host: Host) -> None:
        self._host = host

    def check(self, info: NetworkInfo) -> NetworkInfo:
        """Judge parent and mode.  Raises InvalidRequest, NotFound when the parent is not there."""
        options = info.options
        if options.get(MODE, "") not in ("", *rtnl.MACVLAN_MODES):
            raise InvalidRequest(f"unknown macvlan mode {options[MODE][:32]!r}: one of {', '.join(rtnl.MACVLAN_MODES)}")
        parent = options.get(PARENT, "")
        if not parent:
            return structs.replace(info, link=f"dm-{info.id[:11]}", internal=True, made_link=True)
        try:
            rtnl.check_name(parent)
        except ValueError as error:
            raise InvalidRequest(f"invalid parent: {error}") from None
        link = self._host.route.link(parent)
        if link is None:
            raise NotFound(f"parent {parent}: no such network device (VLAN sub-interfaces are not made; make it first)")
        if link.kind == "macvlan":
            raise InvalidRequest(f"parent {parent} is itself a macvlan link")
        mtu = options.get(MTU_OPTION, "") or str(link.mtu)
        if not (mtu.isascii() and mtu.isdigit() and len(mtu) < 6 and 68 <= int(mtu) <= link.mtu):
            raise InvalidRequest(
                f"invalid value for option {MTU_OPTION}: {mtu[:32]!r} is no MTU between 68 and the parent's {link.mtu}"
            )
        return structs.replace(info, link=parent, made_link=False, mtu=int(mtu))

    def create(self, info: NetworkInfo) -> None:
        """See that the parent is there and up."""
        route = self._host.route
        if route.link(info.link) is None:
            if not info.made_link:
                raise NotFound(f"parent {info.link} of network {info.name} is not there")
            # The other end goes where nobody is; this one is a parent like any other.
            with ExitStack() as undo:
                here = undo.enter_context(netns.current())
                pair = rtnl.Veth(info.link, 0, info.mtu, here.fileno(), f"{info.link[:-1]}p", "02:42:00:00:00:01")
                route.talk([rtnl.new_veth(pair), rtnl.link_up(info.link), rtnl.link_up(pair.peer)])
            for name in (pair.name, pair.peer):
                with contextlib.suppress(FileNotFoundError):
                    netns.write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
        else:
            route.talk([rtnl.link_up(info.link)])

    def remove(self, info: NetworkInfo) -> None:
        if info.made_link:
            self._host.route.talk([rtnl.delete_link(info.link)], tolerate=_GONE)

    def attach(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int, routes: frozenset[int]) -> None:
        """Make the link inside at once: on the host it never shows."""
        link = self._host.route.link(info.link)
        if link is None:
            raise NotFound(f"parent {info.link} of network {info.name} is not there")
        self.limit(endpoint)
        mode = info.options.get(MODE, "") or "bridge"
        mac = "" if mode == "passthru" else endpoint.mac
        wanted = rtnl.Macvlan(link.index, mode, endpoint.mtu, netns_fd, endpoint.ifname, mac)
        self._host.route.talk([rtnl.new_macvlan(wanted)])
        try:
            inside.configure(endpoint, netns_fd, routes)
        except BaseException:
            inside.remove_link(netns_fd, endpoint.ifname)
            raise

    def limit(self, endpoint: Endpoint) -> None:
        """Nothing of the link is on the host, where a limit could not be undone."""
        if any(shaping.limits(endpoint.options)):
            raise Unsupported("bandwidth limits are not supported on macvlan networks")

    def detach(self, info: NetworkInfo, endpoint: Endpoint) -> None:
        """Nothing of it is on the host: the link goes with the namespace, or by `leave`."""

    def leave(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int) -> None:
        inside.remove_link(netns_fd, endpoint.ifname)

    def repair(self, info: NetworkInfo, endpoints: Sequence[Endpoint]) -> bool:
        wanting = self._host.route.link(info.link) is None
        self.create(info)
        return wanting

    def present(self, endpoint: Endpoint) -> bool:
        return True
