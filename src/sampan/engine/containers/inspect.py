"""Inspect and list: records in the API's shapes (engine-api 4.6, 4.7, 4.11, 4.13)."""

from __future__ import annotations

import time

from msgspec import UNSET, UnsetType, structs

from sampan.engine.containers import groups
from sampan.engine.containers.container import Container
from sampan.engine.containers.validate import port_of
from sampan.engine.images.image import rfc3339
from sampan.engine.records import ContainerRecord
from sampan.wire import containers as c
from sampan.wire.shape import NEVER


def moment(nanoseconds: int) -> str:
    return rfc3339(nanoseconds) if nanoseconds else NEVER


def inspect(container: Container, *, size: bool) -> c.ContainerInspect:
    """Return everything about it.  Blocks when `size`."""
    record, rooms = container.record, container.rooms
    folder = rooms.folder(record.id)
    known = bool(record.started)
    own = size_of(container) if size else (UNSET, UNSET)
    return c.ContainerInspect(
        id=record.id, created=rfc3339(record.created), path=record.path, args=list(record.args), state=state(container),
        image=record.image, name=f"/{record.name}", restart_count=record.restart_count, driver=rooms.layers.name,
        resolv_conf_path=str(folder / "resolv.conf") if known else "",
        hostname_path=str(folder / "hostname") if known else "", hosts_path=str(folder / "hosts") if known else "",
        log_path=container.log_path() if known and (record.host.log_config or c.LogConfig()).type != "none" else "",
        exec_i_ds=[key for key, found in container.execs.items() if found.exit_code is None] or None, host_config=_host(record),
        graph_driver=c.GraphDriver(name=rooms.layers.name, data=rooms.layers.graph(record.id)), mounts=mounts(record),
        config=record.config, network_settings=network_settings(container), size_rw=own[0], size_root_fs=own[1],
    )  # fmt: skip


def _host(record: ContainerRecord) -> c.HostConfig:
    """Docker shows false where the OOM killer could be turned off (v1) and was not, null where it cannot (v2)."""
    if record.host.oom_kill_disable is not None or groups.hierarchy().version != 1:
        return record.host
    return structs.replace(record.host, oom_kill_disable=False)


def size_of(container: Container) -> tuple[int, int]:
    """Return (bytes of its own layer, bytes with the image's).  Blocks."""
    own = container.rooms.layers.usage(container.id).size
    image = container.rooms.images.find(container.record.image)
    return own, own + (image.size if image is not None else 0)


def state(container: Container) -> c.ContainerState:
    record = container.record
    word = "removing" if container.removing else record.state
    return c.ContainerState(
        status=word, running=record.running or record.restarting, paused=record.paused, restarting=record.restarting,
        oom_killed=record.oom_killed, dead=record.status == "dead", pid=record.pid if record.running else 0,
        exit_code=record.exit_code, error=record.error, started_at=moment(record.started),
        finished_at=moment(record.finished), health=container.health.shape() if container.health else UNSET,
    )  # fmt: skip


def mounts(record: ContainerRecord) -> list[c.MountPoint]:
    return [
        c.MountPoint(
            type=place.kind, name=place.volume if place.kind == "volume" else UNSET, source=place.source, destination=place.target,
            driver="local" if place.kind == "volume" else UNSET, mode=place.mode, rw=not place.readonly,
            propagation=place.propagation or ("rprivate" if place.kind == "bind" else ""),
        )
        for place in record.places
        if place.listed
    ]  # fmt: skip


def _listed(record: ContainerRecord) -> list[c.MountPoint]:
    """The same for the list, where volumes that a path asked for (mode "") show no source."""
    return [structs.replace(one, source="") if one.type == "volume" and not one.mode else one for one in mounts(record)]


def endpoints(container: Container, *, names: bool) -> dict[str, c.EndpointSettings]:
    """Return what it is, or will be, on each network; what only a running one has is empty otherwise."""
    record, rooms = container.record, container.rooms
    ids = {info.name: info.id for info in rooms.networks.list()}
    known = {one.network_id: one for one in container.endpoints}
    made = {}
    for name, wanted in record.networking.items():
        one = known.get(ids.get(name, ""))
        made[name] = structs.replace(
            wanted, network_id=ids.get(name, "") if record.running else "", endpoint_id=one.id if one else "",
            gateway=one.gateway if one else "", ip_address=one.ip if one else "", ip_prefix_len=one.prefix if one else 0,
            ipv6_gateway=one.gateway6 if one else "", global_ipv6_address=one.ip6 if one else "",
            global_ipv6_prefix_len=one.prefix6 if one else 0, mac_address=one.mac if one else "",
            aliases=wanted.aliases if names else None, dns_names=list(one.names) or None if one and names else None,
        )  # fmt: skip
    return made


