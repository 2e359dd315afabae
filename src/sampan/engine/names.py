"""Containers' names and how a reference finds its container."""

from __future__ import annotations

import secrets
from bisect import bisect_left

from sampan.errors import Conflict, InvalidRequest, NotFound

_LEFT = (
    "able agile amber ample azure balmy blithe bold brave breezy bright brisk calm candid cheery civil clever "
    "coral cosy crisp curious daring dapper deft eager early earnest easy fair fleet fond frank fresh gentle "
    "glad golden grand happy hardy hearty humble jolly keen kind lively loyal lucid lucky mellow merry mild "
    "modest neat nimble noble patient placid plucky polite prim proud quick quiet ready serene sharp silver "
    "sincere sleek smart snug spry stable steady stout sunny swift tender tidy true upbeat vivid warm wise "
    "witty zesty"
).split()
_RIGHT = (
    "abel amundsen anning archimedes babbage banneker bering boole bose braille cabot celsius chang cook "
    "copernicus curie darwin dias drake dufour earhart euler faraday fermat franklin galileo gauss gilbert "
    "goodall halley heng herschel hopper hubble hudson humboldt hypatia ibnbattuta jansky kepler kovalevsky "
    "lamarr lovelace magellan marconi maxwell mendel mercator meitner nansen newton nobel noether pascal "
    "pasteur polo pytheas raman ride rontgen shackleton shannon somerville swan tasman tereshkova tesla turing "
    "urey vespucci volta watt zheng zuse"
).split()


class Index:
    """Names and IDs; in the event loop's thread only."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._ids: list[str] = []

    def generate(self) -> str:
        """Return a free adjective_surname."""
        while True:
            name = f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}"
            if name not in self._names:
                return name
            name += secrets.token_hex(2)
            if name not in self._names:
                return name

    def add(self, name: str, container: str) -> None:
        """Take a name.  Raises Conflict in Docker's words."""
        owner = self._names.get(name)
        if owner is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._names[name] = container
        at = bisect_left(self._ids, container)
        if at == len(self._ids) or self._ids[at] != container:
            self._ids.insert(at, container)

    def rename(self, old: str, new: str) -> None:
        self.add(new, self._names[old])
        del self._names[old]

    def remove(self, name: str) -> None:
        container = self._names.pop(name)
        at = bisect_left(self._ids, container)
        if at < len(self._ids) and self._ids[at] == container:
            del self._ids[at]

    def find(self, ref: str) -> str:
        """Return the ID that a full ID, a name, or a unique prefix of an ID means.  Raises NotFound, InvalidRequest."""
        if not ref:
            raise InvalidRequest('invalid name or ID supplied: ""')
        at = bisect_left(self._ids, ref)
        if at < len(self._ids) and self._ids[at] == ref:
            return ref
        named = self._names.get(ref.removeprefix("/"))
        if named is not None:
            return named
        if at < len(self._ids) and self._ids[at].startswith(ref):
            if at + 1 < len(self._ids) and self._ids[at + 1].startswith(ref):
                raise InvalidRequest(f"multiple IDs found with provided prefix: {ref}")
            return self._ids[at]
        raise NotFound(f"No such container: {ref}")
