"""Prune: volumes that no container names.  Never those with options: what they name is somebody else's."""

from __future__ import annotations

from collections.abc import Mapping

from sampan.engine.volumes.listing import ANONYMOUS, selected, truth
from sampan.errors import SampanError
from sampan.storage.volumes import Volumes

Filters = Mapping[str, tuple[str, ...]]


def prune(volumes: Volumes, filters: Filters) -> tuple[list[str], int]:
    """Remove unused volumes, anonymous ones only unless `all`; return their names and the bytes freed.  Blocks."""
    everything = truth(filters, "all") is True
    rest = {key: values for key, values in filters.items() if key != "all"}
    gone, freed = [], 0
    for name, record in selected(volumes, {**rest, "dangling": ("true",)}).items():
        if record.options or not (everything or ANONYMOUS in (record.labels or {})):
            continue
        size = volumes.usage(name).size
        try:
            volumes.remove(name)
        except (SampanError, OSError):  # in use by now, or gone
            continue
        gone.append(name)
        freed += size
    return gone, freed
