"""Endpoints: leases, links and published ports of containers, on any network.

    endpoint = networks.reserve("bridge", container_id, Wanted())      # a lease that survives the daemon
    endpoint = networks.publish_reserve(endpoint, bindings)            # host ports held (a socket each), durable
    networks.attach(endpoint, netns_fd)                                # link, addresses, routes; ports open
    networks.detach(endpoint)                                          # everything undone; again does nothing

All of it synchronous and callable from any thread.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import ip_address, ip_network

from msgspec import structs

from sampan.errors import Broken, Conflict, Forbidden, InvalidRequest, NotFound
from sampan.kernel import rtnl
from sampan.network import inside, shaping
from sampan.network.addresses import Address, Pool, mac_of
from sampan.network.publish import Publishing
from sampan.network.records import Endpoint, NetworkInfo, Published, Wanted
from sampan.network.resolver import Spaces

_NO_CHOICE = (
    "invalid endpoint settings:\n"
    "user specified IP address is supported only when connecting to networks with user configured subnets"
)
BOTH = frozenset({4, 6})


class Endpoints(Publishing):
    """The endpoints of one daemon; manager.Networks is what there is of it, and knows the networks."""

    def gateways(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint | None, Endpoint | None]:
        """Return the endpoints by which a container's IPv4 and IPv6 leave: highest priority, then first by name."""

        def order(one: Endpoint) -> tuple[int, str]:
            return (-one.priority, self.network_of(one).name)

        four = sorted((one for one in endpoints if one.gateway), key=order)
        six = sorted((one for one in endpoints if one.gateway6), key=order)
        return (four[0] if four else None), (six[0] if six else None)

    def host_gateway(self, endpoints: Sequence[Endpoint]) -> str:
        """Return the address at which containers with these endpoints find the host; "" when they do not."""
        if self.defaults.host_gateway_ip:
            return self.defaults.host_gateway_ip
        for one in endpoints:
            for text in (one.ip if one.gateway else "", one.ip6 if one.gateway6 else ""):
                for subnet in self.network_of(one).subnets if text else ():
                    if ip_address(text) in ip_network(subnet.subnet):
                        return subnet.gateway
        return ""

    # -- leases ------------------------------------------------------------------------------------------------------

    def reserve(self, network: str, container_id: str, wanted: Wanted = Wanted()) -> Endpoint:
        """Lease addresses on a network; the lease survives the daemon, and a power cut ends what leased it.

        Raises NotFound, InvalidRequest (bad address, MAC, or a network without addresses), Conflict (interface name),
        Forbidden (there already, address taken), Unavailable (subnet full).
        """
        info = self.get(network)
        driver = self._driver(info)
        if not driver.addresses:
            raise InvalidRequest(f"network {info.name} gives no addresses")
        _check(wanted, info)
        fixed = driver.mac(info)
        if wanted.mac and (fixed or not driver.macs):
            raise InvalidRequest(f"{info.driver} interfaces do not support custom mac address assignment")
        with self._mutex, ExitStack() as undo:
            if info.id not in self._networks:
                raise NotFound(f"network {network} not found")
            own = [one for one in self._endpoints.values() if one.container_id == container_id]
            if any(one.network_id == info.id for one in own):
                raise Forbidden(f"endpoint with name {container_id[:12]} already exists in network {info.name}")
            key = secrets.token_hex(32)
            four = self._lease(info, 4, wanted.ipv4, undo) if info.ipv4 else None
            six = self._lease(info, 6, wanted.ipv6, undo) if info.ipv6 else None
            first = (four or six or (None, None))[0]
            if first is None:
                raise Broken(f"network {info.name} has no subnet")
            endpoint = Endpoint(
                id=key, network_id=info.id, container_id=container_id, ip=str(four[0]) if four else "",
                prefix=four[1].network.prefixlen if four else 0, gateway=four[1].gateway if four and not info.internal else "",
                ip6=str(six[0]) if six else "", prefix6=six[1].network.prefixlen if six else 0,
                gateway6=six[1].gateway if six and not info.internal else "", link_local=wanted.link_local,
                mac=(fixed or _mac(wanted, first)) if driver.macs else "", veth_host=f"veth{key[:8]}", mtu=info.mtu,
                ifname=wanted.ifname or _free_name(info, own), priority=wanted.priority, options=wanted.options,
                names=wanted.names, links=wanted.links, servers=wanted.servers or self.defaults.dns,
            )  # fmt: skip
            if any(one.ifname == endpoint.ifname for one in own):
                raise Conflict(f"interface name {endpoint.ifname} is taken in container {container_id[:12]}")
            self._records.put(key, endpoint, volatile=True)
            self._endpoints[key] = endpoint
            undo.pop_all()
        return endpoint

    def _lease(self, info: NetworkInfo, version: int, wanted: str, undo: ExitStack) -> tuple[Address, Pool]:
        pools = [pool for pool in self._pools.get(info.id, ()) if pool.network.version == version]
        if wanted:
            if not any(pool.record.chosen for pool in pools):
                raise InvalidRequest(_NO_CHOICE)
            chosen = [pool for pool in pools if ip_address(wanted) in pool.network]
            if not chosen:
                raise InvalidRequest(f"no configured subnet or ip-range contain the IP address {wanted}")
            address, pool = chosen[0].take(wanted), chosen[0]
        else:
            room = [pool for pool in pools if pool.free()]
            if not pools:
                raise Broken(f"network {info.name} has no IPv{version} subnet")
            pool = (room or pools)[0]
            address = pool.take()
        undo.callback(pool.give_back, str(address))
        return address, pool

    def _unlease(self, endpoint: Endpoint) -> None:
        for text in (endpoint.ip, endpoint.ip6):
            for pool in self._pools.get(endpoint.network_id, ()):
                if text and ip_address(text) in pool.network:
                    pool.give_back(text)

    # -- links -------------------------------------------------------------------------------------------------------

    def attach(self, endpoint: Endpoint, netns_fd: int, routes: frozenset[int] = BOTH) -> Endpoint:
        """Give the namespace `netns_fd` (borrowed) the endpoint's link, and open the published ports.  About 1 ms.

        routes: for which IP versions it is the way out.  On failure the link is gone again; the lease and the held ports
        stay until `detach`.  Raises OSError, NotFound.
        """
        with self._mutex:
            if endpoint.id not in self._endpoints:
                raise NotFound(f"endpoint {endpoint.id[:12]} not found")
            endpoint = self._endpoints[endpoint.id]
            info = self.network_of(endpoint)
            driver, host = self._driver(info), self._started()
        driver.attach(info, endpoint, netns_fd, routes)
        try:
            if driver.publishes:
                with self._mutex:
                    host.firewall.open(info.id, endpoint)
                    self._carry(endpoint)
            if self.names is not None and endpoint.names:
                self.names.put(endpoint, info)
                self.names.serve(endpoint.container_id, endpoint.servers, netns_fd)
        except BaseException:
            self._drop(endpoint.id, endpoint.published)
            host.firewall.shut(endpoint.id)
            driver.detach(info, endpoint)
            raise
        return endpoint

    def attach_all(self, endpoints: Sequence[Endpoint], netns_fd: int) -> None:
        """Attach a starting container's endpoints, in order, with the default routes where they belong."""
        four, six = self.gateways(endpoints)
        for endpoint in endpoints:
            routes = {version for version, chosen in ((4, four), (6, six)) if chosen is not None and chosen.id == endpoint.id}
            self.attach(endpoint, netns_fd, frozenset(routes))

    def reroute(self, container: str, netns_fd: int) -> None:
        """Lead a running container's default routes by the right endpoints, after a change."""
        inside.reroute(netns_fd, *self.gateways(self.of(container)))

    def adopt(self, endpoint: Endpoint, published: Sequence[Published] | None = None) -> Endpoint:
        """Take a running container's endpoint over after start(); return it as recorded.

        Raises NotFound when it is not recorded or its link is gone or was never finished, Conflict when one of its ports
        is somebody else's now (its ports are closed then).
        """
        with self._mutex:
            found = self._endpoints.get(endpoint.id)
            if found is None:
                raise NotFound(f"endpoint {endpoint.id[:12]} not found")
            if endpoint.id in self._refused:
                raise Conflict(self._refused[endpoint.id])
            if published is not None and tuple(published) != found.published:
                raise Conflict(f"endpoint {endpoint.id[:12]} has other published ports than recorded")
            if not self._driver(self.network_of(found)).present(found):
                raise NotFound(f"link {found.veth_host} of endpoint {endpoint.id[:12]} is gone")
        return found

    def detach(self, endpoint: Endpoint) -> None:
        """Close the ports, delete the link (soon, in the background), free the lease.  A second call does nothing."""
        with self._mutex:
            found = self._endpoints.pop(endpoint.id, None)
            if found is None:
                return
            host = self._started()
            info = self._networks.get(found.network_id)
            if self.names is not None and found.names:
                self.names.drop(found.id)
                if not any(one.names for one in self.of(found.container_id)):
                    self.names.forget(found.container_id)
            try:
                host.firewall.shut(found.id)
            finally:
                self._drop(found.id, found.published)
                self._ports.release(found.id)
                self._refused.pop(found.id, None)
                self._records.delete(found.id, volatile=True)
                self._unlease(found)
                if info is not None:
                    self._driver(info).detach(info, found)

    def limit(self, endpoint: Endpoint, changed: dict[str, str]) -> Endpoint:
        """Change an attached endpoint's bandwidth (sampan.limit.in, .out) while it runs.  Raises InvalidRequest, Unsupported."""
        after = structs.replace(endpoint, options={**endpoint.options, **changed})
        shaping.limits(after.options)
        with self._mutex:
            if endpoint.id not in self._endpoints:
                raise NotFound(f"endpoint {endpoint.id[:12]} not found")
            self._driver(self.network_of(after)).limit(after)
            self._store(after)
        return after

    def leave(self, endpoint: Endpoint, netns_fd: int) -> None:
        """Detach a running container's endpoint; its link is gone from the namespace (borrowed) when this returns."""
        info = self.network_of(endpoint)
        self.detach(endpoint)
        self._driver(info).leave(info, endpoint, netns_fd)

    def rename(self, container: str, old: str, new: str) -> None:
        """A container has another name from now on."""
        with self._mutex:
            for one in self.of(container):
                if one.names:
                    names = tuple(dict.fromkeys(new if name == old else name for name in one.names))
                    after = structs.replace(one, names=names)
                    self._store(after)
                    if self.names is not None:
                        self.names.put(after, self.network_of(after))

    def watch(self, container: str, pidfd: int) -> None:
        """Let the answering process see a container's end by itself, for when no daemon is there (pidfd is borrowed)."""
        if self.names is not None:
            self.names.watch(container, pidfd)

    def serve_names(self, spaces: Spaces) -> None:
        """Find the process that answers names, or start it when running containers need it; once, after start().

        spaces: gives a running container's network namespace.
        """
        if self.names is None:
            return
        self.names.spaces = spaces
        self.names.remember({one.container_id: one.servers for one in self.active() if one.names})
        for endpoint in self.active():
            if endpoint.names:
                self.names.put(endpoint, self.network_of(endpoint))
            if endpoint.id not in self._refused:
                self._carry(endpoint)
        self.names.adopt()

    def settle(self) -> None:
        """Wait until the links of detached endpoints are gone (tests, orderly ends)."""
        if self._host is not None and self._host.upkeep is not None:
            self._host.upkeep.settle()


