"""Networks as the API asks for them (api/backend.py Networks): find, judge, hand on; records in the API's shapes."""

from __future__ import annotations

import asyncio
import re
from builtins import list as List
from collections.abc import Callable, Mapping

from sampan.engine.containers.containers import Containers
from sampan.engine.events import label_matches
from sampan.engine.networks import audit, connect, create
from sampan.engine.patterns import Patterns
from sampan.errors import InvalidRequest, NotFound
from sampan.network.records import Endpoint, NetworkInfo
from sampan.wire import containers as c
from sampan.wire import networks as n

Filters = Mapping[str, tuple[str, ...]]
_KEYS = {"dangling", "driver", "id", "label", "name", "scope", "type"}


class Networks:
    """See the module."""

    def __init__(self, containers: Containers) -> None:
        self._rooms = containers.rooms
        self._containers = containers

    async def create(self, body: n.NetworkCreate) -> n.NetworkCreated:
        return await create.create(self._rooms, body)

    async def remove(self, ref: str) -> None:
        names = {one.id: one.record.name for one in self._containers.all.values()}
        await create.remove(self._rooms, self._get(ref).id, names)

    async def prune(self, filters: Filters) -> n.NetworksPruned:
        return await create.prune(self._rooms, filters, self._used)

    async def audit(self) -> List[n.Reach]:
        shown = sorted(self._containers.all.values(), key=lambda one: one.record.name)
        return audit.audit(self._rooms.networks, shown)

    async def repair(self) -> n.Repaired:
        done = await asyncio.to_thread(self._rooms.networks.repair)
        return n.Repaired(done=done, problems=list(await asyncio.to_thread(self._rooms.networks.problems)))

    async def connect(self, ref: str, body: n.NetworkConnect) -> None:
        info = self._get(ref)
        container = self._containers.find(body.container)
        async with container.lock:
            await asyncio.shield(connect.connect(container, info, body.endpoint_config or c.EndpointSettings()))

    async def disconnect(self, ref: str, body: n.NetworkDisconnect) -> None:
        info = self._get(ref)
        container = self._containers.find(body.container)
        async with container.lock:
            await asyncio.shield(connect.disconnect(container, info, force=body.force))

    async def list(self, filters: Filters) -> List[n.Network]:
        unknown = set(filters) - _KEYS
        if unknown:
            raise InvalidRequest(f"invalid filter '{sorted(unknown)[0][:32]}'")
        for value in filters.get("type", ()):
            if value not in ("custom", "builtin"):
                raise InvalidRequest(f"invalid filter: 'type'='{value[:32]}'")
        for value in filters.get("dangling", ()):
            if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                raise InvalidRequest(f"invalid value for 'dangling' filter: {value[:32]!r}")
        return [self._shown(info, inside=False) for info in self._rooms.networks.list() if self._chosen(info, filters)]

    def _used(self, info: NetworkInfo) -> bool:
        return any(info.name in one.record.networking for one in self._containers.all.values())

    def _chosen(self, info: NetworkInfo, filters: Filters) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "driver": lambda value: info.driver == value, "id": lambda value: Patterns((value,)).match(info.id),
            "name": lambda value: Patterns((value,)).match(info.name), "scope": lambda value: info.scope == value,
            "type": lambda value: (value == "builtin") == info.predefined,
            "dangling": lambda value: (value.lower() in ("true", "1", "t")) == (not info.predefined and not self._used(info)),
        }  # fmt: skip
        if not all(label_matches(info.labels, value) for value in filters.get("label", ())):
            return False
        return all(any(tests[key](value) for value in values) for key, values in filters.items() if values and key in tests)

    def _get(self, ref: str) -> NetworkInfo:
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,128}", ref, re.ASCII):
            raise NotFound(f"network {ref[:64]} not found")
        return self._rooms.networks.get(ref)

    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> n.Network:
        if scope and scope != "local":
            raise NotFound(f"network {ref} not found")
        return self._shown(self._get(ref), inside=True)

    def _shown(self, info: NetworkInfo, *, inside: bool) -> n.Network:
        pools = [
            n.IpamPool(subnet=one.subnet, gateway=one.gateway, ip_range=one.ip_range, auxiliary_addresses=one.aux or None)
            for one in info.subnets
        ]
        ipam = n.Ipam(driver=info.ipam_driver, options=info.ipam_options, config=pools or None)
        return n.Network(
            name=info.name, id=info.id, created=info.created, scope=info.scope, driver=info.driver, enable_ipv4=info.ipv4,
            enable_ipv6=info.ipv6, ipam=ipam, internal=info.internal, attachable=info.attachable,
            config_from=n.ConfigFrom(network=info.config_from), config_only=info.config_only, options=dict(info.options),
            labels=dict(info.labels), containers=self._inside(info) if inside else {},
        )  # fmt: skip

    def _inside(self, info: NetworkInfo) -> dict[str, n.NetworkEndpoint]:
        made = {}
        for one in self._rooms.networks.active(info.id):
            container = self._containers.all.get(one.container_id)
            if container is not None and container.record.running:
                made[container.id] = _member(container.record.name, one)
        return made


def _member(name: str, one: Endpoint) -> n.NetworkEndpoint:
    return n.NetworkEndpoint(
        name=name, endpoint_id=one.id, mac_address=one.mac, i_pv4_address=f"{one.ip}/{one.prefix}" if one.ip else "",
        i_pv6_address=f"{one.ip6}/{one.prefix6}" if one.ip6 else "",
    )  # fmt: skip
