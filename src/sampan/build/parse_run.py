"""RUN and its mounts."""

from __future__ import annotations

import csv
from collections.abc import Callable

from sampan.build.flags import Flag, Flags
from sampan.build.instructions import Mount, Run
from sampan.build.lines import Logical, strings
from sampan.build.source import suggestion

_RUN = {"mount": "many", "network": "one", "security": "one", "device": "many"}
_BARE = {"ro": True, "readonly": True, "rw": False, "readwrite": False}
_TARGET = ("target", "dst", "destination")
_KEYS = {
    "bind": {*_TARGET, "source", "src", "from", *_BARE},
    "cache": {*_TARGET, "id", *_BARE, "sharing", "from", "source", "src", "mode", "uid", "gid"},
    "tmpfs": {*_TARGET, "size"},
    "secret": {*_TARGET, "id", "env", "required", "mode", "uid", "gid", "source", "src"},
    "ssh": {*_TARGET, "id", "required", "mode", "uid", "gid"},
}
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}


def run(line: Logical, escape: str) -> Run:
    """Return a RUN.  Raises DockerfileError."""
    flags = Flags(line, _RUN)
    exact = strings(flags.rest)
    if not flags.rest.strip() or exact == []:
        raise line.error("RUN requires at least one argument")
    network = flags.one("network") or "default"
    if network not in ("default", "none", "host"):
        hint = suggestion(network, ("default", "none", "host"))
        raise line.error(f'invalid network mode: "{network[:40]}"{hint}', flags.place("network"))
    security = flags.one("security") or "sandbox"
    if security not in ("sandbox", "insecure"):
        hint = suggestion(security, ("sandbox", "insecure"))
        raise line.error(f'invalid security mode: "{security[:40]}"{hint}', flags.place("security"))
    words = (flags.rest,) if exact is None else tuple(exact)
    mounts = tuple(_mount(line, flag) for flag in flags.many("mount"))
    devices = tuple(_device(line, flag) for flag in flags.many("device"))
    heredocs = line.heredocs if exact is None else ()
    return Run(line, words, exact is None, heredocs, mounts, network, security, devices)


def _device(line: Logical, flag: Flag) -> str:
    """Return a device as it was written: NAME[,required]."""
    name, *more = (flag.value or "").split(",")
    if not name or "=" in name.partition("/")[0]:
        raise line.error(f"invalid device name {name[:40]!r}: NAME[,required] is expected", flag.offset)
    for word in more:
        if word not in ("required", "required=true", "required=false"):
            hint = suggestion(word, ("required",))
            raise line.error(f"unexpected key '{word[:40]}' of device {name[:40]}{hint}", flag.offset)
    return flag.value or ""


def _mount(line: Logical, flag: Flag) -> Mount:
    """Return a mount from the comma-separated keys of the flag."""

    def fail(reason: str) -> Exception:
        return line.error(reason, flag.offset)

    try:
        rows = list(csv.reader([flag.value or ""], strict=True))
    except csv.Error as error:
        raise fail(f"failed to parse mount: {error}") from None
    items: list[tuple[str, str | None]] = []
    for field in rows[0] if rows else []:
        key, equals, value = field.partition("=")
        items.append((key.lower().strip(), value if equals else None))
    kinds = [value for key, value in items if key == "type"]
    kind = (kinds[-1] or "").lower() if kinds else "bind"
    if kind not in _KEYS:
        raise fail(f'unsupported mount type "{kind[:40]}"{suggestion(kind, _KEYS)}')
    found: dict[str, object] = {"type": kind}
    for key, given in items:
        if key != "type":
            _set(found, kind, key, given, fail)
    return _checked(Mount(**found), fail)  # type: ignore[arg-type]


def _set(found: dict[str, object], kind: str, key: str, value: str | None, fail: Callable[[str], Exception]) -> None:
    every = set().union(*_KEYS.values())
    if key not in every:
        if value is None:
            raise fail(f"invalid field '{key[:40]}' must be a key=value pair")
        raise fail(f"unexpected key '{key[:40]}' in '{key[:40]}={value[:40]}'{suggestion(key, _KEYS[kind])}")
    if value is None and key not in _BARE and key != "required":
        raise fail(f"invalid field '{key[:40]}' must be a key=value pair")
    if key not in _KEYS[kind]:
        raise fail(f"{key} is not allowed for a mount of type {kind}{suggestion(key, _KEYS[kind])}")
    text = value or ""
    if key in _BARE:
        found["readonly"] = _BARE[key] is _true(key, value, fail)
    elif key == "required":
        found["required"] = _true(key, value, fail)
    elif key in _TARGET:
        found["target"] = text
    elif key in ("source", "src"):
        found["identity" if kind == "secret" else "source"] = text
    elif key == "from":
        if "$" in text:
            raise fail(f"'from' doesn't support variable expansion: {text[:60]}")
        found["source_from"] = text
    elif key in ("uid", "gid"):
        found[key] = _number(key, text, 10, fail)
    elif key == "mode":
        found["mode"] = _number(key, text, 8, fail)
    elif key == "size":
        found["size"] = _size(text, fail)
    elif key == "sharing":
        if text not in ("shared", "private", "locked"):
            raise fail(f'unsupported sharing value "{text[:40]}"{suggestion(text, ("shared", "private", "locked"))}')
        found["sharing"] = text
    else:
        found[{"id": "identity", "env": "env"}[key]] = text


def _true(key: str, value: str | None, fail: Callable[[str], Exception]) -> bool:
    if value not in (None, "true", "false", "1", "0"):
        raise fail(f"invalid value for {key}: {value[:40] if value else ''}")
    return value in (None, "true", "1")


def _number(key: str, text: str, base: int, fail: Callable[[str], Exception]) -> int:
    digits = "01234567" if base == 8 else "0123456789"
    if not text or len(text) > 10 or text.strip(digits):
        raise fail(f"invalid value for {key}: {text[:40]}")
    number = int(text, base)
    if number > (0o7777 if base == 8 else 0xFFFF):
        raise fail(f"invalid value for {key}: {text[:40]} is too large")
    return number


def _size(text: str, fail: Callable[[str], Exception]) -> int:
    lowered = text.lower()
    unit = lowered.lstrip("0123456789")
    digits = lowered[: len(lowered) - len(unit)]
    if not digits or unit not in _SIZES or len(digits) > 15 or not digits.isascii():
        raise fail(f"invalid value for size: {text[:40]}")
    return int(digits) * _SIZES[unit]


def _checked(mount: Mount, fail: Callable[[str], Exception]) -> Mount:
    if mount.type in ("bind", "cache", "tmpfs") and not mount.target:
        raise fail(f"{mount.type} mount needs a target")
    if mount.type == "secret" and not (mount.identity or mount.target or mount.env):
        raise fail("secret mount needs an id, a target or an env")
    if mount.type == "secret" and not mount.identity and not mount.target:
        raise fail("secret mount needs an id when only env is given")
    return mount
