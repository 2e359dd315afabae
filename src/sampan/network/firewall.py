"""The daemon's tables in the kernel: which networks and endpoints they hold, and how they are made anew."""

from __future__ import annotations

import contextlib

from sampan.kernel.nftables import BRIDGE, IPV4, IPV6, Batch, Nftables
from sampan.network import passage
from sampan.network.filters import Open, Tables, Zone, table_name
from sampan.network.records import Endpoint


class Firewall:
    """Not thread-safe: its owner holds a lock.  Every change is one transaction of the kernel.

    When a change meets tables that somebody emptied, all is made anew, the change included.
    """

    def __init__(self, name: str) -> None:
        self.table = table_name(name)
        self._nft = Nftables()
        self._zones: dict[str, Zone] = {}
        self._open: dict[str, Open] = {}
        self._leaving: list[Open] = []  # forgotten, but still in the kernel: the next change takes them out
        self._bridges: set[str] = set()
        self._six = False
        self._made = False

    @property
    def port(self) -> int:
        """Return the netlink socket's number, by which its own changes are told from others'."""
        return self._nft.port

    def close(self) -> None:
        self._nft.close()
        self._zones.clear()
        self._open.clear()
        self._leaving.clear()

    def remake(self) -> None:
        """Make all tables anew, in one transaction.  Raises OSError."""
        self._six = self._six or any(zone.ipv6 for zone in self._zones.values())
        tables = Tables(self.table, six=self._six)
        tables.build()
        tables.zones(list(self._zones.values()), add=True)
        tables.endpoints(self._open.values(), add=True)
        self._nft.commit(*tables.batches)
        self._leaving.clear()
        self._made = True
        self.pass_through()

    def pass_through(self) -> None:
        """See that others' FORWARD policy does not stop what these tables let pass (passage.py)."""
        passage.ensure(self._nft, [zone.bridge for zone in self._zones.values()])

    def delete(self) -> None:
        """Delete the tables; those that are not there are passed over."""
        passage.withdraw(self._nft, self._bridges)
        for family in (IPV4, IPV6, BRIDGE):
            batch = Batch(self.table, family)
            batch.delete_table()
            with contextlib.suppress(FileNotFoundError):
                self._nft.commit(batch)
        self._made = self._six = False

    def add_zone(self, network: str, zone: Zone) -> None:
        """Let a network in.  Raises OSError, and the network is not in."""
        self._zones[network] = zone
        self._bridges.add(zone.bridge)
        try:
            self._zone(zone, add=True)
        except BaseException:
            del self._zones[network]
            raise

    def remove_zone(self, network: str) -> None:
        """Forget a network; one that is not known is passed over."""
        zone = self._zones.pop(network, None)
        if zone is not None:
            self._zone(zone, add=False)

    def _zone(self, zone: Zone, *, add: bool) -> None:
        if not self._made:
            return
        if add and zone.ipv6 and not self._six:
            self.remake()
            return
        tables = self._change()
        tables.zones([zone], add=add)
        self._commit(tables)
        if add:
            passage.ensure(self._nft, [zone.bridge])
        else:
            passage.withdraw(self._nft, [zone.bridge])

    def open(self, network: str, endpoint: Endpoint) -> None:
        """Let an endpoint in: its published ports, what its link may say.  Raises OSError, and it is not in."""
        self._open[endpoint.id] = (self._zones[network], endpoint)
        try:
            self._endpoint(endpoint.id, add=True)
        except BaseException:
            del self._open[endpoint.id]
            raise

    def shut(self, endpoint: str) -> None:
        """Forget an endpoint; one that is not open is passed over.

        Nothing leads to an endpoint without published ports but its link: its elements may stay until the next change, or `tidy`.
        """
        if endpoint in self._open:
            if self._made and not self._open[endpoint][1].published:
                self._leaving.append(self._open.pop(endpoint))
                return
            try:
                self._endpoint(endpoint, add=False)
            finally:
                self._open.pop(endpoint, None)

    def tidy(self) -> None:
        """Take out of the kernel what is forgotten."""
        if self._leaving and self._made:
            self._commit(self._change())

    def replace(self, endpoint: Endpoint) -> None:
        """Exchange an open endpoint's elements for those it has now; in one transaction."""
        zone, old = self._open[endpoint.id]
        self._open[endpoint.id] = (zone, endpoint)
        tables = self._change()
        tables.endpoints([(zone, old)], add=False)
        tables.endpoints([(zone, endpoint)], add=True)
        try:
            self._commit(tables)
        except BaseException:
            self._open[endpoint.id] = (zone, old)
            raise

    def _endpoint(self, endpoint: str, *, add: bool) -> None:
        if self._made:
            tables = self._change()
            tables.endpoints([self._open[endpoint]], add=add)
            if not add:
                del self._open[endpoint]  # so that a table made anew is without it
            self._commit(tables)

    def _change(self) -> Tables:
        """Begin a change: with the removal of what is forgotten, whose addresses may be somebody else's in the same transaction."""
        tables = Tables(self.table, six=self._six)
        tables.endpoints(self._leaving, add=False)
        return tables

    def _commit(self, tables: Tables) -> None:
        try:
            self._nft.commit(*tables.batches)
            self._leaving.clear()
        except FileNotFoundError:  # somebody has just deleted a table or an element: the whole anew
            self.remake()

    def whole(self) -> bool:
        """Return whether the tables exist and hold a set of each kind (a look, not a proof)."""
        families = (IPV4, IPV6, BRIDGE) if self._six else (IPV4, BRIDGE)
        return all(self._nft.has_table(self.table, family) for family in families)

    def obstacles(self) -> list[str]:
        """Return what of others stops what is forwarded, in words."""
        bridges = [zone.bridge for zone in self._zones.values()]
        return [
            *(
                f"table {chain.table}, chain {chain.name} drops what is forwarded: containers may not reach other hosts"
                for chain in passage.others(self._nft)
            ),
            *(
                f"firewalld has bridge {bridge} in no zone and rejects what its containers send to others:"
                f" firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
                for bridge in passage.unzoned(self._nft, bridges)
            ),
        ]
