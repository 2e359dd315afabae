"""The Dockerfile instructions that `docker import --change` takes, applied to an image's settings."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sampan.engine.images.filters import duration
from sampan.errors import InvalidRequest
from sampan.oci.image import Health, Settings, strict

_MAX = 1000
_SHELL = ["/bin/sh", "-c"]


def apply_changes(settings: Settings, changes: Sequence[str]) -> Settings:
    """Return the settings after every instruction, in order.  Raises InvalidRequest naming the instruction."""
    if len(changes) > _MAX:
        raise InvalidRequest(f"{len(changes)} changes, at most {_MAX}")
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        instruction = _INSTRUCTIONS.get(word.upper())
        if instruction is None:
            raise InvalidRequest(f"{word[:40].lower()} is not a valid change command")
        if not rest:
            raise InvalidRequest(f"{word.upper()} requires at least one argument")
        if "\0" in rest:
            raise InvalidRequest(f"{word.upper()} has a NUL in its arguments")
        settings = instruction(settings, rest)
    return settings


def _with(settings: Settings, **changed: Any) -> Settings:
    return msgspec.structs.replace(settings, **changed)


def _strings(rest: str) -> list[str] | None:
    """Return a JSON list of strings, or None when the text is in shell form."""
    if not rest.startswith("["):
        return None
    try:
        return msgspec.convert(strict(rest.encode(), "arguments"), list[str])
    except (InvalidRequest, msgspec.ValidationError, UnicodeEncodeError):
        return None


def _command(settings: Settings, rest: str) -> list[str]:
    exact = _strings(rest)
    return exact if exact is not None else [*(settings.shell or _SHELL), rest]


def _words(rest: str) -> list[str]:
    exact = _strings(rest)
    if exact is not None:
        return exact
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise InvalidRequest(f"{rest[:80]!r}: {str(error).lower()}") from None


def _pairs(rest: str, name: str) -> list[tuple[str, str]]:
    """Return `k=v k2="v 2"`, or the old form `k all the rest`."""
    words = _words(rest)
    if "=" not in words[0]:
        if len(words) < 2:
            raise InvalidRequest(f"{name} must have two arguments")
        return [(words[0], rest[len(words[0]) :].strip())]
    found = [word.partition("=") for word in words]
    for key, equals, _ in found:
        if not key or not equals:
            raise InvalidRequest(f"{name} names can not be blank, and every argument needs a =")
    return [(key, value) for key, _, value in found]


def _env(settings: Settings, rest: str) -> Settings:
    env = list(settings.env or ())
    for key, value in _pairs(rest, "ENV"):
        env = [item for item in env if item.partition("=")[0] != key] + [f"{key}={value}"]
    return _with(settings, env=env)


def _label(settings: Settings, rest: str) -> Settings:
    return _with(settings, labels={**(settings.labels or {}), **dict(_pairs(rest, "LABEL"))})


def _entrypoint(settings: Settings, rest: str) -> Settings:
    return _with(settings, entrypoint=_command(settings, rest))


def _cmd(settings: Settings, rest: str) -> Settings:
    return _with(settings, cmd=_command(settings, rest))


def _expose(settings: Settings, rest: str) -> Settings:
    ports = dict(settings.exposed_ports or {})
    for word in _words(rest):
        number, _, protocol = word.partition("/")
        first, dash, last = number.partition("-")
        bounds = (first, last if dash else first)
        if protocol not in ("", "tcp", "udp", "sctp") or not all(b.isascii() and b.isdigit() and len(b) < 6 for b in bounds):
            raise InvalidRequest(f"invalid containerPort: {word[:40]}")
        low, high = int(bounds[0]), int(bounds[1])
        if not 0 < low <= high <= 65535:
            raise InvalidRequest(f"invalid containerPort: {word[:40]}")
        for port in range(low, high + 1):
            ports[f"{port}/{protocol or 'tcp'}"] = {}
    return _with(settings, exposed_ports=ports)


def _user(settings: Settings, rest: str) -> Settings:
    return _with(settings, user=rest)


def _volume(settings: Settings, rest: str) -> Settings:
    words = _words(rest)
    if not all(words):
        raise InvalidRequest("VOLUME specified can not be an empty string")
    return _with(settings, volumes={**(settings.volumes or {}), **{word: {} for word in words}})


def _workdir(settings: Settings, rest: str) -> Settings:
    path = rest if rest.startswith("/") else f"{settings.working_dir or '/'}/{rest}"
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return _with(settings, working_dir="/" + "/".join(parts))


def _stop_signal(settings: Settings, rest: str) -> Settings:
    if not rest.isascii() or not rest.replace("+", "").replace("-", "").isalnum() or len(rest) > 20:
        raise InvalidRequest(f"invalid signal: {rest[:40]}")
    return _with(settings, stop_signal=rest)


def _on_build(settings: Settings, rest: str) -> Settings:
    if rest.split(" ", 1)[0].upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        raise InvalidRequest(f"{rest.split(' ', 1)[0].upper()} isn't allowed as an ONBUILD trigger")
    return _with(settings, on_build=[*(settings.on_build or ()), rest])


_HEALTH = {"interval": "interval", "timeout": "timeout", "start-period": "start_period", "start-interval": "start_interval"}


def _healthcheck(settings: Settings, rest: str) -> Settings:
    options: dict[str, int] = {}
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        name, _, value = option[2:].partition("=")
        rest = rest.strip()
        if name == "retries" and value.isascii() and value.isdigit() and len(value) < 10:
            options["retries"] = int(value)
            continue
        found = duration(value) if name in _HEALTH else None
        if found is None:
            raise InvalidRequest(f"unknown or malformed option {option[:60]!r} of HEALTHCHECK")
        options[_HEALTH[name]] = found
    kind, _, command = rest.partition(" ")
    if kind.upper() == "NONE" and not command and not options:
        return _with(settings, healthcheck=Health(test=["NONE"]))
    if kind.upper() != "CMD" or not command.strip():
        raise InvalidRequest(f"unknown type {kind[:40]!r} of HEALTHCHECK (try CMD)")
    exact = _strings(command.strip())
    test = ["CMD", *exact] if exact is not None else ["CMD-SHELL", command.strip()]
    return _with(settings, healthcheck=Health(test=test, **options))


_INSTRUCTIONS: dict[str, Callable[[Settings, str], Settings]] = {
    "CMD": _cmd, "ENTRYPOINT": _entrypoint, "ENV": _env, "EXPOSE": _expose, "HEALTHCHECK": _healthcheck, "LABEL": _label,
    "ONBUILD": _on_build, "STOPSIGNAL": _stop_signal, "USER": _user, "VOLUME": _volume, "WORKDIR": _workdir,
}  # fmt: skip
