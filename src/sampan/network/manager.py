"""Networks: bridge, host and none, and those that users make; endpoints.py says what containers get on them.

A restarted daemon calls start(), which remakes bridges and tables from the records and holds the ports again, then
`adopt` for every container that still runs and `detach` for the rest of `active()`.
The namespace that counts as the host's is that of the thread that constructs Networks and calls it.
"""

from __future__ import annotations

import datetime
import errno
import ipaddress
import secrets
from builtins import list as List
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from msgspec import structs

from sampan.errors import Broken, Conflict, Forbidden, InvalidRequest, NotFound, SampanError
from sampan.kernel import rtnl
from sampan.network.addresses import Network, Pool
from sampan.network.bridge import Bridge
from sampan.network.defaults import Defaults, default_network
from sampan.network.driver import Driver, Drivers
from sampan.network.endpoints import Endpoints
from sampan.network.host import Host
from sampan.network.ipam import Space
from sampan.network.ipvlan import Ipvlan
from sampan.network.macvlan import Macvlan
from sampan.network.plain import Plain
from sampan.network.records import NetworkInfo, Subnet
from sampan.network.resolver import Resolver
from sampan.state import State, Table

KNOWN: dict[str, Callable[[Host], Driver]] = {"bridge": Bridge, "host": Plain, "null": Plain, "macvlan": Macvlan, "ipvlan": Ipvlan}
_PREDEFINED = (("bridge", "bridge"), ("host", "host"), ("none", "null"))


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


