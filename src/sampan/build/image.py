"""What a stage has become, and the image made of the last one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from sampan.build.cache import Cache, StepRecord
from sampan.build.exchange import WithSteps, listed
from sampan.build.steps import Step
from sampan.content.images import ImageRecord, LayerRef
from sampan.engine.images.context import Stores
from sampan.engine.images.image import rfc3339
from sampan.engine.images.import_ import encode_config
from sampan.oci.digest import Digest, of
from sampan.oci.image import History, ImageConfig, RootFs, Settings

COMMENT = "sampan.dockerfile"


@dataclass(frozen=True)
class Built:
    """A stage so far.  image: the image it still is exactly, "" once something changed; base: what it began with, for people."""

    layers: tuple[LayerRef, ...] = ()
    history: tuple[History, ...] = ()
    settings: Settings = field(default_factory=Settings)
    author: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    image: str = ""
    base: str = "scratch"
    architecture: str = "amd64"
    variant: str | None = None

    @property
    def chain(self) -> tuple[Digest, ...]:
        return tuple(layer.chain_id for layer in self.layers)

    @property
    def top(self) -> str:
        """The identity of all files so far."""
        return self.layers[-1].chain_id if self.layers else "scratch"


def history_of(step: Step, *, empty: bool) -> History:
    return History(created_by=step.created_by, comment=COMMENT, author=step.author, empty_layer=empty)


def assemble(built: Built, cache: Cache, epoch: int | None, inline: Mapping[str, StepRecord]) -> ImageConfig:
    """Return the image's configuration.  inline: the steps that it tells others of.  Blocks.

    A configuration that was built before, times aside, gets the times of then: building again what has not changed gives
    the same image.
    """
    steps = [msgspec.structs.replace(one, created=None) for one in built.history]
    config = WithSteps(
        author=built.author, architecture=built.architecture, os="linux", variant=built.variant, config=built.settings,
        rootfs=RootFs(diff_ids=[layer.diff_id for layer in built.layers]), history=steps,
        steps=listed(inline),
    )  # fmt: skip
    moment = epoch * 10**9 if epoch is not None else cache.created(encode_config(config), time.time_ns())
    created = rfc3339(moment)
    history = [one if one.created else msgspec.structs.replace(one, created=created) for one in built.history]
    return msgspec.structs.replace(config, created=created, history=history)


def store(stores: Stores, config: ImageConfig, layers: tuple[LayerRef, ...]) -> Digest:
    """Make the image known; durable when it returns.  The caller keeps garbage collection out."""
    document = encode_config(config)
    image = of(document)
    if stores.catalogue.find(image) is None:
        stores.blobs.put(document, image)
        stores.catalogue.add(ImageRecord(id=image, layers=layers, added=time.time_ns()))
    return image
