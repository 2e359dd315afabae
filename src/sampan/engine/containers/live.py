"""Published ports and bandwidth of a container, changed while it runs; of one that does not, from its next start."""

from __future__ import annotations

from contextlib import ExitStack

from msgspec import structs

from sampan.engine.containers import connections
from sampan.engine.containers.container import Container
from sampan.engine.containers.start import published
from sampan.engine.containers.validate import port_of, port_range
from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.network import shaping
from sampan.network.names import check_address
from sampan.network.records import Endpoint, PortBinding, Published
from sampan.wire import containers as c
from sampan.wire import resources as r


def change(container: Container, body: r.UpdateBody, undo: ExitStack) -> None:
    """Do what the body says of ports and bandwidth, all or none; `undo` gets what sets it back.  Blocks.

    Raises InvalidRequest, NotFound (a port that is not published), Broken (one that is taken), Conflict, Unsupported.
    """
    add, gone = body.publish_add or {}, body.publish_remove or []
    if not add and not gone and body.network_limit is None:
        return
    if not connections.attaches(container.record):
        raise Conflict(f"container {container.record.name} has no networks of its own to change")
    before = container.record
    undo.callback(_put_back, container, before, container.endpoints)
    if add or gone:
        _ports(container, add, gone)
    if body.network_limit is not None:
        _limits(container, body.network_limit)


def _put_back(container: Container, before: object, endpoints: tuple[Endpoint, ...]) -> None:
    """After a failure: ports and limits as they were, in the kernel and in the record."""
    networks = container.rooms.networks
    old = {one.id: one for one in endpoints}
    for now in container.endpoints:
        was = old.get(now.id)
        if was is None or was == now:
            continue
        now = networks.publish_less(now, [port for port in now.published if port not in was.published])
        networks.publish_more(now, [_exactly(port) for port in was.published if port not in now.published])
        networks.limit(was, {})
    container.endpoints = endpoints
    container.record = before  # type: ignore[assignment]  # the record that `change` found
    container.update()


def _exactly(port: Published) -> PortBinding:
    return PortBinding(port.container_port, port.proto, port.host_ip, port.host_port, port.host_port)


def _ports(container: Container, add: c.PortMap, gone: list[str]) -> None:
    record, networks = container.record, container.rooms.networks
    bindings: dict[str, list[c.PortBinding]] = {key: list(value or ()) for key, value in (record.host.port_bindings or {}).items()}
    leaving: list[Published] = []
    for text in gone:
        leaving += _taken_away(container, bindings, text)
    for key, value in add.items():
        number, protocol = port_of(key)
        for one in value or [c.PortBinding()]:
            port_range(one.host_port)
            if one.host_ip:
                check_address(one.host_ip)
            bindings.setdefault(f"{number}/{protocol}", []).append(one)
    if record.running:
        place = next((one for one in container.endpoints if one.published), None)
        place = place or next((one for one in networks.gateways(container.endpoints) if one is not None), None)
        if place is None:
            raise Conflict(f"container {record.name} is on no network that publishes ports")
        after = networks.publish_less(place, leaving) if leaving else place
        container.endpoints = _with(container, after)
        wanted = [
            PortBinding(*port_of(key), one.host_ip, *port_range(one.host_port))
            for key, value in add.items() for one in value or [c.PortBinding()]
        ]  # fmt: skip
        after = networks.publish_more(after, wanted, name=record.name)
        container.endpoints = _with(container, after)
    kept: c.PortMap = {key: value for key, value in bindings.items() if value}
    container.update(host=structs.replace(record.host, port_bindings=kept), bound=published(container.endpoints))


def _with(container: Container, after: Endpoint) -> tuple[Endpoint, ...]:
    return tuple(after if one.id == after.id else one for one in container.endpoints)


def _taken_away(container: Container, bindings: dict[str, list[c.PortBinding]], text: str) -> list[Published]:
    """Take "80/tcp" (all its host ports) or "8080:80/tcp" out of the bindings; return what is published by it."""
    outer, colon, inner = text.rpartition(":")
    number, protocol = port_of(inner)
    key = f"{number}/{protocol}"
    host = port_range(outer)[0] if colon else 0
    live = [
        port for one in container.endpoints for port in one.published
        if (port.container_port, port.proto) == (number, protocol) and (host in (0, port.host_port) or not port.host_port)
    ]  # fmt: skip
    rows = bindings.get(key, [])
    kept = [
        row for row in rows if host and port_range(row.host_port)[0] != host and not (live and port_range(row.host_port) == (0, 0))
    ]
    if not live and len(kept) == len(rows):
        raise NotFound(f"port {text[:32]} of container {container.record.name} is not published")
    bindings[key] = kept
    return live


def _limits(container: Container, wanted: r.NetworkLimit) -> None:
    asked = {shaping.IN: wanted.inwards, shaping.OUT: wanted.outwards}
    changed = {key: value for key, value in asked.items() if value}
    if not changed:
        raise InvalidRequest("a network limit names In, Out or both")
    shaping.limits(changed)
    networking = {
        name: structs.replace(settings, driver_opts={**(settings.driver_opts or {}), **changed})
        for name, settings in container.record.networking.items()
    }
    for one in container.endpoints:
        container.endpoints = _with(container, container.rooms.networks.limit(one, changed))
    container.update(networking=networking)
