"""What earlier steps of this data root's own builds have left, by what went into them (SECURITY.md row 58).

A step's key is the digest of its named inputs.  A pulled or loaded image can imitate a history, but never a record here.
The last inputs at each place of each build are kept too, so that a miss can be explained.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sampan.content.images import LayerRef
from sampan.oci.digest import Digest
from sampan.state import State, Table

KEPT_PLACES = 2000
MAX_NAMED = 2000  # inputs of one step that are kept one by one


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A step that was done.

    layers: the chain after it, base first; added, used: nanoseconds; made: whether it added a layer; imported: the cache of
    another daemon's that it came from, and then only builds that name one with it may use it.
    """

    text: str
    layers: tuple[LayerRef, ...]
    made: bool
    added: int
    used: int
    uses: int = 0
    imported: str = ""

    @property
    def size(self) -> int:
        """The bytes of the step's own layer."""
        return self.layers[-1].size if self.made else 0


class PlaceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The last inputs of the step that stood at one place of a build; values are digests."""

    inputs: dict[str, str]
    seen: int


class TimeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """When a configuration was first built, so that a build that changes nothing gives the same image."""

    created: int


def short_digest(text: str | bytes) -> str:
    """Return the digest of a value, so that arguments are compared without being kept."""
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:32]


def key_of(inputs: Mapping[str, str]) -> str:
    """Return the digest of named inputs."""
    hashing = hashlib.sha256()
    for name, value in sorted(inputs.items()):
        pair = (name.encode(errors="surrogateescape"), value.encode(errors="surrogateescape"))
        hashing.update(b"%d:%s%d:%s" % (len(pair[0]), pair[0], len(pair[1]), pair[1]))
    return hashing.hexdigest()


class Cache:
    """The steps of one data root.  Thread-safe; durable when a method returns."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._steps = Table(state, "build-step", StepRecord)
        self._places = Table(state, "build-place", PlaceRecord)
        self._times = Table(state, "build-time", TimeRecord)
        self._mutex = threading.Lock()
        self._in_use: dict[str, int] = {}

    def find(self, key: str, *, imported: bool = False) -> StepRecord | None:
        """Return the step with this key, or None.  imported: it may also be one that came from elsewhere."""
        found = self._steps.get(key)
        return found if found is None or imported or not found.imported else None

    def put(self, key: str, record: StepRecord) -> None:
        self._steps.put(key, record)

    def used(self, keys: Iterable[str]) -> None:
        """Note that steps were used, for prune by age."""
        now = time.time_ns()
        with self._state.batch():
            for key in keys:
                record = self._steps.get(key)
                if record is not None:
                    self._steps.put(key, msgspec.structs.replace(record, used=now, uses=record.uses + 1))

    def hold(self, key: str) -> None:
        """Keep a step from being pruned while a build relies on it."""
        with self._mutex:
            self._in_use[key] = self._in_use.get(key, 0) + 1

    def let_go(self, keys: Iterable[str]) -> None:
        with self._mutex:
            for key in keys:
                self._in_use[key] -= 1
                if not self._in_use[key]:
                    del self._in_use[key]

    def all(self) -> list[tuple[str, StepRecord]]:
        return list(self._steps.items())

    def in_use(self, key: str) -> bool:
        return key in self._in_use

    def forget(self, key: str) -> None:
        self._steps.delete(key)

    def held(self) -> Iterator[LayerRef]:
        """Yield every layer that a step needs: for garbage collection."""
        for _, record in self._steps.items():
            yield from record.layers

    # Explaining

    def explain(self, place: str, inputs: Mapping[str, str]) -> list[str]:
        """Return which inputs differ from those of the step that stood at the place last."""
        before = self._places.get(place)
        if before is None:
            return ["it was never built here"]
        names = sorted(set(before.inputs) | set(inputs))
        found = [f"{name} {_change(before.inputs.get(name), inputs.get(name))}" for name in names]
        changed = [text for text in found if not text.endswith(" same")]
        return changed or ["its result is not in the cache any more"]

    def remember(self, places: Mapping[str, Mapping[str, str]]) -> None:
        """Keep the inputs of steps for the next `explain`; the oldest places are forgotten."""
        now = time.time_ns()
        with self._state.batch():
            for place, inputs in places.items():
                self._places.put(place, PlaceRecord(inputs=dict(inputs), seen=now))
            known = sorted(self._places.items(), key=lambda item: item[1].seen)
            for place, _ in known[: max(0, len(known) - KEPT_PLACES)]:
                self._places.delete(place)

    # Times

    def created(self, configuration: bytes, now: int) -> int:
        """Return when exactly this configuration was first built: now, if it was not yet."""
        key = hashlib.sha256(configuration).hexdigest()
        known = self._times.get(key)
        if known is None:
            self._times.put(key, TimeRecord(created=now))
        return known.created if known is not None else now

    def forget_times(self) -> None:
        for key, _ in list(self._times.items()):
            self._times.delete(key)
        for key, _ in list(self._places.items()):
            self._places.delete(key)


def _change(before: str | None, after: str | None) -> str:
    if before == after:
        return "same"
    return "is new" if before is None else "is gone" if after is None else "changed"


def bounded(inputs: dict[str, str]) -> dict[str, str]:
    """Return inputs fit to be kept: of many files only their folders, with the digest of what is in them."""
    if len(inputs) <= MAX_NAMED:
        return inputs
    grouped: dict[str, list[str]] = {}
    for name, value in sorted(inputs.items()):
        grouped.setdefault("/".join(name.split("/")[:2][: max(1, name.count("/"))]), []).append(f"{name}={value}")
    if len(grouped) > MAX_NAMED:
        grouped = {"files": [line for lines in grouped.values() for line in lines]}
    return {name: short_digest("\n".join(lines)) for name, lines in grouped.items()}


__all__ = ["Cache", "Digest", "StepRecord", "bounded", "key_of", "short_digest"]
