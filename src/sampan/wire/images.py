"""Images (engine-api 4.14, 4.15) and the progress messages of load, import and pull (2.4)."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from sampan.wire.containers import ContainerConfig, GraphDriver
from sampan.wire.registry import OfDescriptor, OfPlatform
from sampan.wire.shape import Shape, Strings


class RootFs(Shape, frozen=True, kw_only=True):
    type: str = "layers"
    layers: Strings = None


class Metadata(Shape, frozen=True, kw_only=True):
    last_tag_time: str = "0001-01-01T00:00:00Z"


class ImageInspect(Shape, frozen=True, kw_only=True):
    id: str
    repo_tags: list[str] = []
    repo_digests: list[str] = []
    parent: str = ""
    comment: str = ""
    created: str | UnsetType = UNSET
    docker_version: str = ""
    author: str = ""
    config: ContainerConfig | None = None
    architecture: str = ""
    variant: str | UnsetType = UNSET
    os: str = "linux"
    os_version: str | UnsetType = field(name="OsVersion", default=UNSET)
    size: int = 0
    virtual_size: int | UnsetType = UNSET
    graph_driver: GraphDriver = GraphDriver()
    root_fs: RootFs = field(name="RootFS", default=RootFs())
    metadata: Metadata = Metadata()


class ContentSize(Shape, frozen=True, kw_only=True):
    total: int
    content: int


class UnpackedSize(Shape, frozen=True, kw_only=True):
    unpacked: int


class ImageData(Shape, frozen=True, kw_only=True):
    platform: OfPlatform
    containers: list[str] = []
    size: UnpackedSize


class ManifestSummary(Shape, frozen=True, kw_only=True):
    """ImageManifestSummary (engine-api 4.15), of an image's own manifest."""

    id: str = field(name="ID")
    descriptor: OfDescriptor
    available: bool = True
    size: ContentSize
    kind: str = "image"
    image_data: ImageData


class ImageSummary(Shape, frozen=True, kw_only=True):
    containers: int = -1
    created: int
    id: str
    labels: dict[str, str] | None = None
    parent_id: str = ""
    repo_digests: list[str] = []
    repo_tags: list[str] = []
    shared_size: int = -1
    size: int = 0
    virtual_size: int | UnsetType = UNSET
    manifests: list[ManifestSummary] | UnsetType = UNSET


class HistoryItem(Shape, frozen=True, kw_only=True):
    comment: str = ""
    created: int = 0
    created_by: str = ""
    id: str = "<missing>"
    size: int = 0
    tags: Strings = None


class Deleted(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """Either untagged or deleted."""

    untagged: str = ""
    deleted: str = ""


class PruneResult(Shape, frozen=True, kw_only=True):
    images_deleted: list[Deleted] | None = None
    space_reclaimed: int = 0


class ContextAnswer(Shape, frozen=True, kw_only=True):
    """What a build of a kept context has to bring."""

    token: str
    wanted: list[str]


class SessionBody(Shape, frozen=True, kw_only=True):
    """What a client lends to its builds."""

    agents: list[str]


class BuildPruned(Shape, frozen=True, kw_only=True):
    """BuildPruneResponse."""

    caches_deleted: Strings
    space_reclaimed: int


class ProgressDetail(Shape, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    current: int = 0
    total: int = 0


class ErrorDetail(Shape, frozen=True, kw_only=True, rename=None, omit_defaults=True):
    code: int = 0
    message: str = ""


class Progress(Shape, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One message of a stream; a failure after the head is `error` with `errorDetail`."""

    stream: str = ""
    status: str = ""
    id: str = ""
    progress: str = ""
    progress_detail: ProgressDetail | None = None
    error: str = ""
    error_detail: ErrorDetail | None = None
    aux: dict[str, Any] | None = None
