"""The macvlan driver: each endpoint a link on a parent (parents.py), seen by the LAN as a host with a MAC of its own."""

from __future__ import annotations

from sampan.errors import Conflict, InvalidRequest
from sampan.kernel import rtnl
from sampan.network.parents import OnParent
from sampan.network.records import Endpoint, NetworkInfo

MODE = "macvlan_mode"


class Macvlan(OnParent):
    """See driver.Driver."""

    kind = "macvlan"

    def judge(self, info: NetworkInfo) -> None:
        if info.options.get(MODE, "") not in ("", *rtnl.MACVLAN_MODES):
            raise InvalidRequest(f"unknown macvlan mode {info.options[MODE][:32]!r}: one of {', '.join(rtnl.MACVLAN_MODES)}")

    def mac(self, info: NetworkInfo) -> str:
        """In passthru mode the kernel gives the link its parent's."""
        parent = self._host.route.link(info.link) if _mode(info) == "passthru" else None
        return parent.mac if parent is not None else ""

    def beside(self, info: NetworkInfo, other: NetworkInfo) -> None:
        """A link in passthru mode has its parent for itself."""
        parent = other.link
        if _mode(info) == "passthru":
            raise Conflict(f"cannot use mode passthru, macvlan network {other.name} is already using parent interface {parent}")
        if _mode(other) == "passthru":
            raise Conflict(f"macvlan network {other.name} is already using parent interface {parent} in mode passthru")

    def link(self, info: NetworkInfo, endpoint: Endpoint, parent: int, netns_fd: int) -> rtnl.Child:
        mode = _mode(info)
        mac = "" if mode == "passthru" else endpoint.mac
        return rtnl.Child("macvlan", rtnl.macvlan(mode), parent, endpoint.mtu, netns_fd, endpoint.ifname, mac)


def _mode(info: NetworkInfo) -> str:
    return info.options.get(MODE, "") or "bridge"
