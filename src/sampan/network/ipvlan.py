"""The ipvlan driver: each endpoint a link on a parent (parents.py), all with the parent's MAC, told apart by address.

Mode l2 (the default) is a LAN of its own; in l3 and l3s the host routes, and no neighbour is asked for an address.  The
flag says how a parent's endpoints meet: bridge (they do), private (they do not), vepa (the next switch decides).  The kernel
has one mode and one flag for all links of a parent.
"""

from __future__ import annotations

from sampan.errors import Conflict, InvalidRequest, Unsupported
from sampan.kernel import rtnl
from sampan.network.parents import OnParent
from sampan.network.records import Endpoint, NetworkInfo

MODE, FLAG = "ipvlan_mode", "ipvlan_flag"


class Ipvlan(OnParent):
    """See driver.Driver."""

    kind = "ipvlan"
    macs = False

    def judge(self, info: NetworkInfo) -> None:
        for key, known in ((MODE, rtnl.IPVLAN_MODES), (FLAG, rtnl.IPVLAN_FLAGS)):
            if info.options.get(key, "") not in ("", *known):
                raise InvalidRequest(f"unknown {key} {info.options[key][:32]!r}: one of {', '.join(known)}")
        if not self._host.route.knows("ipvlan"):
            raise Unsupported("network driver ipvlan is not supported: this kernel has no ipvlan (CONFIG_IPVLAN); use macvlan")

    def beside(self, info: NetworkInfo, other: NetworkInfo) -> None:
        if _how(info) != _how(other):
            mode, flag = _how(other)
            raise Conflict(f"ipvlan network {other.name} uses parent interface {other.link} in mode {mode}, flag {flag}")

    def link(self, info: NetworkInfo, endpoint: Endpoint, parent: int, netns_fd: int) -> rtnl.Child:
        return rtnl.Child("ipvlan", rtnl.ipvlan(*_how(info)), parent, endpoint.mtu, netns_fd, endpoint.ifname, "")


def _how(info: NetworkInfo) -> tuple[str, str]:
    return info.options.get(MODE, "") or "l2", info.options.get(FLAG, "") or "bridge"
