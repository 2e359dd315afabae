"""Networks as the API asks for them: what the network room knows, in the API's shapes."""

from __future__ import annotations

import asyncio
import re
from builtins import list as List
from collections.abc import Callable, Mapping

from msgspec import UNSET

from sampan.engine.containers.containers import Containers
from sampan.errors import InvalidRequest, NotFound
from sampan.network.manager import Networks as Room
from sampan.network.records import NetworkInfo
from sampan.wire import networks as n

Filters = Mapping[str, tuple[str, ...]]
_KEYS = {"dangling", "driver", "id", "label", "name", "scope", "type"}


class Networks:
    """api/backend.py Networks."""

    def __init__(self, room: Room, containers: Containers) -> None:
        self._room = room
        self._containers = containers

    async def list(self, filters: Filters) -> List[n.Network]:
        unknown = set(filters) - _KEYS
        if unknown:
            raise InvalidRequest(f"invalid filter '{sorted(unknown)[0][:32]}'")
        return [self._shown(info, inside=False) for info in self._room.list() if self._chosen(info, filters)]

    def _chosen(self, info: NetworkInfo, filters: Filters) -> bool:
        used = any(one.record.host.network_mode == info.name for one in self._containers.all.values())
        tests: dict[str, Callable[[str], bool]] = {
            "driver": lambda value: info.driver == value, "id": lambda value: info.id.startswith(value),
            "name": lambda value: value in info.name, "scope": lambda value: info.scope == value,
            "type": lambda value: value == "builtin", "label": lambda value: value.partition("=")[0] in info.labels,
            "dangling": lambda value: (value.lower() in ("true", "1")) != used,
        }  # fmt: skip
        return all(any(tests[key](value) for value in values) for key, values in filters.items() if values)

    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> n.Network:
        if scope and scope != "local":
            raise NotFound(f"network {ref} not found")
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,128}", ref, re.ASCII):
            raise NotFound(f"network {ref[:64]} not found")
        info = await asyncio.to_thread(self._room.get, ref)
        return self._shown(info, inside=True)

    def _shown(self, info: NetworkInfo, *, inside: bool) -> n.Network:
        pools = [n.IpamPool(subnet=info.subnet, gateway=info.gateway)] if info.subnet else None
        return n.Network(
            name=info.name, id=info.id, created=info.created, scope=info.scope, driver=info.driver,
            ipam=n.Ipam(config=pools), internal=info.internal, options=dict(info.options), labels=dict(info.labels),
            containers=self._inside(info) if inside else UNSET,
        )  # fmt: skip

    def _inside(self, info: NetworkInfo) -> dict[str, n.NetworkEndpoint]:
        return {
            one.id: n.NetworkEndpoint(
                name=one.record.name, endpoint_id=one.record.endpoint_id, mac_address=one.record.mac,
                i_pv4_address=f"{one.record.address}/{one.record.prefix}" if one.record.address else "",
            )
            for one in self._containers.all.values()
            if one.record.running and one.record.host.network_mode == info.name
        }  # fmt: skip
