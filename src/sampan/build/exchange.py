"""Cached steps on their way to other daemons and back (`--cache-to`, `--cache-from`).

A cache is a manifest like an image's, whose configuration lists steps; an inline cache is in an image's own configuration:

    "rootfs": {"diff_ids": [...]}                             what the manifest's layers unpack to, in their order
    "sampan.buildcache.v0": [{"key", "text", "layer"}, ...]   layer: the diff id of what the step added

A build believes what it is told to import, and no other build does (SECURITY.md row 58): such a step's record says where it
came from.  What a layer unpacks to is checked; that it is the step's result nobody can check but by running it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from sampan.build.cache import StepRecord
from sampan.build.layering import rebase
from sampan.build.options import CacheTo
from sampan.content.images import ImageRecord, LayerRef
from sampan.engine.images import load
from sampan.engine.images.archive import spool
from sampan.engine.images.context import Stores
from sampan.engine.images.images import Images
from sampan.engine.images.layers import Wanted
from sampan.engine.images.plans import plans
from sampan.engine.images.streams import Watched
from sampan.errors import InvalidRequest, NotFound, SampanError
from sampan.files.digests import Readable
from sampan.oci import image as oci
from sampan.oci.digest import Digest, is_hex, of
from sampan.oci.image import RootFs
from sampan.oci.reference import parse

FIELD = "sampan.buildcache.v0"
CONFIG = "application/vnd.sampan.buildcache.config.v0+json"
KINDS = ("inline", "registry", "local")


def parse_cache_to(text: str) -> CacheTo:
    """Read `type=registry,ref=NAME,mode=max`, or a name.  Raises InvalidRequest."""
    fields = _fields(text)
    kind, reference, mode = fields.get("type", "registry"), fields.get("ref", ""), fields.get("mode", "min")
    if kind not in KINDS:
        raise InvalidRequest(f"unknown cache type {kind[:40]!r}: {', '.join(KINDS)}")
    if mode not in ("min", "max"):
        raise InvalidRequest(f"unknown cache mode {mode[:40]!r}: min or max")
    if kind == "registry" and not reference:
        raise InvalidRequest("cache-to of type registry needs ref=")
    return CacheTo(kind, reference, mode == "max", fields.get("ignore-error", "") in ("true", "1"))


def parse_cache_from(text: str) -> str:
    """Return the name in `type=registry,ref=NAME`, or the name itself.  Raises InvalidRequest."""
    fields = _fields(text)
    if fields.get("type", "registry") != "registry" or not fields.get("ref"):
        raise InvalidRequest(f"cache-from {text[:200]!r}: NAME or type=registry,ref=NAME is expected")
    return fields["ref"]


def _fields(text: str) -> dict[str, str]:
    if "=" not in text:
        return {"ref": text}
    return {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in text.split(","))}


# Going out


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step as others are told of it."""

    key: str
    text: str
    layer: str


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a configuration."""

    rootfs: RootFs
    steps: list[Step] = msgspec.field(name=FIELD, default_factory=list)


class WithSteps(oci.ImageConfig, frozen=True, kw_only=True):
    """An image's configuration with an inline cache."""

    steps: list[Step] = msgspec.field(name=FIELD, default_factory=list)


def chosen(done: Mapping[str, StepRecord], layers: Iterable[LayerRef], *, whole: bool) -> dict[str, StepRecord]:
    """Return the steps that go out: of all that were done, those whose layers an image consists of, or the whole."""
    kept = {layer.diff_id for layer in layers}
    return {key: one for key, one in done.items() if one.layers and (whole or one.layers[-1].diff_id in kept)}


def listed(steps: Mapping[str, StepRecord]) -> list[Step]:
    """Return steps as an inline cache lists them."""
    return [Step(key=key, text=one.text, layer=one.layers[-1].diff_id) for key, one in sorted(steps.items())]


def record_of(stores: Stores, steps: Mapping[str, StepRecord]) -> ImageRecord:
    """Store the configuration of a cache and return what stands for it; garbage as soon as the caller stops adding.  Blocks."""
    layers = {one.layers[-1].diff_id: one.layers[-1] for _, one in sorted(steps.items())}
    value = {"rootfs": {"type": "layers", "diff_ids": list(layers)}, FIELD: msgspec.to_builtins(listed(steps))}
    content = msgspec.json.encode(value, order="sorted")
    return ImageRecord(id=stores.blobs.put(content, of(content)), layers=tuple(layers.values()))


# Coming in


