"""A container's places on networks: which there are to be, reserved before a start, told of when they come and go."""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import ip_address

from msgspec import structs

from sampan.engine.containers.container import Container
from sampan.engine.containers.validate import port_of, port_range
from sampan.engine.records import ContainerRecord
from sampan.errors import Conflict, InvalidRequest, NotFound, SampanError
from sampan.kernel.fds import Fd
from sampan.network.inside import IFNAME
from sampan.network.manager import Networks
from sampan.network.names import is_name
from sampan.network.records import Endpoint, NetworkInfo, PortBinding, Wanted
from sampan.wire import containers as c


def attaches(record: ContainerRecord) -> bool:
    """Return whether the container is on networks at all."""
    mode = record.host.network_mode
    alone = mode in ("host", "none") or mode.startswith("container:")
    return not alone and record.config.network_disabled is not True


def wanted(record: ContainerRecord) -> dict[str, c.EndpointSettings]:
    """Return the networks it is to be on, the one of its network mode first, the others by name."""
    if not attaches(record):
        return {}
    mode = record.host.network_mode
    others = {name: record.networking[name] for name in sorted(record.networking) if name != mode}
    return {**({mode: record.networking[mode]} if mode in record.networking else {}), **others}


def check(container: Container) -> None:
    """Refuse a start when a network is missing.  Raises NotFound in Docker's words."""
    for name in wanted(container.record):
        container.rooms.networks.get(name)


def names(record: ContainerRecord, settings: c.EndpointSettings, info: NetworkInfo) -> tuple[str, ...]:
    """Return what others on a user-defined network call it: name, aliases, short id, host name."""
    if info.default:
        return ()
    made = (record.name, *(settings.aliases or ()), record.id[:12], record.config.hostname)
    return tuple(dict.fromkeys(name for name in made if name))


def links(record: ContainerRecord, settings: c.EndpointSettings, info: NetworkInfo) -> dict[str, str]:
    """Return what it calls others: alias -> container's name or id."""
    if info.default:
        return {}
    texts = [*(settings.links or ()), *((record.host.links or ()) if info.name == record.host.network_mode else ())]
    made = {}
    for text in texts:
        target, _, alias = text.partition(":")
        made[(alias or target).rpartition("/")[2]] = target.removeprefix("/")
    return made


def request(record: ContainerRecord, settings: c.EndpointSettings, info: NetworkInfo) -> Wanted:
    """Return what to ask the network for."""
    ipam = settings.ipam_config or c.EndpointIpam()
    own = info.name == record.host.network_mode
    options = dict(settings.driver_opts or {})
    return Wanted(
        mac=settings.mac_address or ((record.config.mac_address or "") if own else ""), ipv4=ipam.i_pv4_address,
        ipv6=ipam.i_pv6_address, link_local=tuple(ipam.link_local_ips or ()), ifname=options.get(IFNAME, ""),
        options=options, priority=settings.gw_priority, names=names(record, settings, info),
        links=links(record, settings, info), servers=tuple(record.host.dns or ()),
    )  # fmt: skip


def namespace(container: Container) -> Fd:
    """Return the running container's network namespace.  Raises Conflict."""
    record = container.record
    if not record.running or record.pid <= 0:
        raise Conflict(f"container {container.id} is not running")
    return container.namespace("net")


def reserve(container: Container, undo: ExitStack) -> tuple[Endpoint, ...]:
    """Lease the container's addresses and hold its ports; `undo` gets what must be undone.  Blocks."""
    rooms, record = container.rooms, container.record
    networks = rooms.networks
    for stale in networks.of(record.id):
        networks.detach(stale)
    made: list[Endpoint] = []
    for name, settings in wanted(record).items():
        endpoint = networks.reserve(name, record.id, request(record, settings, networks.get(name)))
        undo.callback(networks.detach, endpoint)
        made.append(endpoint)
    ports = bindings(record)
    if ports and made:
        way_out = next((one for one in networks.gateways(made) if one is not None), made[0])
        bound = networks.publish_reserve(way_out, ports, name=record.name)
        made = [bound if one.id == bound.id else one for one in made]
    return tuple(made)


