"""Who is called what, seen from each container: only the names of its own networks, and its own links."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from sampan.network.dns import message as m


class Place(NamedTuple):
    """A container's endpoint: the first of `names` is the container's own."""

    id: str
    container: str
    network: str
    label: str
    internal: bool
    ip: str
    ip6: str
    names: tuple[str, ...]
    links: dict[str, str]


def place(values: dict[str, Any]) -> Place:
    """Return the Place of a message."""
    names = tuple(str(name).lower() for name in values["names"])
    links = {str(key).lower(): str(value).lower() for key, value in values["links"].items()}
    return Place(**{**values, "names": names, "links": links})


class Names:
    """The table."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._by_container: dict[str, dict[str, Place]] = {}
        self._by_name: dict[tuple[str, str], dict[str, Place]] = {}
        self._by_address: dict[tuple[str, str], Place] = {}
        self._turn = 0

    def put(self, one: Place) -> None:
        self.drop(one.id)
        self._places[one.id] = one
        self._by_container.setdefault(one.container, {})[one.id] = one
        for name in one.names:
            self._by_name.setdefault((one.network, name), {})[one.id] = one
        for text in (one.ip, one.ip6):
            if text:
                self._by_address[one.network, _plain(text)] = one

    def drop(self, key: str) -> None:
        one = self._places.pop(key, None)
        if one is None:
            return
        _take(self._by_container, one.container, key)
        for name in one.names:
            _take(self._by_name, (one.network, name), key)
        for text in (one.ip, one.ip6):
            if text and self._by_address.get((one.network, _plain(text))) is one:
                del self._by_address[one.network, _plain(text)]

    def keys(self) -> list[str]:
        return list(self._places)

    def forwards(self, container: str) -> bool:
        """Whether the container's other questions may leave: not when all its networks are internal (row 76)."""
        return any(not one.internal for one in self._by_container.get(container, {}).values())

    def lookup(self, container: str, question: m.Question) -> list[bytes] | None:
        """Return the records for a question, none when the name has none of the kind; None when the name is not known here."""
        own = self._by_container.get(container, {}).values()
        if question.kind == m.PTR:
            return self._pointer(list(own), m.reverse(question.name))
        found = self._find(list(own), question.name)
        if not found:
            return None
        self._turn += 1
        start = self._turn % len(found)
        texts = [one.ip if question.kind == m.A else one.ip6 for one in (*found[start:], *found[:start])]
        wanted = question.kind in (m.A, m.AAAA)
        return [m.address(question.kind, text) for text in texts if text] if wanted else []

    def _find(self, own: list[Place], name: str) -> list[Place]:
        for one in own:
            target = one.links.get(name)
            if target is not None:
                found = self._by_name.get((one.network, target)) or self._by_id(one.network, target)
                if found:
                    return list(found.values())
        for one in own:
            at = self._by_name.get((one.network, name), {})
            if not at and name.endswith(f".{one.label.lower()}"):
                at = self._by_name.get((one.network, name[: -len(one.label) - 1]), {})
            if at:
                return list(at.values())
        return []

    def _by_id(self, network: str, target: str) -> dict[str, Place]:
        return {key: one for key, one in self._by_container.get(target, {}).items() if one.network == network}

    def _pointer(self, own: list[Place], text: str) -> list[bytes] | None:
        for one in own:
            found = self._by_address.get((one.network, _plain(text))) if text else None
            if found is not None:
                return [m.record(m.PTR, m.write_name(f"{found.names[0]}.{found.label}".lower()))]
        return None


def _take(index: dict[Any, dict[str, Place]], key: Any, one: str) -> None:
    index[key].pop(one, None)
    if not index[key]:
        del index[key]


def _plain(text: str) -> str:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, text))
