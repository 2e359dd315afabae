"""sampan system df: what images, containers and volumes take of the disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType

from sampan.cli import units
from sampan.cli.table import show
from sampan.wire import usage as u
from sampan.wire import volumes as v
from sampan.wire.containers import ContainerSummary

if TYPE_CHECKING:
    from sampan.cli.main import Invocation

COLUMNS = [("Type", "TYPE"), ("TotalCount", "TOTAL"), ("Active", "ACTIVE"), ("Size", "SIZE"), ("Reclaimable", "RECLAIMABLE")]
IMAGES = [
    ("Repository", "REPOSITORY"), ("Tag", "TAG"), ("ID", "IMAGE ID"), ("CreatedSince", "CREATED"), ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"), ("UniqueSize", "UNIQUE SIZE"), ("Containers", "CONTAINERS"),
]  # fmt: skip
CONTAINERS = [
    ("ID", "CONTAINER ID"), ("Image", "IMAGE"), ("Command", "COMMAND"), ("LocalVolumes", "LOCAL VOLUMES"), ("Size", "SIZE"),
    ("RunningFor", "CREATED"), ("Status", "STATUS"), ("Names", "NAMES"),
]  # fmt: skip
VOLUMES = [("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")]
CACHE = [("ID", "CACHE ID"), ("Type", "CACHE TYPE"), ("Size", "SIZE"), ("Created", "CREATED"), ("Used", "LAST USED"),
         ("Usage", "USAGE"), ("Shared", "SHARED")]  # fmt: skip
ACTIVE = ("running", "paused", "restarting")


def run(call: Invocation) -> int:
    found = call.client.system.usage()
    if call.options.verbose:
        _verbose(found)
    else:
        show(rows(found), COLUMNS, call.options.format, "*formatter.diskUsageContext")
    return 0


def rows(found: u.DiskUsage) -> list[dict[str, Any]]:
    """The four lines, reckoned as docker's client does."""
    images = _list(found.images)
    layers = _number(found.layers_size)
    kept = sum(one.size - one.shared_size for one in images if one.containers > 0 and one.shared_size >= 0)
    containers = _list(found.containers)
    written = sum(_number(one.size_rw) for one in containers)
    idle = sum(_number(one.size_rw) for one in containers if one.state not in ACTIVE)
    volumes = [(one, one.usage_data) for one in _list(found.volumes) if isinstance(one.usage_data, v.UsageData)]
    held = sum(max(usage.size, 0) for _, usage in volumes)
    free = sum(max(usage.size, 0) for _, usage in volumes if usage.ref_count == 0)
    cache = _list(found.build_cache)
    own = [one for one in cache if not one.shared]
    return [
        _row("Images", len(images), sum(one.containers > 0 for one in images), layers, layers - kept),
        _row("Containers", len(containers), sum(one.state in ACTIVE for one in containers), written, idle),
        _row("Local Volumes", len(volumes), sum(usage.ref_count > 0 for _, usage in volumes), held, free),
        _row(
            "Build Cache",
            len(cache),
            sum(one.in_use for one in cache),
            sum(one.size for one in own),
            sum(one.size for one in own if not one.in_use),
        ),
    ]


def _row(kind: str, total: int, active: int, size: int, free: int) -> dict[str, Any]:
    share = f" ({free * 100 // size}%)" if size > 0 else ""
    return {
        "Type": kind, "TotalCount": str(total), "Active": str(active), "Size": units.size(size, 4),
        "Reclaimable": units.size(free, 4) + share,
    }  # fmt: skip


def _list(value: list[Any] | UnsetType) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: int | UnsetType) -> int:
    return 0 if value is UNSET else value


def _verbose(found: u.DiskUsage) -> None:
    from sampan.cli.ps import row as container_row
    from sampan.cli.volumes import row as volume_row

    now = time.time()
    print("Images space usage:\n")
    show([_image(one, now) for one in _list(found.images)], IMAGES)
    print("\nContainers space usage:\n")
    show([_container(container_row(one, now), one) for one in _list(found.containers)], CONTAINERS)
    print("\nLocal Volumes space usage:\n")
    volumes = [(one, volume_row(one)) for one in _list(found.volumes)]
    show([row for _, row in volumes], VOLUMES)
    cache = _list(found.build_cache)
    print(f"\nBuild cache usage: {units.size(sum(one.size for one in cache if not one.shared), 4)}\n")
    show([_cache(one, now) for one in cache], CACHE)


def _image(one: Any, now: float) -> dict[str, Any]:
    repository, tag = "<none>", "<none>"
    if one.repo_tags:
        repository, _, tag = one.repo_tags[0].rpartition(":")
    return {
        "Repository": repository, "Tag": tag, "ID": one.id.removeprefix("sha256:")[:12],
        "CreatedSince": units.ago(now - one.created) + " ago" if one.created > 0 else "N/A", "VirtualSize": units.size(one.size),
        "SharedSize": units.size(max(one.shared_size, 0), 4), "UniqueSize": units.size(one.size - max(one.shared_size, 0), 4),
        "Containers": str(max(one.containers, 0)),
    }  # fmt: skip


def _cache(one: u.CacheRecord, now: float) -> dict[str, Any]:
    def ago(moment: str | None) -> str:
        return units.ago(now - units.parse_time(moment) / 1e9) + " ago" if moment else ""

    return {
        "ID": one.id[:12], "Type": one.type, "Size": units.size(one.size), "Created": ago(one.created_at),
        "Used": ago(one.last_used_at),
        "Usage": str(one.usage_count), "Shared": str(one.shared).lower(),
    }  # fmt: skip


def _container(row: dict[str, Any], one: ContainerSummary) -> dict[str, Any]:
    return {**row, "Size": units.size(_number(one.size_rw))}
