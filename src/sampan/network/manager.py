"""Networks: the default bridge with its leases, links and published ports; `host` and `none` for the record.

The life of an endpoint, all of it synchronous and callable from any thread:

    endpoint = networks.reserve("bridge", container_id)           # a durable lease
    endpoint = networks.publish_reserve(endpoint, bindings)       # host ports held (a socket each), durable
    networks.attach(endpoint, netns_fd)                           # veth pair, address, route; ports open
    networks.detach(endpoint)                                     # everything undone; again does nothing

A restarted daemon calls start(), which remakes the table from the records in one transaction and holds the ports
again, then `adopt` for every container that still runs and `detach` for the rest of `active()`.
The namespace that counts as the host's is that of the thread that constructs Networks and calls it.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import ipaddress
import secrets
import threading
from collections.abc import Sequence
from contextlib import ExitStack

import msgspec

from sampan.errors import Broken, Conflict, InvalidRequest, NotFound
from sampan.kernel import netns, rtnl
from sampan.kernel.nftables import DROP, FORWARD, Batch, Nftables
from sampan.network import filters, links
from sampan.network.addresses import Pool, mac_of, parse_bip
from sampan.network.ports import Ports, PortTaken
from sampan.network.records import Endpoint, NetworkInfo, PortBinding, Published
from sampan.network.upkeep import Upkeep
from sampan.state import State, Table

_PREDEFINED = (("bridge", "bridge"), ("host", "host"), ("none", "null"))


class HostSettings(msgspec.Struct, frozen=True):
    """What of the host this daemon changed: the setting as it was ("": not changed), whether the bridge is its own."""

    ip_forward: str = ""
    made_bridge: bool = False


class Networks:
    """The networks of one daemon.

    bridge: its link's name; bip: its address as ADDRESS/PREFIX (default: the first free of Docker's pools, then
    always the same); instance: the daemon's own word, told in the networks' options.
    Raises InvalidRequest for a bad bridge name or address.
    """

    def __init__(self, state: State, *, bridge: str = "sampan0", bip: str | None = None, instance: str = "") -> None:
        try:
            rtnl.check_name(bridge)
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
        self.bridge = bridge
        self.instance = instance
        self._bip = parse_bip(bip) if bip else None
        self._state = state
        self._infos: Table[NetworkInfo] = Table(state, "network", NetworkInfo)
        self._records: Table[Endpoint] = Table(state, "endpoint", Endpoint)
        self._settings: Table[HostSettings] = Table(state, "network-host", HostSettings)
        self._mutex = threading.RLock()
        self._ports = Ports()
        self._endpoints: dict[str, Endpoint] = {}
        self._open: set[str] = set()  # ids of the endpoints whose published ports are in the table
        self._refused: dict[str, str] = {}  # ids whose ports somebody took while no daemon held them
        self._networks: dict[str, NetworkInfo] = {}
        self._pool: Pool | None = None
        self._index = 0
        self._route: rtnl.Route | None = None
        self._nft: Nftables | None = None
        self._upkeep: Upkeep | None = None

    # -- the bridge ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make or adopt the bridge, settings and table; hold recorded ports again.  A second call does nothing.

        Raises Conflict when the name is another kind of link's, or the bridge has another address than `bip`.
        """
        with self._mutex:
            if self._upkeep is not None:
                return
            with ExitStack() as undo:
                self._route = rtnl.Route()
                undo.callback(self._route.close)
                self._nft = Nftables()
                undo.callback(self._nft.close)
                if self._route.link(self.bridge) is None:
                    self._remember(made_bridge=True)
                    undo.callback(self._put_settings_back, self._route)
                self._index, gateway = links.make_bridge(self._route, self.bridge, self._bip, self._remembered)
                self._pool = Pool(gateway)
                self._write_settings()
                self._name_networks(gateway)
                undo.callback(self._ports.close)
                self._take_up()
                if not self._endpoints:
                    undo.callback(filters.remove, self._nft, self.bridge)
                self._remake()
                table = filters.table_name(self.bridge)
                self._upkeep = Upkeep(self.bridge, table, self._nft.port, self._restore)
                undo.pop_all()

    def stop(self, *, remove: bool = False) -> None:
        """End the thread and give the ports up; with `remove`, undo what was made: table, bridge, changed settings.

        Raises Conflict, and does nothing, when `remove` is asked for while endpoints exist.
        """
        with self._mutex:
            if self._upkeep is None:
                return
            if remove and self._endpoints:
                raise Conflict(f"network bridge has {len(self._endpoints)} active endpoints")
            upkeep, self._upkeep = self._upkeep, None
        upkeep.close()  # not under the lock: its thread may be about to take it
        with self._mutex:
            route, nft = self._started()
            self._ports.close()
            if remove:
                filters.remove(nft, self.bridge)
                self._put_settings_back(route)
            route.close()
            nft.close()
            self._route = self._nft = None
            self._endpoints.clear()
            self._open.clear()

    def _started(self) -> tuple[rtnl.Route, Nftables]:
        if self._route is None or self._nft is None:
            raise Broken("the network was not started")
        return self._route, self._nft

    def _remembered(self) -> ipaddress.IPv4Interface | None:
        for _, info in self._infos.items():
            if info.name == "bridge" and info.subnet:
                return ipaddress.IPv4Interface(f"{info.gateway}/{info.subnet.partition('/')[2]}")
        return None

    def _write_settings(self) -> None:
        before = netns.read_sysctl("ipv4/ip_forward")
        if before != "1":
            self._remember(ip_forward=before)  # first the memory, then the change
            netns.write_sysctl("ipv4/ip_forward", "1")

    def _remember(self, **changed: str | bool) -> None:
        before = self._settings.get(self.bridge) or HostSettings()
        self._settings.put(self.bridge, msgspec.structs.replace(before, **changed))

    def _put_settings_back(self, route: rtnl.Route) -> None:
        before = self._settings.get(self.bridge)
        if before is None:
            return
        if before.made_bridge:
            route.talk([rtnl.delete_link(self.bridge)], tolerate=frozenset({errno.ENODEV}))
        if before.ip_forward and not any(link.kind == "bridge" for link in route.links()):
            netns.write_sysctl("ipv4/ip_forward", before.ip_forward)  # another bridge may have come to rely on it
        self._settings.delete(self.bridge)

    def _name_networks(self, gateway: ipaddress.IPv4Interface) -> None:
        known = {info.name: info for _, info in self._infos.items()}
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        for name, driver in _PREDEFINED:
            info = known.get(name) or NetworkInfo(id=secrets.token_hex(32), name=name, driver=driver, created=now)
            if driver == "bridge":
                options = {
                    "com.docker.network.bridge.default_bridge": "true",
                    "com.docker.network.bridge.enable_icc": "true",
                    "com.docker.network.bridge.enable_ip_masquerade": "true",
                    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
                    "com.docker.network.bridge.name": self.bridge,
                    "com.docker.network.driver.mtu": str(links.MTU),
                }
                place = {"subnet": str(gateway.network), "gateway": str(gateway.ip)}
                info = msgspec.structs.replace(info, **place, options=options)
            if info != known.get(name):
                self._infos.put(info.id, info)
            self._networks[info.id] = info

    def _take_up(self) -> None:
        pool = self._pool
        for _, endpoint in self._records.items():
            if pool is None or ipaddress.IPv4Address(endpoint.ip) not in pool.network:
                self._refused[endpoint.id] = f"address {endpoint.ip} is outside the bridge's subnet"
            else:
                with contextlib.suppress(Conflict):
                    pool.take(endpoint.ip)
            self._endpoints[endpoint.id] = endpoint
            try:
                self._ports.hold_again(endpoint.id, endpoint.published)
            except Broken as error:
                self._refused[endpoint.id] = str(error)
            if endpoint.id not in self._refused:
                self._open.add(endpoint.id)

    def _remake(self) -> None:
        _, nft = self._started()
        if self._pool is not None:
            opened = [self._endpoints[key] for key in self._open]
            nft.commit(filters.build(self.bridge, self._pool.gateway, opened))

    def _restore(self) -> None:
        with self._mutex:
            if self._upkeep is not None:
                self._remake()

    # -- what there is ---------------------------------------------------------------------------------------------

    def list(self) -> list[NetworkInfo]:
        """Return the networks: bridge, host, none."""
        with self._mutex:
            return list(self._networks.values())

    def get(self, reference: str) -> NetworkInfo:
        """Return the network of that name, id or beginning of an id.  Raises NotFound, InvalidRequest when ambiguous."""
        infos = self.list()
        wanted = "bridge" if reference == "default" else reference
        for info in infos:
            if wanted in (info.name, info.id):
                return info
        found = [info for info in infos if wanted and info.id.startswith(wanted)]
        if len(found) > 1:
            raise InvalidRequest(f"network {reference} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {reference} not found")
        return found[0]

    def active(self) -> Sequence[Endpoint]:
        """Return the endpoints that exist."""
        with self._mutex:
            return list(self._endpoints.values())

    def problems(self) -> Sequence[str]:
        """Return what keeps containers from being reached, in words for `info`: others' rules, lost ports."""
        with self._mutex:
            _, nft = self._started()
            found = [f"endpoint {key[:12]}: {reason}" for key, reason in self._refused.items()]
            if self._upkeep is not None and self._upkeep.problem:
                found.append(self._upkeep.problem)
        for chain in nft.chains():
            if chain.hook == FORWARD and chain.policy == DROP and chain.family in (1, 2):
                found.append(
                    f"table {chain.table}, chain {chain.name} drops what is forwarded (dockerd sets this):"
                    " containers may not reach other hosts"
                )
        return found

    # -- endpoints -------------------------------------------------------------------------------------------------

    def reserve(self, network: str, container_id: str, *, mac: str | None = None, ipv4: str | None = None) -> Endpoint:
        """Lease an address on the bridge; durable when it returns.

        Raises NotFound, InvalidRequest (bad address, MAC, or a network without addresses), Conflict (address or
        container has a place already), Unavailable (subnet full).
        """
        info = self.get(network)
        if info.driver != "bridge":
            raise InvalidRequest(f"network {info.name} gives no addresses")
        try:
            if mac and rtnl.mac_bytes(mac)[0] & 1:
                raise ValueError(f"invalid MAC address {mac!r}")
        except ValueError:
            raise InvalidRequest(f"invalid MAC address: {mac!r}") from None
        with self._mutex, ExitStack() as undo:
            pool = self._pool
            if pool is None:
                raise Broken("the network was not started")
            if any(e.container_id == container_id for e in self._endpoints.values()):
                raise Conflict(f"container {container_id[:12]} is attached to network {info.name} already")
            address = pool.take(ipv4)
            undo.callback(pool.give_back, str(address))
            key = secrets.token_hex(32)
            endpoint = Endpoint(
                id=key,
                network_id=info.id,
                container_id=container_id,
                ip=str(address),
                prefix=pool.network.prefixlen,
                gateway=str(pool.gateway.ip),
                mac=mac.lower() if mac else mac_of(address),
                veth_host=f"veth{key[:8]}",
                mtu=info.mtu,
            )
            self._records.put(key, endpoint)
            self._endpoints[key] = endpoint
            undo.pop_all()
        return endpoint

    def publish_reserve(self, endpoint: Endpoint, ports: Sequence[PortBinding], *, name: str = "") -> Endpoint:
        """Hold a host port for each binding, all or none; return the endpoint with its `published`.

        name: the container's, for Docker's words.  Raises Broken (a port is taken), InvalidRequest, Unsupported.
        """
        if not ports:
            return endpoint
        with self._mutex, ExitStack() as undo:
            if endpoint.id not in self._endpoints:
                raise NotFound(f"endpoint {endpoint.id[:12]} not found")
            undo.callback(self._ports.release, endpoint.id)
            try:
                published = self._ports.hold(endpoint.id, [*ports])
            except PortTaken as error:
                raise PortTaken(
                    "driver failed programming external connectivity on endpoint "
                    f"{name or endpoint.container_id[:12]} ({endpoint.id}): {error}"
                ) from error
            endpoint = msgspec.structs.replace(endpoint, published=tuple(published))
            self._records.put(endpoint.id, endpoint)
            self._endpoints[endpoint.id] = endpoint
            undo.pop_all()
        return endpoint

    def attach(self, endpoint: Endpoint, netns_fd: int) -> Endpoint:
        """Give the namespace `netns_fd` (borrowed) its eth0, and open the published ports.  About 1.2 ms.

        On failure the link is gone again; the lease and the held ports stay until `detach`.  Raises OSError, NotFound.
        """
        with self._mutex:
            if endpoint.id not in self._endpoints:
                raise NotFound(f"endpoint {endpoint.id[:12]} not found")
            endpoint = self._endpoints[endpoint.id]
            route, nft = self._started()
            upkeep, index = self._upkeep, self._index
        pair = rtnl.Veth(endpoint.veth_host, index, endpoint.mtu, netns_fd, "eth0", endpoint.mac)
        with ExitStack() as undo:
            route.talk([rtnl.new_veth(pair)])
            if upkeep is not None:
                undo.callback(upkeep.sweep, pair.name)
            # Bridge ports carry no address of their own; without this each would send its router solicitations in.
            with contextlib.suppress(FileNotFoundError):
                netns.write_sysctl(f"ipv6/conf/{pair.name}/disable_ipv6", "1")
            links.configure(endpoint, netns_fd)
            route.talk([rtnl.port_up(pair.name)])
            with self._mutex:
                batch = Batch(filters.table_name(self.bridge))
                filters.publish(batch, [endpoint])
                self._open.add(endpoint.id)
                undo.callback(self._open.discard, endpoint.id)
                try:
                    nft.commit(batch)
                except FileNotFoundError:  # somebody has just deleted the table
                    self._remake()
            undo.pop_all()
        return endpoint

    def adopt(self, endpoint: Endpoint, published: Sequence[Published] | None = None) -> Endpoint:
        """Take a running container's endpoint over after start(); return it as recorded.

        Raises NotFound when it is not recorded, Conflict when its link is gone or one of its ports is somebody
        else's now (its ports are closed then).
        """
        with self._mutex:
            found = self._endpoints.get(endpoint.id)
            if found is None:
                raise NotFound(f"endpoint {endpoint.id[:12]} not found")
            if endpoint.id in self._refused:
                raise Conflict(self._refused[endpoint.id])
            if published is not None and tuple(published) != found.published:
                raise Conflict(f"endpoint {endpoint.id[:12]} has other published ports than recorded")
            route, _ = self._started()
            if route.link(found.veth_host) is None:
                raise Conflict(f"link {found.veth_host} of endpoint {endpoint.id[:12]} is gone")
        return found

    def detach(self, endpoint: Endpoint) -> None:
        """Close the ports, delete the link (soon, in the background), free the lease.  A second call does nothing."""
        with self._mutex:
            found = self._endpoints.pop(endpoint.id, None)
            if found is None:
                return
            _, nft = self._started()
            if endpoint.id in self._open:
                self._open.discard(endpoint.id)
                batch = Batch(filters.table_name(self.bridge))
                filters.withdraw(batch, [found])
                try:
                    nft.commit(batch)
                except FileNotFoundError:  # somebody took elements away: make the whole anew
                    self._remake()
            self._ports.release(endpoint.id)
            self._refused.pop(endpoint.id, None)
            self._records.delete(endpoint.id)
            if self._pool is not None and ipaddress.IPv4Address(found.ip) in self._pool.network:
                self._pool.give_back(found.ip)
            if self._upkeep is not None:
                self._upkeep.sweep(found.veth_host)

    def settle(self) -> None:
        """Wait until the links of detached endpoints are gone (tests, orderly ends)."""
        upkeep = self._upkeep
        if upkeep is not None:
            upkeep.settle()
