"""Disk usage (engine-api 4.17)."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from sampan.wire.containers import ContainerSummary
from sampan.wire.images import ImageSummary
from sampan.wire.shape import Shape
from sampan.wire.volumes import Volume


class CacheRecord(Shape, frozen=True, kw_only=True):
    """A step that the builder keeps."""

    id: str = field(name="ID")
    type: str
    description: str = ""
    in_use: bool = False
    shared: bool = False
    size: int = 0
    created_at: str = ""
    last_used_at: str | None = None
    usage_count: int = 0


class DiskUsage(Shape, frozen=True, kw_only=True):
    """What was not asked for is absent.  layers_size: bytes of all layers, each counted once."""

    layers_size: int | UnsetType = UNSET
    images: list[ImageSummary] | UnsetType = UNSET
    containers: list[ContainerSummary] | UnsetType = UNSET
    volumes: list[Volume] | UnsetType = UNSET
    build_cache: list[CacheRecord] | UnsetType = UNSET
