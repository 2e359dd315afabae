"""Inspecting one image, and its history."""

from __future__ import annotations

from msgspec import UNSET

from sampan.engine.images.context import Stores
from sampan.engine.images.image import container_config, nanoseconds, rfc3339
from sampan.wire.containers import GraphDriver
from sampan.wire.images import HistoryItem, ImageInspect, Metadata, RootFs
from sampan.wire.shape import NEVER


def inspect(stores: Stores, ref: str) -> ImageInspect:
    """Return everything known of the image.  Raises NotFound."""
    image, _ = stores.catalogue.resolve(ref)
    record, config = stores.catalogue.get(image), stores.catalogue.config(image)
    tagged = stores.catalogue.last_tagged(image)
    return ImageInspect(
        id=image,
        repo_tags=[reference.familiar for reference in stores.catalogue.tags(image)],
        repo_digests=[reference.familiar for reference in stores.catalogue.repo_digests(image)],
        parent=record.parent,
        comment=config.history[-1].comment if config.history else "",
        created=config.created or UNSET,
        author=config.author,
        config=container_config(config.config),
        architecture=config.architecture,
        variant=config.variant or UNSET,
        os=config.os,
        os_version=config.os_version or UNSET,
        size=record.size,
        virtual_size=record.size,
        graph_driver=GraphDriver(name=stores.layers.name, data=stores.layers.graph(chain=record.chain_ids)),
        root_fs=RootFs(layers=[layer.diff_id for layer in record.layers]),
        metadata=Metadata(last_tag_time=rfc3339(tagged) if tagged else NEVER),
    )


def history(stores: Stores, ref: str) -> list[HistoryItem]:
    """Return the steps that made the image, newest first; sizes are those of the layers they added.  Raises NotFound."""
    image, _ = stores.catalogue.resolve(ref)
    record, config = stores.catalogue.get(image), stores.catalogue.config(image)
    layers = iter(record.layers)
    items: list[HistoryItem] = []
    for step in config.history or ():
        layer = None if step.empty_layer else next(layers, None)
        items.append(
            HistoryItem(
                comment=step.comment,
                created=nanoseconds(step.created) // 10**9,
                created_by=step.created_by,
                size=layer.size if layer is not None else 0,
            )
        )
    if items:
        last = items.pop()
        tags = [reference.familiar for reference in stores.catalogue.tags(image)]
        items.append(
            HistoryItem(
                comment=last.comment, created=last.created, created_by=last.created_by, id=image, size=last.size,
                tags=tags or None,
            )
        )  # fmt: skip
    return items[::-1]
