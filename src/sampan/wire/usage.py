"""Disk usage (engine-api 4.17)."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from sampan.wire.containers import ContainerSummary
from sampan.wire.images import ImageSummary
from sampan.wire.shape import Shape
from sampan.wire.volumes import Volume


class DiskUsage(Shape, frozen=True, kw_only=True):
    """What was not asked for is absent.  layers_size: bytes of all layers, each counted once."""

    layers_size: int | UnsetType = UNSET
    images: list[ImageSummary] | UnsetType = UNSET
    containers: list[ContainerSummary] | UnsetType = UNSET
    volumes: list[Volume] | UnsetType = UNSET
    build_cache: list[dict[str, Any]] | UnsetType = UNSET
