"""The endpoints there are, and what of them is published: host ports that lead to containers, or containers' own.

How a binding comes about, by the host address and the network's gateway mode:

    any, or one of the host's      held by a socket (ports.py), led by the kernel (filters.py)
    ::1                            held, and carried by the answering process (relay.py)
    any, on a routed network       no host port: the container's own is opened to everybody (host_port 0)
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack

from msgspec import structs

from sampan.errors import Broken, InvalidRequest, NotFound
from sampan.network import ports
from sampan.network.addresses import Pool
from sampan.network.defaults import Defaults
from sampan.network.driver import Driver, Drivers
from sampan.network.host import Host
from sampan.network.ports import Ports, PortTaken
from sampan.network.records import BRIDGE, LOOPBACK6, Endpoint, NetworkInfo, PortBinding, Published
from sampan.network.resolver import Resolver
from sampan.state import State, Table


class Publishing(ABC):
    """What endpoints.Endpoints stands on."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._records: Table[Endpoint] = Table(state, "endpoint", Endpoint)
        self._mutex = threading.RLock()
        self._ports = Ports()
        self._endpoints: dict[str, Endpoint] = {}
        self._refused: dict[str, str] = {}  # ids whose ports somebody took while no daemon held them
        self._pools: dict[str, list[Pool]] = {}
        self._networks: dict[str, NetworkInfo] = {}
        self.defaults = Defaults()
        self._host: Host | None = None
        self._drivers: Drivers | None = None
        self.names: Resolver | None = None

    def _driver(self, info: NetworkInfo) -> Driver:
        if self._drivers is None:
            raise Broken("the network was not started")
        return self._drivers.find(info.driver)

    def _started(self) -> Host:
        if self._host is None:
            raise Broken("the network was not started")
        return self._host

    @abstractmethod
    def get(self, reference: str) -> NetworkInfo:
        """Return the network of that name, id or beginning of an id."""

    def active(self, network: str = "") -> Sequence[Endpoint]:
        """Return the endpoints that exist, or those of a network (id)."""
        with self._mutex:
            return [one for one in self._endpoints.values() if not network or one.network_id == network]

    def of(self, container: str) -> list[Endpoint]:
        """Return a container's endpoints, by interface."""
        with self._mutex:
            found = [one for one in self._endpoints.values() if one.container_id == container]
        return sorted(found, key=lambda one: (len(one.ifname), one.ifname))

    def network_of(self, endpoint: Endpoint) -> NetworkInfo:
        """Return the network of an endpoint.  Raises NotFound."""
        with self._mutex:
            info = self._networks.get(endpoint.network_id)
        if info is None:
            raise NotFound(f"network {endpoint.network_id[:12]} not found")
        return info

    # -- published ports ---------------------------------------------------------------------------------------------

    def publish_reserve(self, endpoint: Endpoint, wanted: Sequence[PortBinding], *, name: str = "") -> Endpoint:
        """Hold host ports for each binding, all or none; return the endpoint with its `published`.

        On internal networks nothing is published.  name: the container's, for Docker's words.  Raises Broken (a port is
        taken), InvalidRequest, Unsupported.
        """
        info = self.network_of(endpoint)
        if not wanted or info.internal or not self._driver(info).publishes:
            return endpoint
        default = info.options.get(f"{BRIDGE}host_binding_ipv4", "") or "0.0.0.0"
        four, six = bool(endpoint.ip), bool(endpoint.ip6)
        asked, opened = [], []
        for one in wanted:
            hosts = ports.check(one, default, four=four, six=six)
            routed = [host for host in hosts if info.mode(6 if ":" in host else 4) == "routed"]
            asked.append((one, [host for host in hosts if host not in routed]))
            opened += [_opened(one, host, info) for host in routed]
        with self._mutex, ExitStack() as undo:
            if endpoint.id not in self._endpoints:
                raise NotFound(f"endpoint {endpoint.id[:12]} not found")
            endpoint = self._endpoints[endpoint.id]
            try:
                published = self._ports.hold(endpoint.id, asked)
            except PortTaken as error:
                raise PortTaken(
                    "driver failed programming external connectivity on endpoint "
                    f"{name or endpoint.container_id[:12]} ({endpoint.id}): {error}"
                ) from error
            undo.callback(self._ports.release, endpoint.id, published)
            endpoint = structs.replace(endpoint, published=(*endpoint.published, *published, *opened))
            self._store(endpoint)
            undo.pop_all()
        return endpoint

    def publish_more(self, endpoint: Endpoint, wanted: Sequence[PortBinding], *, name: str = "") -> Endpoint:
        """Publish ports of an attached endpoint while it runs, all or none."""
        with self._mutex:
            before = self._endpoints.get(endpoint.id, endpoint)
            after = self.publish_reserve(before, wanted, name=name)
            added = after.published[len(before.published) :]
            try:
                if added:
                    self._started().firewall.replace(after)
                    self._carry(after)
            except BaseException:
                self._drop(before.id, added)
                self._ports.release(endpoint.id, added)
                self._store(before)
                raise
        return after

    def publish_less(self, endpoint: Endpoint, gone: Sequence[Published]) -> Endpoint:
        """Close published ports of an attached endpoint while it runs."""
        with self._mutex:
            before = self._endpoints.get(endpoint.id, endpoint)
            after = structs.replace(before, published=tuple(one for one in before.published if one not in gone))
            self._store(after)
            self._started().firewall.replace(after)
            self._drop(endpoint.id, gone)
            self._ports.release(endpoint.id, gone)
        return after

    def _carry(self, endpoint: Endpoint) -> None:
        """Have the endpoint's ports on ::1 carried.  Raises OSError."""
        for port in endpoint.published:
            if port.host_ip == str(LOOPBACK6):
                if self.names is None:
                    raise Broken(f"nothing carries port {port.host_port}/{port.proto} from ::1")
                to = (endpoint.ip6 or endpoint.ip, port.container_port)
                held = self._ports.socket(endpoint.id, port)
                self.names.relay(_key(endpoint.id, port), endpoint.container_id, port.proto, to, held)

    def _drop(self, endpoint: str, gone: Sequence[Published]) -> None:
        """Have ports on ::1 carried no more."""
        keys = [_key(endpoint, port) for port in gone if port.host_ip == str(LOOPBACK6)]
        if keys and self.names is not None:
            self.names.unrelay(keys)

    @staticmethod
    def _carried(endpoint: Endpoint) -> bool:
        return any(port.host_ip == str(LOOPBACK6) for port in endpoint.published)

    def expect(self, wanted: Sequence[str]) -> None:
        """Ports will be published on these host addresses: have ready what that needs, so that no start waits for it."""
        if str(LOOPBACK6) in wanted and self.names is not None:
            self.names.prepare()

    def _store(self, endpoint: Endpoint) -> None:
        self._records.put(endpoint.id, endpoint, volatile=True)
        self._endpoints[endpoint.id] = endpoint


def _key(endpoint: str, port: Published) -> str:
    return f"{port.proto} {port.host_port} {endpoint}"


def _opened(binding: PortBinding, host: str, info: NetworkInfo) -> Published:
    if host not in ("0.0.0.0", "::"):  # whoever wants it seen at one address only does not want it seen by everybody
        raise InvalidRequest(
            f"publishing port {binding.container_port}/{binding.proto} on {host}: network {info.name} is routed, so the port would"
            " be opened at the container's own address; leave the host address out"
        )
    return Published(binding.container_port, binding.proto, host, 0)