def _check(wanted: Wanted, info: NetworkInfo) -> None:
    """Judge what is asked for.  Raises InvalidRequest."""
    try:
        mac = wanted.mac.replace("-", ":")
        if mac and (rtnl.mac_bytes(mac)[0] & 1 or not any(rtnl.mac_bytes(mac))):
            raise ValueError
    except ValueError:
        raise InvalidRequest(f"invalid MAC address: {wanted.mac[:32]!r}") from None
    for version, text in ((4, wanted.ipv4), (6, wanted.ipv6)):
        try:
            if text and ("%" in text or ip_address(text).version != version):
                raise ValueError
        except ValueError:
            raise InvalidRequest(f"invalid IPv{version} address: {text[:64]}") from None
    if wanted.ipv6 and not info.ipv6:
        raise InvalidRequest(f"invalid endpoint settings:\nnetwork {info.name} has no IPv6")
    for text in wanted.link_local:
        try:
            if not ip_address(text).is_link_local or "%" in text:
                raise ValueError
        except ValueError:
            raise InvalidRequest(f"invalid link-local IP address: {text[:64]}") from None
    if wanted.ifname:
        try:
            rtnl.check_name(wanted.ifname)
        except ValueError as error:
            raise InvalidRequest(str(error)) from None
    inside.sysctls(wanted.options)
    shaping.limits(wanted.options)


def _mac(wanted: Wanted, first: Address) -> str:
    return wanted.mac.lower().replace("-", ":") or mac_of(first)


def _free_name(info: NetworkInfo, own: Sequence[Endpoint]) -> str:
    prefix = info.options.get("com.docker.network.container_iface_prefix", "") or "eth"
    taken = {one.ifname for one in own}
    return next(f"{prefix}{number}" for number in range(len(own) + 1) if f"{prefix}{number}" not in taken)
