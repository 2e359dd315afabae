"""The list's filters (engine-api 1.8)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sampan.engine.containers.container import Container
from sampan.engine.containers.inspect import exposed
from sampan.engine.containers.validate import port_of
from sampan.engine.context import Rooms
from sampan.engine.events import label_matches
from sampan.engine.patterns import Patterns
from sampan.errors import InvalidRequest, SampanError

Filters = Mapping[str, tuple[str, ...]]
Test = Callable[[Container], bool]
STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")


def boolean(key: str, values: tuple[str, ...]) -> bool:
    """Return a filter's truth value.  Raises InvalidRequest."""
    if len(values) != 1 or values[0].lower() not in ("true", "1", "false", "0"):
        raise InvalidRequest(f"invalid filter '{key}={list(values)}'")
    return values[0].lower() in ("true", "1")


def selected(rooms: Rooms, containers: Mapping[str, Container], filters: Filters, *, all: bool, limit: int) -> list[Container]:
    """Return the containers that a list shows, newest first.  Raises InvalidRequest."""
    tests = [_test(rooms, containers, key, values) for key, values in filters.items() if values]
    everything = all or limit > 0 or bool(filters.get("status")) or bool(filters.get("exited"))
    found = sorted(containers.values(), key=lambda one: one.record.created, reverse=True)
    found = [one for one in found if everything or one.record.running or one.record.restarting]
    found = [one for one in found if all_of(tests, one)]
    return found[:limit] if limit > 0 else found


def all_of(tests: list[Callable[[Container], bool]], container: Container) -> bool:
    return all(test(container) for test in tests)


def _ports(key: str, value: str) -> set[tuple[int, str]]:
    number, _, protocol = value.partition("/")
    first, dash, last = number.partition("-")
    protocol = protocol or "tcp"
    for text in (first, last if dash else first):
        if not (text.isascii() and text.isdigit() and len(text) < 6):
            raise InvalidRequest(
                f'error while looking up for {key} {value[:32]}: strconv.ParseUint: parsing "{text[:32]}": invalid syntax'
            )
    low, high = port_of(f"{first}/{protocol}")[0], port_of(f"{last if dash else first}/{protocol}")[0]
    return {(port, protocol) for port in range(low, high + 1)}


@dataclass(frozen=True)
class _Asked:
    """One filter: its values, and what they may have to be looked up in."""

    rooms: Rooms
    containers: Mapping[str, Container]
    key: str
    values: tuple[str, ...]


def _test(rooms: Rooms, containers: Mapping[str, Container], key: str, values: tuple[str, ...]) -> Test:
    if key not in _TESTS:
        raise InvalidRequest(f"invalid filter '{key[:32]}'")
    return _TESTS[key](_Asked(rooms, containers, key, values))


def _id(asked: _Asked) -> Test:
    ids = Patterns(asked.values)
    return lambda one: any(one.id.startswith(value) for value in asked.values) or ids.match(one.id)


def _name(asked: _Asked) -> Test:
    names = Patterns(asked.values)
    return lambda one: names.match(one.record.name, f"/{one.record.name}")


def _status(asked: _Asked) -> Test:
    for value in asked.values:
        if value not in STATES:
            raise InvalidRequest(f"invalid filter 'status={value[:32]}'")
    return lambda one: ("removing" if one.removing else one.record.state) in asked.values


def _exited(asked: _Asked) -> Test:
    for value in asked.values:
        if not re.fullmatch(r"-?[0-9]{1,9}", value, re.ASCII):
            raise InvalidRequest(f'strconv.Atoi: parsing "{value[:32]}": invalid syntax')
    codes = {int(value) for value in asked.values}
    return lambda one: not one.record.running and bool(one.record.started) and one.record.exit_code in codes


def _age(asked: _Asked) -> Test:
    others = [asked.containers[asked.rooms.index.find(value)].record.created for value in asked.values]
    if asked.key == "before":
        return lambda one: any(one.record.created < other for other in others)
    return lambda one: any(one.record.created > other for other in others)


def _ancestor(asked: _Asked) -> Test:
    images = set()
    for value in asked.values:
        with suppress(SampanError):
            images.add(str(asked.rooms.images.resolve(value).id))
    return lambda one: one.record.image in images or one.record.image_ref in asked.values


def _network(asked: _Asked) -> Test:
    ids = {info.name: info.id for info in asked.rooms.networks.list()}
    return lambda one: any(
        value == name or (value and ids.get(name, "").startswith(value)) for name in one.record.networking for value in asked.values
    )


def _volume(asked: _Asked) -> Test:
    return lambda one: any(value in (p.volume, p.source, p.target) for p in one.record.places for value in asked.values)


def _port(asked: _Asked) -> Test:
    wanted = set().union(*(_ports(asked.key, value) for value in asked.values))
    if asked.key == "expose":
        return lambda one: one.record.running and any(port_of(port) in wanted for port in exposed(one.record))
    return lambda one: one.record.running and any(port_of(port) in wanted for port in one.record.bound)


def _task(asked: _Asked) -> Test:
    task = boolean(asked.key, asked.values)
    return lambda one: not task


_TESTS: dict[str, Callable[[_Asked], Test]] = {
    "id": _id, "name": _name, "status": _status, "exited": _exited, "before": _age, "since": _age, "ancestor": _ancestor,
    "network": _network, "volume": _volume, "expose": _port, "publish": _port, "is-task": _task,
    "label": lambda asked: lambda one: all(label_matches(one.record.labels, value) for value in asked.values),
    "health": lambda asked: lambda one: (one.health.status if one.health is not None else "none") in asked.values,
    "isolation": lambda asked: lambda one: True,  # there is one kind only
}  # fmt: skip
