"""API versions: which are spoken, and the one table of what older ones meant otherwise (engine-api 1.4 and 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import UNSET, structs

from sampan.errors import InvalidRequest
from sampan.wire import containers as c
from sampan.wire import images as i
from sampan.wire.shape import NEVER

Version = tuple[int, ...]

MAXIMUM = "1.50"
MINIMUM = "1.24"

T = TypeVar("T")


def parse(text: str) -> Version:
    """Compare versions as tuples of numbers: 1.9 < 1.24.  Raises InvalidRequest."""
    parts = text.split(".")
    if len(parts) > 4 or not all(part.isascii() and part.isdigit() and len(part) <= 6 for part in parts):
        raise InvalidRequest(f"invalid API version {text[:32]}")
    return tuple(int(part) for part in parts)


NEWEST = parse(MAXIMUM)
OLDEST = parse(MINIMUM)


def lift(value: T, version: Version) -> T:
    """What a request of `version` means in the newest one's words.  Raises InvalidRequest."""
    if version < NEWEST:
        for below, kind, change in LIFTS:
            if version < below and type(value) is kind:
                value = change(value)
    return value


def lower(value: T, version: Version) -> T:
    """An answer in the shape that a client of `version` knows."""
    if version < NEWEST:
        for below, kind, change in LOWERS:
            if version < below and type(value) is kind:
                value = change(value)
    return value


def _host(body: c.CreateBody, change: Callable[[c.HostConfig], c.HostConfig]) -> c.CreateBody:
    if body.host_config is None:
        return body
    return structs.replace(body, host_config=change(body.host_config))


def _mounts(body: c.CreateBody, change: Callable[[c.Mount], c.Mount]) -> c.CreateBody:
    def each(host: c.HostConfig) -> c.HostConfig:
        return structs.replace(host, mounts=[change(mount) for mount in host.mounts]) if host.mounts else host

    return _host(body, each)


def _shareable(body: c.CreateBody) -> c.CreateBody:
    return _host(body, lambda h: h if h.ipc_mode else structs.replace(h, ipc_mode="shareable"))


def _bind(mount: c.Mount, **changes: Any) -> c.Mount:
    if mount.bind_options is None:
        return mount
    return structs.replace(mount, bind_options=structs.replace(mount.bind_options, **changes))


def _matching_options(mount: c.Mount) -> c.Mount:
    """Before 1.42 options of another type than the mount's were ignored; later they are refused."""
    kept = {"bind": "bind_options", "volume": "volume_options", "tmpfs": "tmpfs_options"}.get(mount.type)
    drop = {name: None for name in ("bind_options", "volume_options", "tmpfs_options") if name != kept}
    return structs.replace(mount, **drop)


def _no_start_interval(body: c.CreateBody) -> c.CreateBody:
    if not isinstance(body.healthcheck, c.HealthConfig):
        return body
    return structs.replace(body, healthcheck=structs.replace(body.healthcheck, start_interval=0))


def _one_endpoint(body: c.CreateBody) -> c.CreateBody:
    wanted = body.networking_config.endpoints_config if body.networking_config else None
    if wanted and len(wanted) > 1:
        raise InvalidRequest(f"Container cannot be connected to network endpoints: {', '.join(sorted(wanted))}")
    return body


def _no_subpath(mount: c.Mount) -> c.Mount:
    if mount.volume_options is not None and mount.volume_options.subpath:
        raise InvalidRequest("VolumeOptions.Subpath needs API version 1.45 or newer")
    return mount


def _no_image_mount(mount: c.Mount) -> c.Mount:
    if mount.type == "image":
        raise InvalidRequest('Mount type "image" needs API version 1.48 or newer')
    return mount


def _no_priority(body: c.CreateBody) -> c.CreateBody:
    networking = body.networking_config
    if networking is None or not networking.endpoints_config:
        return body
    made = {k: v and structs.replace(v, gw_priority=0) for k, v in networking.endpoints_config.items()}
    return structs.replace(body, networking_config=structs.replace(networking, endpoints_config=made))


# Oldest first: a later row may rely on what an earlier one has done.
LIFTS: tuple[tuple[Version, type, Callable[[Any], Any]], ...] = (
    ((1, 40), c.CreateBody, _shareable),
    ((1, 40), c.CreateBody, lambda body: _mounts(body, lambda m: _bind(m, non_recursive=False))),
    ((1, 42), c.CreateBody, lambda body: _host(body, lambda h: structs.replace(h, console_size=None))),
    ((1, 42), c.CreateBody, lambda body: _mounts(body, lambda m: _bind(m, create_mountpoint=False))),
    ((1, 42), c.CreateBody, lambda body: _mounts(body, _matching_options)),
    ((1, 42), c.ExecCreate, lambda body: structs.replace(body, console_size=None)),
    ((1, 42), c.ExecStart, lambda body: structs.replace(body, console_size=None)),
    ((1, 43), c.CreateBody, lambda body: _host(body, lambda h: structs.replace(h, annotations=UNSET))),
    ((1, 44), c.CreateBody, _no_start_interval),
    ((1, 44), c.CreateBody, _one_endpoint),
    ((1, 45), c.CreateBody, lambda body: _mounts(body, _no_subpath)),
    ((1, 48), c.CreateBody, lambda body: _mounts(body, _no_image_mount)),
    ((1, 48), c.CreateBody, _no_priority),
)


def _placeholders(image: i.ImageSummary) -> i.ImageSummary:
    return structs.replace(
        image, repo_tags=image.repo_tags or ["<none>:<none>"], repo_digests=image.repo_digests or ["<none>@<none>"]
    )


def _short_aliases(container: c.ContainerInspect) -> c.ContainerInspect:
    """Before 1.45 the aliases on user-defined networks held the short id too; the default bridge had none."""
    settings = container.network_settings
    made = {
        name: structs.replace(endpoint, aliases=[*(endpoint.aliases or []), container.id[:12]])
        if name not in ("bridge", "host", "none")
        else endpoint
        for name, endpoint in settings.networks.items()
    }
    return structs.replace(container, network_settings=structs.replace(settings, networks=made))


def _no_annotations(item: c.ContainerSummary) -> c.ContainerSummary:
    return structs.replace(item, host_config=structs.replace(item.host_config, annotations=UNSET))


LOWERS: tuple[tuple[Version, type, Callable[[Any], Any]], ...] = (
    ((1, 43), i.ImageSummary, _placeholders),
    ((1, 44), i.ImageSummary, lambda image: structs.replace(image, virtual_size=image.size)),
    ((1, 44), i.ImageInspect, lambda image: structs.replace(image, virtual_size=image.size)),
    ((1, 44), i.ImageInspect, lambda image: structs.replace(image, created=image.created or NEVER)),
    ((1, 45), c.ContainerInspect, _short_aliases),
    ((1, 46), c.ContainerSummary, _no_annotations),
)