def exposed(record: ContainerRecord) -> list[str]:
    value: dict[str, dict[str, str]] | UnsetType | None = record.config.exposed_ports
    return list(value) if value is not UNSET and value else []


def network_settings(container: Container) -> c.NetworkSettings:
    record = container.record
    ports: c.PortMap = {}
    if record.running and record.host.network_mode not in ("host", "none"):
        ports = {port if "/" in port else f"{port}/tcp": None for port in exposed(record)}
        ports.update({key: list(value) for key, value in record.bound.items()})
    found = endpoints(container, names=True)
    flat = found.get("bridge", c.EndpointSettings())
    return c.NetworkSettings(
        sandbox_id=record.id if record.running else "",
        sandbox_key=f"/proc/{record.pid}/ns/net" if record.running else "", ports=ports, networks=found,
        endpoint_id=flat.endpoint_id, gateway=flat.gateway, ip_address=flat.ip_address, ip_prefix_len=flat.ip_prefix_len,
        mac_address=flat.mac_address, ipv6_gateway=flat.ipv6_gateway, global_ipv6_address=flat.global_ipv6_address,
        global_ipv6_prefix_len=flat.global_ipv6_prefix_len,
    )  # fmt: skip


def command_line(record: ContainerRecord) -> str:
    return " ".join(f"'{word}'" if " " in word else word for word in (record.path, *record.args))


def summary(container: Container, links: dict[str, list[str]], *, size: bool) -> c.ContainerSummary:
    """Return the row of the list.  links: names that containers have by others' links."""
    record = container.record
    own = size_of(container) if size else (UNSET, UNSET)
    rows = []
    published = set()
    for key, bindings in record.bound.items():
        number, protocol = port_of(key)
        published.add((number, protocol))
        rows += [
            c.PortSummary(
                ip=one.host_ip, private_port=number, public_port=int(one.host_port) if one.host_port else UNSET, type=protocol
            )
            for one in bindings
        ]
    if record.running:
        for key in exposed(record):
            if port_of(key) not in published:
                number, protocol = port_of(key)
                rows.append(c.PortSummary(private_port=number, type=protocol))
    annotations = record.host.annotations
    return c.ContainerSummary(
        id=record.id, names=[f"/{record.name}", *sorted(links.get(record.name, ()))], image=record.image_ref, image_id=record.image,
        command=command_line(record), created=record.created // 10**9, ports=rows, labels=record.labels,
        state="removing" if container.removing else record.state, status=status(container),
        host_config=c.SummaryHostConfig(network_mode=record.host.network_mode, annotations=annotations),
        network_settings=c.SummaryNetworks(networks=endpoints(container, names=False)), mounts=_listed(record),
        size_rw=own[0], size_root_fs=own[1],
    )  # fmt: skip


def status(container: Container) -> str:
    """Return the words of `docker ps`."""
    record = container.record
    now = time.time_ns()
    if container.removing:
        return "Removal In Progress"
    if record.running:
        return f"Up {human((now - record.started) / 1e9)}" + _annotation(container)
    if record.restarting:
        return f"Restarting ({record.exit_code}) {human((now - record.finished) / 1e9)} ago"
    if record.status == "dead":
        return "Dead"
    if not record.started:
        return "Created"
    return f"Exited ({record.exit_code}) {human((now - record.finished) / 1e9)} ago"


def _annotation(container: Container) -> str:
    if container.record.paused:
        return " (Paused)"
    if container.health is None:
        return ""
    return f" ({'health: ' if container.health.status == 'starting' else ''}{container.health.status})"


def human(seconds: float) -> str:
    """Return a duration as docker says it (go-units HumanDuration)."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    steps = (
        (whole < 1, "Less than a second"), (whole == 1, "1 second"), (whole < 60, f"{whole} seconds"),
        (minutes == 1, "About a minute"), (minutes < 60, f"{minutes} minutes"), (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"), (hours < 24 * 14, f"{hours // 24} days"),
        (hours < 24 * 60, f"{hours // 24 // 7} weeks"), (hours < 24 * 365 * 2, f"{hours // 24 // 30} months"),
    )  # fmt: skip
    return next((text for holds, text in steps if holds), f"{hours // 24 // 365} years")
