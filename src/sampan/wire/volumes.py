"""Volumes (engine-api 4.16)."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from sampan.wire.shape import Shape, StringMap


class UsageData(Shape, frozen=True, kw_only=True):
    """-1 is unknown."""

    size: int = -1
    ref_count: int = -1


class Volume(Shape, frozen=True, kw_only=True):
    """created_at is RFC 3339 in seconds; usage_data is measured for `system df` only."""

    created_at: str | UnsetType = UNSET
    driver: str = "local"
    labels: StringMap = None
    mountpoint: str = ""
    name: str
    options: StringMap = None
    scope: str = "local"
    usage_data: UsageData | UnsetType | None = UNSET


class CreateBody(Shape, frozen=True, kw_only=True):
    """The body of POST /volumes/create; without a name the volume is anonymous."""

    name: str = ""
    driver: str = ""
    driver_opts: StringMap = None
    labels: StringMap = None
    cluster_volume_spec: dict[str, object] | None = field(name="ClusterVolumeSpec", default=None)


class VolumeList(Shape, frozen=True, kw_only=True):
    volumes: list[Volume] = []
    warnings: list[str] | None = None


class PruneResult(Shape, frozen=True, kw_only=True):
    volumes_deleted: list[str] | None = None
    space_reclaimed: int = 0
