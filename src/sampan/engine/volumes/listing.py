"""Which volumes a list or a prune means (engine-api 1.8)."""

from __future__ import annotations

from collections.abc import Mapping

from sampan.engine.events import label_matches
from sampan.engine.patterns import Patterns
from sampan.storage.volumes import VolumeRecord, Volumes

Filters = Mapping[str, tuple[str, ...]]
ANONYMOUS = "com.docker.volume.anonymous"


def truth(filters: Filters, key: str) -> bool | None:
    """Return a checked boolean filter's value, None when it is not given."""
    values = filters.get(key)
    return values[0].lower() in ("true", "1") if values else None


def selected(volumes: Volumes, filters: Filters) -> dict[str, VolumeRecord]:
    """Return the volumes that pass `name`, `driver`, `label`, `label!` and `dangling`, by name."""
    dangling = truth(filters, "dangling")
    names = Patterns(filters.get("name", ()))
    found = {}
    for name, record in volumes.all().items():
        labels = record.labels or {}
        if (
            ("name" in filters and not names.match(name))
            or ("driver" in filters and "local" not in filters["driver"])
            or not all(label_matches(labels, value) for value in filters.get("label", ()))
            or any(label_matches(labels, value) for value in filters.get("label!", ()))
            or (dangling is not None and dangling == bool(volumes.users(name)))
        ):
            continue
        found[name] = record
    return found
