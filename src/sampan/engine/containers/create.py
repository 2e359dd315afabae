"""Create: a record, a name, an empty layer; nothing runs yet."""

from __future__ import annotations

import os
import posixpath
import secrets
import time
from contextlib import ExitStack

from msgspec import UNSET, structs

from sampan.engine import spec
from sampan.engine.containers import connections, healthcheck, image_mounts, legacy_links, log_target, places, validate, volumes
from sampan.engine.containers.container import Container
from sampan.engine.context import Rooms
from sampan.engine.images.image import Image
from sampan.engine.records import ContainerRecord
from sampan.errors import InvalidRequest, NotFound
from sampan.kernel.fds import Fd
from sampan.wire import containers as c


def create(rooms: Rooms, name: str | None, body: c.CreateBody, platform: str) -> tuple[Container, list[str]]:
    """Make the container exist, or leave no trace.  Returns it with warnings for the user; blocks for one commit.

    Raises InvalidRequest, Unsupported, NotFound (no such image), Conflict (name in use).
    """
    wanted = body.host_config or c.HostConfig()
    image = rooms.images.resolve(body.image) if body.image else None
    if image is None:
        raise InvalidRequest("no image was given to create the container from")
    if platform:
        _check_platform(platform, image)
    rooms.images.used(image.id)
    validate.config(body, wanted)
    wanted = structs.replace(wanted, log_config=log_target.merged(wanted.log_config, rooms.defaults.log))
    host = validate.host(rooms.defaults.at_create(wanted))
    identity = secrets.token_hex(32)
    config = merge(body, image.config, identity, host)
    command = [*validate.words(config.entrypoint), *validate.words(config.cmd)]
    if not command or not command[0]:
        raise InvalidRequest("no command specified")
    wishes = (body.networking_config and body.networking_config.endpoints_config) or {}
    endpoints = {key: value or c.EndpointSettings() for key, value in wishes.items()}
    others = tuple(place for text in host.volumes_from or () for place in places.volumes_from(rooms, text))
    found = image_mounts.resolved(rooms, places.of_body(rooms.data_root, config, host, others))
    record = ContainerRecord(
        id=identity, name="", created=time.time_ns(), image=image.id, image_ref=body.image, path=command[0],
        args=tuple(command[1:]), config=config, host=host, networking=endpoints, places=found,
    )  # fmt: skip
    record = connections.normal(record, rooms.networks)
    with ExitStack() as undo:
        chosen = validate.name(name) if name else rooms.index.generate()
        rooms.index.add(chosen, identity)
        undo.callback(rooms.index.remove, chosen)
        base = None if spec.shares_host(record) or spec.joins(record) else rooms.ranges.take()
        undo.callback(rooms.ranges.give_back, base)
        record = structs.replace(record, name=chosen, uid_base=base, host=legacy_links.normal(rooms, host, chosen))
        with rooms.state.batch():
            rooms.layers.prepare(identity, image.chain_ids)
            undo.callback(rooms.layers.remove, identity)
            _mark(rooms, identity)
            rooms.records.put(identity, record)
            made = volumes.claim(rooms, record, places.volume_options(host), undo)
        undo.pop_all()
    for volume in made:
        rooms.bus.emit("volume", "create", volume, {"driver": "local"})
    rooms.networks.expect(validate.host_addresses(host))
    container = Container(rooms, record)
    container.emit("create")
    return container, _warnings(host)


def _mark(rooms: Rooms, identity: str) -> None:
    """Put an empty /.dockerenv into its layer, by which programs see that they are in a container; no change of its own."""
    with Fd(os.open(rooms.layers.upper(identity), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as upper:
        os.close(os.open(".dockerenv", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755, dir_fd=upper.fileno()))


def merge(body: c.ContainerConfig, image: c.ContainerConfig, identity: str, host: c.HostConfig) -> c.ContainerConfig:
    """Return the request over the image's settings (engine-api 4.1)."""
    values: dict[str, str | None] = {entry.partition("=")[0]: entry for entry in image.env or ()}
    for entry in body.env or ():
        key, equals, _ = entry.partition("=")
        values[key] = entry if equals else None
    own = bool(validate.words(body.entrypoint)) or body.entrypoint is not None
    entrypoint = validate.words(body.entrypoint) if own else validate.words(image.entrypoint)
    if entrypoint == [""]:
        entrypoint = []
    cmd = validate.words(body.cmd) or ([] if own and validate.words(body.entrypoint) else validate.words(image.cmd))
    exposed = {
        **(image.exposed_ports or {} if image.exposed_ports is not UNSET else {}),
        **(body.exposed_ports or {} if body.exposed_ports is not UNSET else {}),
        **{port: {} for port in host.port_bindings or {}},
    }
    hostname = body.hostname or ("" if host.uts_mode == "host" else identity[:12])
    labels = {**(image.labels or {}), **(body.labels or {})}
    stop_signal = body.stop_signal if body.stop_signal not in (UNSET, "") else image.stop_signal
    kept = [value for value in values.values() if value is not None]
    return c.ContainerConfig(
        hostname=hostname, domainname=body.domainname, user=body.user or image.user, attach_stdin=body.attach_stdin,
        attach_stdout=body.attach_stdout, attach_stderr=body.attach_stderr, exposed_ports=exposed or UNSET, tty=body.tty,
        open_stdin=body.open_stdin, stdin_once=body.stdin_once, env=kept if kept or body.env is not None else None,
        cmd=cmd or None, healthcheck=healthcheck.merge(body.healthcheck, image.healthcheck), image=body.image,
        volumes={**(image.volumes or {}), **(body.volumes or {})} or None,
        working_dir=_clean(body.working_dir) or image.working_dir,
        entrypoint=entrypoint or None, network_disabled=body.network_disabled, mac_address=body.mac_address,
        labels=labels, stop_signal=stop_signal or UNSET, stop_timeout=body.stop_timeout,
        shell=body.shell or image.shell, on_build=None,
    )  # fmt: skip


def _clean(folder: str) -> str:
    return posixpath.normpath("/" + folder.lstrip("/")) if folder else ""


def _check_platform(text: str, image: Image) -> None:
    parts = text.lower().split("/")
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(parts[1], parts[1]) if len(parts) > 1 else image.architecture
    if parts[0] != "linux" or architecture != image.architecture:
        raise NotFound(f"image with reference {image.id} was found but does not provide the platform ({text[:64]})")


def _warnings(host: c.HostConfig) -> list[str]:
    made = []
    if host.network_mode == "host" and host.port_bindings:
        made.append("Published ports are discarded when using host network mode")
    if host.oom_kill_disable and not host.memory:
        made.append("OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
                    "running out of resources.")  # fmt: skip
    return made
