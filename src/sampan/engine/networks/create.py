"""Create, remove and prune networks."""

from __future__ import annotations

import asyncio
import calendar
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from msgspec import UNSET, UnsetType, structs

from sampan.engine.context import Rooms
from sampan.engine.events import label_matches, moment
from sampan.errors import Forbidden, InvalidRequest, NotFound, SampanError
from sampan.network.records import NetworkInfo, Subnet
from sampan.wire import networks as n

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
TRUTHS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
)


def wanted(
    body: n.NetworkCreate, room: Callable[[str], NetworkInfo], defaults: Mapping[str, Mapping[str, str]] = MappingProxyType({})
) -> NetworkInfo:
    """Return the record that a body asks for.  room: finds the network of `--config-from`; defaults: the daemon's, by driver.

    Raises InvalidRequest, Forbidden (swarm scope), Unsupported, NotFound.
    """
    _name(body.name)
    driver = body.driver or "bridge"
    if body.config_only:
        driver = "null"  # as docker shows it: a template has none
    if body.scope not in ("", "local") or body.ingress or driver == "overlay":
        raise Forbidden(NO_SWARM if driver == "overlay" else "cannot create a swarm scoped network when swarm is not active")
    ipam = body.ipam or n.Ipam()
    if ipam.driver not in ("", "default", "null"):
        raise NotFound(f'could not find plugin {ipam.driver[:64]} in v1 plugin registry: plugin "{ipam.driver[:64]}" not found')
    subnets = tuple(
        Subnet(subnet=one.subnet, gateway=one.gateway, ip_range=one.ip_range, aux=dict(one.auxiliary_addresses or {}))
        for one in ipam.config or ()
        if one != n.IpamPool()
    )
    said = {**defaults.get(driver, {}), **(body.options or {})}
    info = NetworkInfo(
        id="", name=body.name, driver=driver, subnets=subnets, ipv4=_version(4, body.enable_ipv4, said),
        ipv6=_version(6, body.enable_ipv6, said), internal=body.internal, attachable=body.attachable, config_only=body.config_only,
        ipam_driver=ipam.driver or "default", ipam_options=ipam.options, labels=dict(body.labels or {}),
        options=dict(body.options or {}),
    )  # fmt: skip
    if not info.ipv4 and not info.ipv6:
        raise InvalidRequest("IPv4 or IPv6 must be enabled")
    source = body.config_from.network if body.config_from else ""
    return _from(info, room(source)) if source else info


def _version(version: int, asked: bool | UnsetType | None, options: Mapping[str, str]) -> bool:
    """Return whether the network is to have an IP version: what the body says, else the option, else IPv4 alone."""
    if asked is not UNSET and asked is not None:
        return asked
    key = f"com.docker.network.enable_ipv{version}"
    text = options.get(key, "true" if version == 4 else "false")
    if text.lower() not in TRUTHS:
        raise InvalidRequest(f'driver-opt "{key}" is not a valid bool')
    return TRUTHS[text.lower()]


def _name(name: str) -> None:
    if not name.strip():
        raise InvalidRequest("invalid name: name is empty")
    if len(name) > 128 or set(name) - _LETTERS or name[0] in ".-_":
        raise InvalidRequest(f"invalid name: {name[:64]!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if name in ("default", "host", "none", "bridge"):
        raise Forbidden(f"operation is not permitted on predefined {name} network ")


def _from(info: NetworkInfo, source: NetworkInfo) -> NetworkInfo:
    """Take the settings of a configuration network; what both say is refused, as docker does."""
    if not source.config_only:
        raise InvalidRequest(f"invalid config-from network: network {source.name} is not a configuration network")
    if info.config_only:
        raise InvalidRequest("a configuration network cannot take its settings from another one")
    if info.subnets or info.ipv6 or info.internal or info.options or info.ipam_options:
        raise InvalidRequest("user specified configurations are not supported if the network depends on a configuration network")
    return structs.replace(
        info, subnets=source.subnets, ipv4=source.ipv4, ipv6=source.ipv6, internal=source.internal, options=source.options,
        ipam_options=source.ipam_options, ipam_driver=source.ipam_driver, config_from=source.name,
    )  # fmt: skip


async def create(rooms: Rooms, body: n.NetworkCreate) -> n.NetworkCreated:
    """Make a network.  Raises as wanted() and Networks.create do."""
    defaults = rooms.networks.defaults.default_network_opts
    info = await asyncio.to_thread(rooms.networks.create, wanted(body, rooms.networks.get, defaults))
    rooms.bus.emit("network", "create", info.id, {**info.labels, "name": info.name, "type": info.driver})
    return n.NetworkCreated(id=info.id)


async def remove(rooms: Rooms, reference: str, names: Mapping[str, str]) -> None:
    """Remove a network.  names: containers' names by id, for the refusal's words.  Raises NotFound, Forbidden."""
    info = rooms.networks.get(reference)
    if info.predefined:
        raise Forbidden(f"{info.name} is a pre-defined network and cannot be removed")
    inside = rooms.networks.active(info.id)
    if inside:
        shown = ", ".join(f'name:"{names.get(one.container_id, one.container_id[:12])}" id:"{one.id[:12]}"' for one in inside)
        raise Forbidden(f"error while removing network: network {info.name} has active endpoints ({shown})")
    await asyncio.to_thread(rooms.networks.remove, info.id)
    rooms.bus.emit("network", "destroy", info.id, {**info.labels, "name": info.name, "type": info.driver})


async def prune(rooms: Rooms, filters: Mapping[str, tuple[str, ...]], used: Callable[[NetworkInfo], bool]) -> n.NetworksPruned:
    """Remove every network that no container refers to, running or not.  Raises InvalidRequest."""
    unknown = set(filters) - {"label", "label!", "until"}
    if unknown:
        raise InvalidRequest(f"invalid filter '{sorted(unknown)[0][:32]}'")
    until = min((moment(value) for value in filters.get("until", ())), default=0)
    deleted = []
    for info in rooms.networks.list():
        if info.predefined or used(info) or (until and _made(info) >= until):
            continue
        if not all(label_matches(info.labels, value) for value in filters.get("label", ())):
            continue
        if any(label_matches(info.labels, value) for value in filters.get("label!", ())):
            continue
        try:
            await remove(rooms, info.id, {})
        except SampanError:
            continue  # somebody has just joined it
        deleted.append(info.name)
    rooms.bus.emit("network", "prune", "", {"reclaimed": "0"})
    return n.NetworksPruned(networks_deleted=deleted or None)


def _made(info: NetworkInfo) -> int:
    """Return when a network was made, in nanoseconds since the epoch."""
    whole = time.strptime(info.created[:19], "%Y-%m-%dT%H:%M:%S")
    return calendar.timegm(whole) * 10**9
