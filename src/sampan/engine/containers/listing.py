"""The list's filters (engine-api 1.8)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sampan.engine.containers.container import Container
from sampan.engine.containers.inspect import exposed
from sampan.engine.containers.validate import port_of
from sampan.engine.context import Rooms
from sampan.engine.events import label_matches
from sampan.engine.patterns import Patterns
from sampan.errors import InvalidRequest, SampanError

Filters = Mapping[str, tuple[str, ...]]
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


def _test(rooms: Rooms, containers: Mapping[str, Container], key: str, values: tuple[str, ...]) -> Callable[[Container], bool]:
    if key == "id":
        ids = Patterns(values)
        return lambda one: any(one.id.startswith(value) for value in values) or ids.match(one.id)
    if key == "name":
        names = Patterns(values)
        return lambda one: names.match(one.record.name, f"/{one.record.name}")
    if key == "label":
        return lambda one: all(label_matches(one.record.labels, value) for value in values)
    if key == "status":
        for value in values:
            if value not in STATES:
                raise InvalidRequest(f"invalid filter 'status={value[:32]}'")
        return lambda one: ("removing" if one.removing else one.record.state) in values
    if key == "exited":
        for value in values:
            if not re.fullmatch(r"-?[0-9]{1,9}", value, re.ASCII):
                raise InvalidRequest(f'strconv.Atoi: parsing "{value[:32]}": invalid syntax')
        codes = {int(value) for value in values}
        return lambda one: not one.record.running and bool(one.record.started) and one.record.exit_code in codes
    if key in ("before", "since"):
        others = [containers[rooms.index.find(value)].record.created for value in values]
        if key == "before":
            return lambda one: any(one.record.created < other for other in others)
        return lambda one: any(one.record.created > other for other in others)
    if key == "ancestor":
        images = set()
        for value in values:
            try:
                images.add(str(rooms.images.resolve(value).id))
            except SampanError:
                continue
        return lambda one: one.record.image in images or one.record.image_ref in values
    if key == "network":
        networks = {info.name: info.id for info in rooms.networks.list()}
        return lambda one: any(
            value == name or (value and networks.get(name, "").startswith(value))
            for name in one.record.networking
            for value in values
        )
    if key == "volume":
        return lambda one: any(value in (p.volume, p.source, p.target) for p in one.record.places for value in values)
    if key in ("expose", "publish"):
        wanted = set()
        for value in values:
            wanted |= _ports(key, value)
        if key == "expose":
            return lambda one: one.record.running and any(port_of(port) in wanted for port in exposed(one.record))
        return lambda one: one.record.running and any(port_of(port) in wanted for port in one.record.bound)
    if key == "is-task":
        task = boolean(key, values)
        return lambda one: not task
    if key == "health":
        return lambda one: (one.health.status if one.health is not None else "none") in values
    if key == "isolation":
        return lambda one: True
    raise InvalidRequest(f"invalid filter '{key[:32]}'")