class Networks(Endpoints):
    """The networks of one daemon.

    defaults: the daemon's options; instance: its own word, of which its IPv6 pool is made; names: who answers
    containers' questions for each other.  Raises InvalidRequest for options that cannot be.
    """

    def __init__(self, state: State, defaults: Defaults = Defaults(), *, instance: str = "", names: Resolver | None = None) -> None:
        super().__init__(state)
        defaults.check()
        self.defaults = defaults
        self.bridge = defaults.bridge
        self.names = names
        self.instance = instance
        self._infos: Table[NetworkInfo] = Table(state, "network", NetworkInfo)
        self._lost: dict[str, str] = {}  # ids of networks that could not be made at start, and why

    # -- the daemon's life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make or adopt bridges, settings and tables; hold recorded ports again.  A second call does nothing.

        Raises Conflict when the bridge's name is another kind of link's, or it has another address than `bip`.
        """
        with self._mutex:
            if self._host is not None:
                return
            with ExitStack() as undo:
                host = self._host = Host(self._state, self.bridge, forwarding=self.defaults.ip_forward)
                undo.callback(self._forget)
                self._drivers = Drivers(host, KNOWN)
                host.forget_doomed()
                undo.callback(self._unmake)  # a daemon that does not get up leaves nothing
                self._predefine()
                for _, info in self._infos.items():
                    self._take_network(info)
                self._take_endpoints()
                self._sweep()
                host.firewall.remake()
                host.watch(self._restore, self._tidy)
                undo.pop_all()

    def stop(self, *, remove: bool = False) -> None:
        """End the thread and give the ports up; with `remove`, undo what was made: tables, bridges, changed settings.

        The records of networks stay.  Raises Conflict, and does nothing, when `remove` is asked for while endpoints exist.
        """
        with self._mutex:
            host = self._host
            if host is None:
                return
            if remove and self._endpoints:
                raise Conflict(f"networks have {len(self._endpoints)} active endpoints")
            upkeep, host.upkeep = host.upkeep, None
        if upkeep is not None:
            upkeep.close()  # not under the lock: its thread may be about to take it
        with self._mutex:
            if remove:
                self._unmake()
            else:
                host.firewall.tidy()
            if self.names is not None:
                self.names.close(end=not any(one.names or self._carried(one) for one in self._endpoints.values()))
            self._forget()

    def _unmake(self) -> None:
        """Take bridges, tables and changed settings away, unless containers have endpoints."""
        host = self._started()
        if self._endpoints:
            return
        for info in self._networks.values():
            self._driver(info).remove(info)
            if info.default and info.made_link:
                self._infos.put(info.id, structs.replace(info, made_link=False))
        host.firewall.delete()
        host.put_back()

    def _forget(self) -> None:
        self._ports.close()
        if self._host is not None:
            self._host.close()
        self._host = self._drivers = None
        self._endpoints.clear()
        self._refused.clear()
        self._lost.clear()
        self._networks.clear()
        self._pools.clear()

    def _predefine(self) -> None:
        """See that bridge, host and none are among the records, the bridge with its address."""
        known = {info.name: info for _, info in self._infos.items()}
        for name, driver in _PREDEFINED:
            info = known.get(name) or NetworkInfo(
                id=secrets.token_hex(32), name=name, driver=driver, created=now(), made_link=False
            )
            if name == "bridge":
                info = default_network(info, self.defaults, self._started().route, self.instance)
            if info != known.get(name):
                self._infos.put(info.id, info)

    def _take_network(self, info: NetworkInfo) -> None:
        self._networks[info.id] = info
        self._pools[info.id] = [Pool(one) for one in info.subnets]
        if info.config_only:
            return
        try:
            self._driver(info).create(info)
        except (SampanError, OSError) as error:
            if info.predefined:
                raise
            self._lost[info.id] = f"network {info.name}: {error}"

    def _take_endpoints(self) -> None:
        host = self._started()
        for _, endpoint in self._records.items():
            self._endpoints[endpoint.id] = endpoint
            for text in (endpoint.ip, endpoint.ip6):
                pools = [p for p in self._pools.get(endpoint.network_id, ()) if text and ipaddress.ip_address(text) in p.network]
                if text and not pools:
                    self._refused[endpoint.id] = f"address {text} is outside its network's subnets"
                for pool in pools:
                    pool.adopt(text)
            try:
                self._ports.hold_again(endpoint.id, endpoint.published)
                info = self.network_of(endpoint)
                if self._driver(info).publishes and endpoint.id not in self._refused and info.id not in self._lost:
                    host.firewall.open(info.id, endpoint)
            except (Broken, NotFound) as error:
                self._refused[endpoint.id] = str(error)

    def _sweep(self) -> None:
        """Delete the links of endpoints that an earlier daemon had let go when it was killed."""
        driver = self._driver(self.get("bridge"))
        assert isinstance(driver, Bridge)
        known = {one.veth_host for one in self._endpoints.values()}
        for name in driver.strangers(known):
            self._started().route.talk([rtnl.delete_link(name)], tolerate=frozenset({errno.ENODEV}))

    def _restore(self, tables: bool) -> None:
        with self._mutex:
            if self._host is not None and self._host.upkeep is not None:
                if tables:
                    self._host.firewall.remake()
                else:
                    self._host.firewall.pass_through()

    def _tidy(self) -> None:
        with self._mutex:
            if self._host is not None and self._host.upkeep is not None:
                self._host.firewall.tidy()

    def repair(self) -> List[str]:
        """Make again what somebody took: bridges, their ports and settings, tables, held ports; return what was wanting."""
        with self._mutex:
            host = self._started()
            done = [] if host.firewall.whole() else ["tables"]
            for info in self._networks.values():
                try:
                    if not info.config_only and self._driver(info).repair(info, self.active(info.id)):
                        done.append(f"network {info.name}")
                    self._lost.pop(info.id, None)
                except (SampanError, OSError) as error:
                    self._lost[info.id] = f"network {info.name}: {error}"
            for key in list(self._refused):
                endpoint = self._endpoints.get(key)
                try:
                    if endpoint is not None:
                        self._ports.hold_again(key, endpoint.published)
                        host.firewall.open(endpoint.network_id, endpoint)
                        done.append(f"ports of container {endpoint.container_id[:12]}")
                    del self._refused[key]
                except (Broken, KeyError):
                    continue  # it still is somebody else's
            host.firewall.remake()
        return done

    # -- what there is -------------------------------------------------------------------------------------------------

    def list(self) -> List[NetworkInfo]:
        """Return the networks."""
        with self._mutex:
            return list(self._networks.values())

    def get(self, reference: str) -> NetworkInfo:
        """Return the network of that name, id or beginning of an id.  Raises NotFound, InvalidRequest when ambiguous."""
        infos = self.list()
        wanted = "bridge" if reference == "default" else reference
        for info in infos:
            if wanted == info.id:
                return info
        for info in infos:
            if wanted == info.name:
                return info
        found = [info for info in infos if wanted and info.id.startswith(wanted)]
        if len(found) > 1:
            raise InvalidRequest(f"network {reference} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {reference} not found")
        return found[0]

    def problems(self) -> Sequence[str]:
        """Return what keeps containers from being reached, in words for `info`: others' rules, lost ports and networks."""
        with self._mutex:
            host = self._started()
            found = [f"endpoint {key[:12]}: {reason}" for key, reason in self._refused.items()]
            found += self._lost.values()
            if host.upkeep is not None and host.upkeep.problem:
                found.append(host.upkeep.problem)
            return [*found, *host.firewall.obstacles()]

    # -- making and removing -------------------------------------------------------------------------------------------

    def create(self, wanted: NetworkInfo) -> NetworkInfo:
        """Make a network, or leave no trace: its subnets as asked or chosen, its id and link's name given.

        Raises Conflict (name taken), Forbidden (predefined, overlap), NotFound (driver), InvalidRequest, Unsupported, OSError.
        """
        if wanted.predefined:
            raise Forbidden(f"operation is not permitted on predefined {wanted.name} network ")
        with self._mutex, ExitStack() as undo:
            host = self._started()
            if any(info.name == wanted.name for info in self._networks.values()):
                raise Conflict(f"network with name {wanted.name} already exists")
            driver = self._driver(wanted) if not wanted.config_only else self._driver(self.get("none"))
            info = structs.replace(self.defaults.wanted(wanted), id=secrets.token_hex(32), created=now())
            if not info.config_only:
                info = driver.check(info)
                self._alone(info)
                if driver.addresses:
                    info = structs.replace(info, subnets=self._plan(info, host))
            self._infos.put(info.id, info)  # first: a daemon killed now leaves no link that nobody knows
            undo.callback(self._infos.delete, info.id)
            if not info.config_only:
                driver.create(info)
                undo.callback(driver.remove, info)
            self._networks[info.id] = info
            self._pools[info.id] = [Pool(one) for one in info.subnets]
            undo.pop_all()
        if self.names is not None and driver.addresses and not info.config_only:
            self.names.prepare()
        return info

    def _plan(self, info: NetworkInfo, host: Host) -> tuple[Subnet, ...]:
        held = [ipaddress.ip_network(one.subnet) for other in self._networks.values() for one in other.subnets
                if not other.config_only]  # fmt: skip
        versions = {ipaddress.ip_network(one.subnet, strict=False).version for one in info.subnets if _is_network(one.subnet)}
        routed: List[Network] = []
        if info.ipv4 and 4 not in versions:
            routed += host.route.routes()
        if info.ipv6 and 6 not in versions:
            routed += host.route.routes6()
        return Space(self.defaults.address_pools(self.instance), held, routed).plan(info.subnets, ipv4=info.ipv4, ipv6=info.ipv6)

    def _alone(self, info: NetworkInfo) -> None:
        for other in self._networks.values():
            if not info.link or other.link != info.link:
                continue
            if "bridge" in (info.driver, other.driver):
                raise Forbidden(f"bridge name {info.link} is already used by network {other.name}")
            if info.driver != other.driver:  # the kernel has links of one kind on a parent
                raise Forbidden(f"parent {info.link} is already used by network {other.name} of driver {other.driver}")

    def remove(self, reference: str) -> NetworkInfo:
        """Remove a network without endpoints; return what it was.  Raises NotFound, Forbidden."""
        with self._mutex:
            info = self.get(reference)
            if info.predefined:
                raise Forbidden(f"{info.name} is a pre-defined network and cannot be removed")
            if any(one.network_id == info.id for one in self._endpoints.values()):
                raise Forbidden(f"error while removing network: network {info.name} has active endpoints")
            with self._state.batch():
                if not info.config_only:
                    self._driver(info).remove(info)
                self._infos.delete(info.id)  # last: a daemon killed before makes the link again at its next start
            del self._networks[info.id]
            self._pools.pop(info.id, None)
            self._lost.pop(info.id, None)
        return info


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
