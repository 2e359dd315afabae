"""The contract of network drivers, and where they come from.

A driver makes a network real: on the host (`create`, `remove`) and in containers' namespaces (`attach`, `detach`).
Names, records, addresses and host ports are not its business; they are settled before it is called.

    driver.check(info)                   before anything exists; says no, or fills in what it chooses itself
    driver.create(info)                  at creation, and again at every start of the daemon: adopts what is there
    driver.attach(info, endpoint, fd)    once for an endpoint; all or nothing
    driver.detach(info, endpoint)        whatever became of the link; again does nothing
    driver.remove(info)                  without endpoints; again does nothing

Another package adds a driver by an entry point of group `sampan.network_drivers`, whose name is the driver's and whose
value is called with the Host: `mine = "package.module:Mine"`.  It is imported when a network of that driver is first
created or found at start.  tests/contracts/network_driver.py is its exam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sampan.errors import NotFound
from sampan.network.host import Host
from sampan.network.records import Endpoint, NetworkInfo

GROUP = "sampan.network_drivers"


class Driver(Protocol):
    """See the module.  Methods raise SampanError kinds or OSError; they are called under the networks' lock or, attach, beside it.

    addresses: whether its networks lease addresses; publishes: whether ports can be published on them; macs: whether
    its links have MAC addresses of their own, which endpoints may choose.
    """

    addresses: bool
    publishes: bool
    macs: bool

    def check(self, info: NetworkInfo) -> NetworkInfo: ...
    def mac(self, info: NetworkInfo) -> str:
        """Return the MAC address that all its endpoints have, and may not choose; "" where each has its own."""
        ...

    def create(self, info: NetworkInfo) -> None: ...
    def remove(self, info: NetworkInfo) -> None: ...
    def attach(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int, routes: frozenset[int]) -> None:
        """Make the link in the namespace (borrowed); default routes for the IP versions of `routes`."""
        ...

    def limit(self, endpoint: Endpoint) -> None:
        """Make an attached link's bandwidth what the endpoint's options say (shaping.py).  Raises Unsupported."""
        ...

    def detach(self, info: NetworkInfo, endpoint: Endpoint) -> None: ...
    def leave(self, info: NetworkInfo, endpoint: Endpoint, netns_fd: int) -> None:
        """Take the link out of a namespace that goes on (borrowed), after `detach`; it is gone when this returns."""
        ...

    def repair(self, info: NetworkInfo, endpoints: Sequence[Endpoint]) -> bool:
        """Make again what is wanting of a network and its endpoints on the host; return whether anything was."""
        ...

    def present(self, endpoint: Endpoint) -> bool:
        """Whether the link of an attached endpoint still is, as far as the host can see."""
        ...


class Drivers:
    """The drivers of one daemon, each made when it is first needed."""

    def __init__(self, host: Host, known: dict[str, Callable[[Host], Driver]]) -> None:
        self._host = host
        self._known = known
        self._made: dict[str, Driver] = {}

    def find(self, name: str) -> Driver:
        """Return the driver of that name.  Raises NotFound in Docker's words."""
        if name not in self._made:
            maker = self._known.get(name) or _foreign(name)
            if maker is None:
                raise NotFound(f'could not find plugin {name[:64]} in v1 plugin registry: plugin "{name[:64]}" not found')
            self._made[name] = maker(self._host)
        return self._made[name]


def _foreign(name: str) -> Callable[[Host], Driver] | None:
    from importlib import metadata  # slow, and hardly ever needed

    for entry in metadata.entry_points(group=GROUP):
        if entry.name == name:
            found: Callable[[Host], Driver] = entry.load()
            return found
    return None
