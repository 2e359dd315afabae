"""Networks as the API shows them (engine-api 4.12).  Reading only: making networks of one's own is a later step."""

from __future__ import annotations

import re
from builtins import list as List
from collections.abc import Callable, Iterable, Mapping

import msgspec

from sampan.engine.records import ContainerRecord
from sampan.errors import InvalidRequest
from sampan.network.manager import Networks as Room
from sampan.network.records import NetworkInfo
from sampan.wire import networks as n

BUILT_IN = ("bridge", "host", "none")
Filters = Mapping[str, tuple[str, ...]]


class Networks:
    """list and inspect.  records: every container's record at this moment."""

    def __init__(self, room: Room, records: Callable[[], Iterable[ContainerRecord]]) -> None:
        self._room = room
        self._records = records

    async def list(self, filters: Filters) -> List[n.Network]:
        return [_shown(info) for info in self._room.list() if _matches(info, filters)]

    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> n.Network:
        """Return one network with the containers that run on it.  Raises NotFound, InvalidRequest."""
        info = self._room.get(ref)
        containers = {
            record.id: n.NetworkEndpoint(
                name=record.name, endpoint_id=record.endpoint_id, mac_address=record.mac,
                i_pv4_address=f"{record.address}/{record.prefix}" if record.address else "",
            )
            for record in self._records()
            if record.running and record.network_id == info.id
        }  # fmt: skip
        return _shown(info, containers)


def _shown(info: NetworkInfo, containers: dict[str, n.NetworkEndpoint] | None = None) -> n.Network:
    pools = [n.IpamPool(subnet=info.subnet, gateway=info.gateway)] if info.subnet else []
    network = n.Network(
        name=info.name, id=info.id, created=info.created, scope=info.scope, driver=info.driver,
        ipam=n.Ipam(config=pools), internal=info.internal, options=dict(info.options), labels=dict(info.labels),
    )  # fmt: skip
    if containers is None:
        return network
    return msgspec.structs.replace(network, containers=containers)


def _matches(info: NetworkInfo, filters: Filters) -> bool:
    kind = "builtin" if info.name in BUILT_IN else "custom"
    exact = {"driver": info.driver, "scope": info.scope, "type": kind}
    for key, wanted in filters.items():
        if key in exact and exact[key] not in wanted:
            return False
        if key in ("id", "name") and not any(_found(word, info.id if key == "id" else info.name) for word in wanted):
            return False
        if key == "label" and not all(_labelled(word, info.labels) for word in wanted):
            return False
        if key == "dangling" and any(word in ("true", "1") for word in wanted):
            return False
    return True


def _labelled(word: str, labels: Mapping[str, str]) -> bool:
    key, equals, value = word.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _found(word: str, text: str) -> bool:
    """A plain word is looked for as it is; only anchors are understood of what else Docker's regexes can say."""
    if len(word) > 256:
        raise InvalidRequest("invalid filter: too long")
    return (
        re.search(("^" if word.startswith("^") else "") + re.escape(word.strip("^$")) + ("$" if word.endswith("$") else ""), text)
        is not None
    )
