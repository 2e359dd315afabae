"""Prune: volumes that no container names.  Never those with options: what they name is somebody else's."""

from __future__ import annotations

from collections.abc import Mapping

from sampan.engine.volumes.listing import ANONYMOUS, selected, truth
from sampan.errors import Conflict, SampanError
from sampan.storage.volumes import Volumes

Filters = Mapping[str, tuple[str, ...]]


def prune(volumes: Volumes, filters: Filters) -> tuple[list[str], int]:
    """Remove unused volumes, anonymous ones only unless `all`; return their names and the bytes freed.  Blocks.

    Raises Conflict when a container's record cannot be read: its volumes would go too (SECURITY.md row 96).
    """
    if volumes.unknown:
        one = sorted(volumes.unknown)[0][:12]
        raise Conflict(f"the record of container {one} cannot be read: which volumes it uses is not known, so none is pruned")
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