def take_up(container: Container) -> list[str]:
    """Take over the endpoints of a container that went on while no daemon was there; return what was wrong.

    A connect or disconnect over which the daemon was killed was never answered: what the kernel has is then what is.
    """
    networks, record = container.rooms.networks, container.record
    problems = []
    found: dict[str, Endpoint] = {}
    for endpoint in networks.of(container.id):
        try:
            networks.adopt(endpoint)
        except NotFound as error:
            problems.append(str(error))
            networks.detach(endpoint)
            continue
        except SampanError as error:
            problems.append(str(error))
        found[networks.network_of(endpoint).name] = endpoint
    container.endpoints = tuple(found.values())
    if attaches(record):
        kept = {name: settings for name, settings in record.networking.items() if name in found}
        new = {name: _settings(record, one) for name, one in found.items() if name not in kept}
        if new or len(kept) != len(record.networking):
            container.update(networking={**kept, **new})
    return problems


def _settings(record: ContainerRecord, endpoint: Endpoint) -> c.EndpointSettings:
    own = {record.name, record.id[:12], record.config.hostname}
    aliases = [name for name in endpoint.names if name not in own]
    return c.EndpointSettings(aliases=aliases or None, driver_opts=endpoint.options or None, gw_priority=endpoint.priority)


def bindings(record: ContainerRecord) -> list[PortBinding]:
    """Return the ports to publish."""
    host, config = record.host, record.config
    made = []
    asked = dict(host.port_bindings or {})
    if host.publish_all_ports:
        for port in config.exposed_ports or {}:
            asked.setdefault(port, [])
            asked[port] = asked[port] or []
    for text, places in asked.items():
        number, protocol = port_of(text)
        if not places:
            made.append(PortBinding(number, protocol))
        for place in places or ():
            first, last = port_range(place.host_port)
            made.append(PortBinding(number, protocol, place.host_ip, first, last))
    return made


def told(container: Container, action: str, endpoint: Endpoint) -> None:
    """Emit a network's event: the container came or went."""
    info = container.rooms.networks.network_of(endpoint)
    container.rooms.bus.emit(
        "network", action, info.id, {**info.labels, "container": container.id, "name": info.name, "type": info.driver}
    )


def normal(record: ContainerRecord, networks: Networks) -> ContainerRecord:
    """Return a new record with its endpoints under the networks' names, the one of its network mode among them.

    Networks that are not known yet stay as they are called.  Raises InvalidRequest.
    """
    mode = _name(record.host.network_mode, networks)
    made: dict[str, c.EndpointSettings] = {}
    for key, settings in record.networking.items():
        name = _name(key, networks)
        if name in made:
            raise InvalidRequest(f"network {name} is given twice")
        made[name] = settings
    if not mode.startswith("container:"):
        made.setdefault(mode, c.EndpointSettings())
    record = structs.replace(record, networking=made, host=structs.replace(record.host, network_mode=mode))
    others = [name for name in made if name != mode]
    if others and not attaches(record):
        raise InvalidRequest(f"conflicting options: network mode {mode} and network {others[0]}")
    for name, settings in made.items():
        judge(name, settings)
    return record


def _name(reference: str, networks: Networks) -> str:
    if reference.startswith("container:"):
        return reference
    try:
        return networks.get(reference).name
    except NotFound:
        return reference


def judge(name: str, settings: c.EndpointSettings) -> None:
    """Refuse what the network cannot give, all reasons at once, in Docker's words.  Raises InvalidRequest."""
    found = []
    ipam = settings.ipam_config or c.EndpointIpam()
    if name in ("bridge", "host", "none"):
        if settings.aliases:
            found.append("network-scoped aliases are only supported for user-defined networks")
        if ipam.i_pv4_address or ipam.i_pv6_address:
            found.append("user specified IP address is supported on user defined networks only")
    for version, text in ((4, ipam.i_pv4_address), (6, ipam.i_pv6_address)):
        try:
            if text and ("%" in text or ip_address(text).version != version):
                raise ValueError
        except ValueError:
            found.append(f"invalid IPv{version} address: {text[:64]}")
    for alias in settings.aliases or ():
        if not is_name(alias, 253):
            found.append(f"invalid alias: {alias[:64]!r}")
    for text in settings.links or ():
        target, _, alias = text.partition(":")
        if not target or not is_name((alias or target).rpartition("/")[2], 253):
            found.append(f"invalid link: {text[:64]!r}")
    if found:
        raise InvalidRequest(f"invalid config for network {name[:64]}: invalid endpoint settings:\n" + "\n".join(found))
