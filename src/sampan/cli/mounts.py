"""-v, --mount, --tmpfs, --device, --ulimit: docker's spellings."""

from __future__ import annotations

import os
from typing import Any

from sampan.cli.main import Exit
from sampan.cli.units import parse_bytes
from sampan.wire import containers as c

_NAMES = {"source": "source", "src": "source", "target": "target", "dst": "target", "destination": "target", "type": "type",
          "consistency": "consistency"}  # fmt: skip


def volumes(given: list[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Split -v into binds (host paths made absolute) and anonymous volumes.  Raises Exit."""
    binds: list[str] = []
    anonymous: dict[str, dict[str, str]] = {}
    for one in given:
        source, colon, rest = one.partition(":")
        if not colon:
            if not one.startswith("/"):
                raise Exit(125, f"invalid volume specification: '{one}': path must be absolute")
            anonymous[one] = {}
            continue
        if not rest or not source:
            raise Exit(125, f"invalid spec: {one}: empty section between colons")
        if source[0] in ".~":
            source = os.path.abspath(os.path.expanduser(source))
        binds.append(f"{source}:{rest}")
    return binds, anonymous


def _flag(name: str, text: str, equals: str) -> bool:
    if not equals or text in ("true", "1"):
        return True
    if text in ("false", "0"):
        return False
    raise Exit(125, f"invalid value for {name}: {text}")


def mount(text: str) -> c.Mount:
    """One --mount.  Raises Exit."""
    plain: dict[str, Any] = {"type": "volume"}
    parts: dict[str, dict[str, Any]] = {"bind": {}, "volume": {}, "tmpfs": {}, "image": {}, "driver": {}}
    for field in text.split(","):
        name, equals, value = field.partition("=")
        name = name.strip().lower()
        if name in ("readonly", "ro"):
            plain["read_only"] = _flag(name, value, equals)
        elif not equals and name not in ("volume-nocopy", "bind-nonrecursive", "bind-create-src"):
            raise Exit(
                125,
                f'invalid argument "{text}" for "--mount" flag: invalid field \'{field}\' must be a key=value pair',
            )
        elif name in _NAMES:
            plain[_NAMES[name]] = value
        elif not _detail(name, value, equals, parts):
            raise Exit(125, f"invalid argument \"{text}\" for \"--mount\" flag: unexpected key '{name}' in '{field}'")
    if not plain.get("target"):
        raise Exit(125, f'invalid argument "{text}" for "--mount" flag: target is required')
    if plain["type"] == "bind" and plain.get("source", "").startswith((".", "~")):
        plain["source"] = os.path.abspath(os.path.expanduser(plain["source"]))
    if parts["driver"]:
        parts["volume"]["driver_config"] = c.DriverConfig(**parts["driver"])
    kinds: dict[str, Any] = {
        "bind": c.BindOptions,
        "volume": c.VolumeOptions,
        "tmpfs": c.TmpfsOptions,
        "image": c.ImageOptions,
    }
    for kind, make in kinds.items():
        if parts[kind]:
            if kind != plain["type"]:
                raise Exit(
                    125,
                    f'invalid argument "{text}" for "--mount" flag: '
                    f"cannot mix '{kind}-*' options with mount type '{plain['type']}'",
                )
            plain[f"{kind}_options"] = make(**parts[kind])
    return c.Mount(**plain)


def _detail(name: str, value: str, equals: str, parts: dict[str, dict[str, Any]]) -> bool:
    """Put an option that belongs to one type where it belongs; False when there is none of that name."""
    if name == "bind-propagation":
        parts["bind"]["propagation"] = value
    elif name == "bind-nonrecursive":
        parts["bind"]["non_recursive"] = _flag(name, value, equals)
    elif name == "bind-create-src":
        parts["bind"]["create_mountpoint"] = _flag(name, value, equals)
    elif name == "bind-recursive":
        known = {"enabled": {}, "disabled": {"non_recursive": True}, "writable": {"read_only_non_recursive": True},
                 "readonly": {"read_only_force_recursive": True}}  # fmt: skip
        if value not in known:
            raise Exit(125, f"invalid value for bind-recursive: {value}")
        parts["bind"].update(known[value])
    elif name == "volume-nocopy":
        parts["volume"]["no_copy"] = _flag(name, value, equals)
    elif name == "volume-subpath":
        parts["volume"]["subpath"] = value
    elif name == "image-subpath":
        parts["image"]["subpath"] = value
    elif name == "volume-label":
        key, _, text = value.partition("=")
        parts["volume"].setdefault("labels", {})[key] = text
    elif name == "volume-driver":
        parts["driver"]["name"] = value
    elif name == "volume-opt":
        key, _, text = value.partition("=")
        parts["driver"].setdefault("options", {})[key] = text
    else:
        return _tmpfs_detail(name, value, parts["tmpfs"])
    return True


def _tmpfs_detail(name: str, value: str, parts: dict[str, Any]) -> bool:
    try:
        if name == "tmpfs-size":
            parts["size_bytes"] = parse_bytes(value)
        elif name == "tmpfs-mode":
            parts["mode"] = int(value, 8)
        else:
            return False
    except ValueError:
        raise Exit(125, f"invalid value for {name}: {value}") from None
    return True


def tmpfs(given: list[str]) -> dict[str, str]:
    return {path: options for path, _, options in (one.partition(":") for one in given)}


def device(text: str) -> c.DeviceMapping:
    """`host[:container[:rwm]]`.  Raises Exit."""
    parts = text.split(":")
    inside, rights = parts[0], "rwm"
    if len(parts) == 3:
        inside, rights = parts[1], parts[2]
    elif len(parts) == 2:
        if parts[1] and not set(parts[1]) - set("rwm"):
            rights = parts[1]
        else:
            inside = parts[1]
    if len(parts) > 3 or not parts[0] or not rights or set(rights) - set("rwm"):
        raise Exit(125, f"invalid device specification: {text}")
    return c.DeviceMapping(path_on_host=parts[0], path_in_container=inside or parts[0], cgroup_permissions=rights)


def ulimit(text: str) -> c.Ulimit:
    """`name=soft[:hard]`.  Raises Exit."""
    name, equals, values = text.partition("=")
    soft, _, hard = values.partition(":")
    hard = hard or soft
    for one in (soft, hard):
        if not equals or not (one == "-1" or (one.isascii() and one.isdigit() and len(one) < 19)):
            raise Exit(125, f'invalid argument "{text}" for "--ulimit" flag: invalid ulimit argument: {text}')
    return c.Ulimit(name=name, soft=int(soft), hard=int(hard))