class Source(Protocol):
    """Where steps come from.  name: for people; steps: diff ids by key."""

    @property
    def name(self) -> str: ...
    @property
    def steps(self) -> Mapping[str, Digest]: ...

    async def layer(self, key: str, parent: Digest | None) -> LayerRef:
        """Bring a step's layer here, over `parent`; nothing collects it for now.  Raises SampanError."""
        ...


def _steps(content: bytes, subject: str, layers: int) -> tuple[dict[str, Digest], tuple[Digest, ...]]:
    """Return the steps of a configuration, and the diff ids of its manifest's layers.  Raises InvalidRequest."""
    document = oci.decode(content, Document, subject)
    diff_ids = oci.ImageConfig(architecture="", os="", rootfs=document.rootfs).diff_ids()
    if len(diff_ids) != layers:
        raise InvalidRequest(f"{subject} lists {len(diff_ids)} layers, its manifest {layers}")
    known = {str(one): one for one in diff_ids}
    for step in document.steps:
        if not is_hex(step.key, 64) or step.layer not in known:
            raise InvalidRequest(f"{subject}: step {step.key[:64]!r} is malformed")
    return {step.key: known[step.layer] for step in document.steps}, diff_ids


class FromRegistry:
    """A cache, or an image with an inline one, in a registry."""

    def __init__(self, images: Images, name: str, auth: str, found: tuple[oci.Manifest, bytes]) -> None:
        self._images, self.name, self._auth = images, name, auth
        manifest, config = found
        self.steps, diff_ids = _steps(config, f"cache {name[:200]}", len(manifest.layers))
        self._layers = dict(zip(diff_ids, manifest.layers, strict=True))

    async def layer(self, key: str, parent: Digest | None) -> LayerRef:
        diff_id = self.steps[key]
        descriptor = self._layers[diff_id]
        wanted = Wanted(descriptor, descriptor.checked(), diff_id, parent)
        return await self._images.layer(self.name, wanted, auth=self._auth)


@dataclass
class FromImage:
    """An image with an inline cache that is here."""

    stores: Stores
    name: str
    record: ImageRecord
    steps: Mapping[str, Digest] = field(init=False)

    def __post_init__(self) -> None:
        self.steps, _ = _steps(self.stores.blobs.read(self.record.id), f"image {self.name[:200]}", len(self.record.layers))

    async def layer(self, key: str, parent: Digest | None) -> LayerRef:
        layer = next(one for one in self.record.layers if one.diff_id == self.steps[key])
        return await asyncio.to_thread(rebase, self.stores, layer, parent, lambda made: _keep(self.stores, made))


class FromUpload:
    """A cache that the client sent: an OCI layout.  It is gone with `held`."""

    def __init__(self, stores: Stores, tar: Readable, check: Callable[[], None], held: ExitStack) -> None:
        self.name = "the client's cache"
        self._stores, self._check = stores, check
        found = plans(spool(stores.blobs, Watched(tar, check), held))
        if len(found) != 1:
            raise InvalidRequest(f"an archive with one cache is expected, this one has {len(found)}")
        plan = found[0]
        self.steps, diff_ids = _steps(plan.config.document(), "the client's cache", len(plan.layers))
        self._parts = dict(zip(diff_ids, plan.layers, strict=True))

    async def layer(self, key: str, parent: Digest | None) -> LayerRef:
        def work() -> LayerRef:
            diff_id = self.steps[key]
            with self._stores.catalogue.adding():
                layer = load.store_layer(self._stores, self._parts[diff_id], parent, diff_id, self._check)
                _keep(self._stores, layer)
            return layer

        return await asyncio.to_thread(work)


def _keep(stores: Stores, layer: LayerRef) -> None:
    stores.catalogue.keep_layer(layer, time.time_ns())


async def sources(images: Images, names: Iterable[str], auth: Mapping[str, str], warn: Callable[[str], None]) -> list[Source]:
    """Return the caches under the names, each an image that is here or in its registry; what cannot be had is warned of."""
    found: list[Source] = []
    for name in names:
        try:
            found.append(await _source(images, name, auth))
        except SampanError as error:
            warn(f"[Warning] cache-from {name[:200]}: {error}\n")
    return found


async def _source(images: Images, name: str, auth: Mapping[str, str]) -> Source:
    def here() -> FromImage | None:
        try:
            image, _ = images.catalogue.resolve(name)
        except NotFound:
            return None
        made = FromImage(images.stores, name, images.catalogue.get(image))
        return made if made.steps else None

    local = await asyncio.to_thread(here)
    if local is not None:
        return local
    given = auth.get(parse(name).domain, "")
    return FromRegistry(images, name, given, await images.config_of(name, auth=given))
