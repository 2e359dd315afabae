"""What happened, for whoever asks: a ring of the last 256 events, and bounded queues of those who listen."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from weakref import WeakSet

from msgspec import UNSET

from sampan.errors import InvalidRequest
from sampan.wire import system as s

KEPT = 256
QUEUE = 4096  # events that a slow listener may be behind before it is let go
Filters = Mapping[str, tuple[str, ...]]
_OBJECTS = ("container", "image", "network", "volume", "daemon", "plugin", "service", "node", "secret", "config")
_PREFIXED = ("health_status", "exec_create", "exec_start")


class Bus:
    """Emit and listen, in the event loop's thread only."""

    def __init__(self) -> None:
        self._ring: deque[s.EventMessage] = deque(maxlen=KEPT)
        # Each queue belongs to the stream that reads it, and goes with it, whether that was ever read or not.
        self._listeners: WeakSet[asyncio.Queue[s.EventMessage | None]] = WeakSet()

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def emit(self, kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        """Tell everybody."""
        now = time.time_ns()
        old = kind in ("container", "image")
        event = s.EventMessage(
            type=kind, action=action, actor=s.Actor(id=actor, attributes=dict(attributes)), time=now // 10**9,
            time_nano=now, status=action if old else UNSET, id=actor if old else UNSET,
            from_=attributes.get("image", UNSET) if kind == "container" else UNSET,
        )  # fmt: skip
        self._ring.append(event)
        for queue in list(self._listeners):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._listeners.discard(queue)
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)

    def stream(self, since: str, until: str, filters: Filters) -> AsyncIterator[s.EventMessage]:
        """Return past events from `since` on (if given), then new ones until `until`.  Raises InvalidRequest.

        It listens from this call on, not from its first item: who has been answered misses nothing.
        """
        begin, end = moment(since), moment(until)
        queue: asyncio.Queue[s.EventMessage | None] = asyncio.Queue(QUEUE)
        past = [event for event in self._ring if begin and event.time_nano >= begin] if begin or end else []
        if end and not begin:
            past = list(self._ring)
        self._listeners.add(queue)
        return _told(past, queue, end, filters)

    def close(self) -> None:
        """Let every listener end."""
        for queue in self._listeners:
            if not queue.full():
                queue.put_nowait(None)


async def _told(
    past: Iterable[s.EventMessage], queue: asyncio.Queue[s.EventMessage | None], end: int, filters: Filters
) -> AsyncIterator[s.EventMessage]:
    for event in past:
        if (not end or event.time_nano <= end) and matches(event, filters):
            yield event
    while True:
        left = None if not end else max(0.0, (end - time.time_ns()) / 1e9)
        if left is not None and left <= 0:
            return
        try:
            found = await asyncio.wait_for(queue.get(), left)
        except TimeoutError:
            return
        if found is None:
            return
        if matches(found, filters):
            yield found


def moment(text: str) -> int:
    """Return "seconds[.fraction]" as nanoseconds, 0 for none.  Raises InvalidRequest."""
    if not text:
        return 0
    found = re.fullmatch(r"([0-9]{1,12})(?:\.([0-9]{1,9})[0-9]{0,20})?", text, re.ASCII)
    if found is None:
        raise InvalidRequest(f"failed to parse value as time or duration: {text[:64]!r}")
    return int(found[1]) * 10**9 + int((found[2] or "").ljust(9, "0"))


def matches(event: s.EventMessage, filters: Filters) -> bool:
    """Return whether every filter key lets the event through (engine-api 1.8)."""
    attributes = event.actor.attributes
    for key, wanted in filters.items():
        if not wanted:
            continue
        if key == "event":
            ok = any(
                event.action.startswith(word) if any(p in word for p in _PREFIXED) else event.action == word for word in wanted
            )
        elif key == "type":
            ok = event.type in wanted
        elif key == "scope":
            ok = event.scope in wanted
        elif key == "label":
            ok = all(label_matches(attributes, word) for word in wanted)
        elif key == "image":
            names = [event.actor.id, attributes.get("name", "")] if event.type == "image" else [attributes.get("image", "")]
            ok = any(name == word or name.rpartition(":")[0] == word for name in names for word in wanted if name)
        elif key in _OBJECTS:
            names = [event.actor.id, attributes.get("name", "")]
            ok = event.type == key and any(name.startswith(word) for name in names for word in wanted)
        else:
            ok = True
        if not ok:
            return False
    return True


def label_matches(labels: Mapping[str, str], wanted: str) -> bool:
    """Return whether labels hold `key` or `key=value`."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
