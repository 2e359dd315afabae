"""Connect containers to networks and disconnect them, running or not."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack

from sampan.engine.containers import connections, etc
from sampan.engine.containers.container import Container
from sampan.engine.containers.start import published
from sampan.errors import Broken, Conflict, Forbidden, InvalidRequest
from sampan.kernel.fds import Fd
from sampan.network.records import Endpoint, NetworkInfo, PortBinding
from sampan.wire import containers as c


async def connect(container: Container, info: NetworkInfo, settings: c.EndpointSettings) -> None:
    """Connect; the caller holds the container's lock.

    A container that does not run only remembers.  Raises InvalidRequest, Forbidden (there already), Conflict, Broken.
    """
    record = container.record
    if info.name == "host":
        raise InvalidRequest("cannot connect container to host network - container must be created in host network mode")
    if record.host.network_mode == "host":
        raise InvalidRequest("cannot disconnect container from host network - container was created in host network mode")
    if record.host.network_mode.startswith("container:"):
        raise InvalidRequest(
            "container sharing network namespace with another container or host cannot be connected to any other network"
        )
    if info.name == "none" or record.host.network_mode == "none":
        raise InvalidRequest("container cannot be connected to multiple networks with one of the networks in private (none) mode")
    if info.config_only:
        raise Forbidden(f"cannot connect container to configuration network {info.name}")
    if container.removing or container.removed:
        raise Conflict("container is marked for removal and cannot be connected or disconnected to the network")
    connections.judge(info.name, settings)
    networking = {**record.networking, info.name: settings}
    if not record.running:
        container.update(networking=networking, bound={})
        return
    if any(one.network_id == info.id for one in container.endpoints):
        raise Forbidden(f"endpoint with name {record.name} already exists in network {info.name}")
    container.update(networking=networking, durable=False)
    try:
        await _attached(container, info, settings)
    except BaseException:
        container.update(networking=record.networking)
        raise
    bound = published(container.endpoints)
    if bound != container.record.bound:
        container.update(bound=bound)
    for found in container.endpoints:
        if found.network_id == info.id:
            connections.told(container, "connect", found)


async def _attached(container: Container, info: NetworkInfo, settings: c.EndpointSettings) -> None:
    """Attach, and meanwhile write the record down, which takes the disk a millisecond: both, or neither and the error.

    A daemon that is killed in between goes by what the kernel has (connections.take_up).
    """
    leased = threading.Event()
    done = await asyncio.gather(  # in this order: who waits for the lease must not keep a thread from who makes it
        asyncio.to_thread(_attach, container, info, settings, leased), asyncio.to_thread(_remember, container, leased),
        return_exceptions=True,
    )  # fmt: skip
    failed = [one for one in done if isinstance(one, BaseException)]
    if failed:
        for one in container.endpoints:
            if one.network_id == info.id:
                await asyncio.to_thread(_detach, container, one)
        raise failed[0]


def _remember(container: Container, leased: threading.Event) -> None:
    """Write the record down as it is by then: the event loop may change it meanwhile, and then writes it later than this."""
    leased.wait()  # the database has one writer: the lease is not to wait for the disk
    records = container.rooms.records
    with records.state.batch():
        if not container.record.build:
            records.put(container.id, container.record)


def _attach(container: Container, info: NetworkInfo, settings: c.EndpointSettings, leased: threading.Event) -> None:
    networks = container.rooms.networks
    try:
        with connections.namespace(container) as space, ExitStack() as undo:
            endpoint = networks.reserve(info.name, container.id, connections.request(container.record, settings, info))
            leased.set()
            before = container.endpoints
            undo.callback(_back, container, space, before)
            undo.callback(networks.detach, endpoint)
            networks.attach(endpoint, space.fileno(), frozenset())
            container.endpoints = (*before, endpoint)
            if networks.gateways(container.endpoints) != networks.gateways(before):
                networks.reroute(container.id, space.fileno())
            _ports(container, None)
            etc.joined(container, endpoint)
            undo.pop_all()
    finally:
        leased.set()


def _back(container: Container, space: Fd, before: tuple[Endpoint, ...]) -> None:
    container.endpoints = before
    container.rooms.networks.reroute(container.id, space.fileno())


async def disconnect(container: Container, info: NetworkInfo, *, force: bool) -> None:
    """Disconnect; the caller holds the container's lock.  Raises Broken in Docker's words when it is not connected."""
    record = container.record
    if record.host.network_mode == "host" and info.name == "host":
        raise InvalidRequest("cannot disconnect container from host network - container was created in host network mode")
    if record.host.network_mode.startswith("container:"):
        raise InvalidRequest("container sharing network namespace with another container or host cannot be disconnected")
    found = next((one for one in container.endpoints if one.network_id == info.id), None)
    if info.name not in record.networking and found is None:
        raise Broken(f"container {container.id} is not connected to the network {info.name}")
    if found is not None:
        await asyncio.to_thread(_detach, container, found)
        connections.told(container, "disconnect", found)
    kept = {name: value for name, value in record.networking.items() if name != info.name}
    container.update(networking=kept, bound=published(container.endpoints))


def _detach(container: Container, endpoint: Endpoint) -> None:
    networks = container.rooms.networks
    with connections.namespace(container) as space:
        before = networks.gateways(container.endpoints)
        networks.leave(endpoint, space.fileno())
        container.endpoints = tuple(one for one in container.endpoints if one.id != endpoint.id)
        if networks.gateways(container.endpoints) != before:
            networks.reroute(container.id, space.fileno())
    _ports(container, endpoint)


def _ports(container: Container, gone: Endpoint | None) -> None:
    """See that published ports are on the endpoint that is the way out, as they were bound before."""
    networks = container.rooms.networks
    way_out = next((one for one in networks.gateways(container.endpoints) if one is not None), None)
    if way_out is None or way_out.published:
        return
    if gone is not None:
        wanted = [PortBinding(p.container_port, p.proto, p.host_ip, p.host_port, p.host_port) for p in gone.published]
    elif not any(one.published for one in container.endpoints):
        wanted = connections.bindings(container.record)
    else:
        return
    after = networks.publish_more(way_out, wanted, name=container.record.name)
    container.endpoints = tuple(after if one.id == after.id else one for one in container.endpoints)
