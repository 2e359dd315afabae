"""`--link` on the default bridge: names in /etc/hosts and variables, fixed when the container starts.

On user-defined networks links are names that the daemon answers for (engine/containers/connections.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from sampan.engine.context import Rooms
from sampan.engine.records import ContainerRecord
from sampan.errors import Conflict, InvalidRequest, SampanError
from sampan.network.names import is_name
from sampan.wire import containers as c

DEFAULT = "bridge"
_PRIVATE = ("HOME", "PATH")  # variables that a link does not lend


def parse(text: str) -> tuple[str, str]:
    """Return (container, alias) of NAME, NAME:ALIAS, or what inspect shows, /NAME:/CONTAINER/ALIAS.  Raises InvalidRequest."""
    target, _, alias = text.partition(":")
    target = target.removeprefix("/")
    alias = alias.rpartition("/")[2] if ":" in text else target
    if not target or not is_name(alias, 253) or not alias.isascii():
        raise InvalidRequest(f"bad format for links: {text[:80]}")
    return target, alias


def normal(rooms: Rooms, host: c.HostConfig, own: str) -> c.HostConfig:
    """Return the HostConfig with its links as inspect shows them.  Raises InvalidRequest for what cannot be linked."""
    if not host.links:
        return host
    if host.network_mode in ("host", "none"):
        why = "host type networking can't be used with links. This would result in undefined behavior"
        raise InvalidRequest(f"conflicting options: {why}")
    made = []
    for text in host.links:
        target, alias = parse(text)
        try:
            found = rooms.records.get(rooms.index.find(target))
        except SampanError as error:
            raise InvalidRequest(f"could not get container for {target}: {error}") from None
        if found is None:
            raise InvalidRequest(f"could not get container for {target}: No such container: {target}")
        made.append(f"/{found.name}:/{own}/{alias}")
    return replace(host, links=made)


def names(containers: Iterable[ContainerRecord]) -> dict[str, list[str]]:
    """Return the names that containers have by others' links: {"db": ["/web/dbx"]}."""
    made: dict[str, list[str]] = {}
    for record in containers:
        if record.host.links and record.host.network_mode == DEFAULT:
            for text in record.host.links:
                target, alias = parse(text)
                made.setdefault(target, []).append(f"/{record.name}/{alias}")
    return made


def target(record: ContainerRecord, alias: str) -> str:
    """Return the container that a link of `record` leads to, "" when there is no such link."""
    found = (parse(text) for text in record.host.links or ())
    return next((name for name, own in found if own == alias), "")


def _linked(rooms: Rooms, record: ContainerRecord) -> list[tuple[str, ContainerRecord, str]]:
    """Return (alias, container, address) of each link that holds now.  Raises Conflict."""
    if record.host.network_mode != DEFAULT:
        return []
    found = []
    for text in record.host.links or ():
        target, alias = parse(text)
        other = rooms.records.get(rooms.index.find(target))
        if other is None or not other.running:
            raise Conflict(f"Cannot link to a non running container: /{target} AS /{record.name}/{alias}")
        endpoint = next((one for one in rooms.networks.of(other.id) if one.ip), None)
        if endpoint is None:
            raise Conflict(f"Cannot link to /{target}, as it does not belong to the default network")
        found.append((alias, other, endpoint.ip))
    return found


def hosts(rooms: Rooms, record: ContainerRecord) -> list[str]:
    """Return NAME:ADDRESS for /etc/hosts: alias, short id or host name, name of each linked container.  Raises Conflict."""
    made = []
    for alias, other, address in _linked(rooms, record):
        names = dict.fromkeys((alias, other.config.hostname or other.id[:12], other.name))
        made += [f"{name}:{address}" for name in names if is_name(name, 253)]
    return made


def environment(rooms: Rooms, record: ContainerRecord) -> list[str]:
    """Return the variables that links give.  Raises Conflict."""
    made: list[str] = []
    for alias, other, address in _linked(rooms, record):
        prefix = "".join(sign if sign.isalnum() else "_" for sign in alias.upper())
        made.append(f"{prefix}_NAME=/{record.name}/{alias}")
        exposed = other.config.exposed_ports
        ports = sorted(_port(text) for text in exposed) if isinstance(exposed, dict) else []
        for number, protocol in ports:
            url = f"{protocol}://{address}:{number}"
            if (number, protocol) == ports[0]:
                made.append(f"{prefix}_PORT={url}")
            head = f"{prefix}_PORT_{number}_{protocol.upper()}"
            made += [f"{head}={url}", f"{head}_ADDR={address}", f"{head}_PORT={number}", f"{head}_PROTO={protocol}"]
        for entry in other.config.env or ():
            key, _, value = entry.partition("=")
            if key not in _PRIVATE:
                made.append(f"{prefix}_ENV_{key}={value}")
    return made


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return int(number.partition("-")[0]), protocol or "tcp"
