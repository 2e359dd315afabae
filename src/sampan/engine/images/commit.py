"""An image made of another and one more layer: what `docker commit` keeps."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from msgspec import structs

from sampan.content.blobs import Ingest
from sampan.content.images import ImageRecord, LayerRef
from sampan.engine.images.context import Event, Stores
from sampan.engine.images.image import rfc3339
from sampan.engine.images.import_ import encode_config
from sampan.errors import Conflict, NotFound
from sampan.files.tar_apply import Budget
from sampan.files.tar_header import END
from sampan.oci import image as oci
from sampan.oci.digest import Digest
from sampan.oci.reference import Reference

_LIMIT = Budget(max_bytes=1 << 60, max_entries=1 << 40)  # it is on this disk already


@dataclass(frozen=True)
class Wanted:
    """What the image is to be.  parent: the image below; created_by: the command that made the layer; tag: its name, if any."""

    parent: Digest
    settings: oci.Settings
    created_by: str = ""
    author: str = ""
    comment: str = ""
    tag: Reference | None = None


class Draft:
    """A layer's tar, written down while the container stood still; a context manager, nothing stays unless `finish` was called."""

    def __init__(self, stores: Stores, parent: Digest) -> None:
        self._stores = stores
        self._held = ExitStack()
        self._held.enter_context(stores.catalogue.adding())
        try:
            self._record = stores.catalogue.get(parent)
            self._config = stores.catalogue.config(parent)
            self._ingest: Ingest = self._held.enter_context(stores.blobs.ingest())
        except NotFound:
            self._held.close()
            raise Conflict(f"the image {parent} that the container was made from is not here any more") from None
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def write(self, blocks: Iterable[bytes]) -> None:
        """Keep the layer's tar.  Blocks."""
        for block in blocks:
            self._ingest.write(block)

    def finish(self, wanted: Wanted) -> tuple[Digest, list[Event]]:
        """Make the layer and the image; return its ID and what is to be told.  Blocks; durable when it returns."""
        stores = self._stores
        try:
            layer = self._layer()
            image = stores.blobs.put(encode_config(self._configuration(wanted, layer)))
            layers = (*self._record.layers, *([layer] if layer is not None else []))
            stores.catalogue.add(ImageRecord(id=image, layers=layers, parent=wanted.parent, added=time.time_ns()))
            events = []
            if wanted.tag is not None:
                stores.catalogue.tag(wanted.tag, image, time.time_ns())
                events.append(stores.event("tag", image, wanted.tag.familiar))
            return image, events
        except BaseException:
            self._held.close()
            stores.collect()
            raise

    def _layer(self) -> LayerRef | None:
        """Unpack the layer on its parent; None when it is empty."""
        if self._ingest.size <= len(END):
            return None
        chain = self._record.chain_ids
        with self._ingest.open() as reader:
            made = self._stores.layers.apply(chain[-1] if chain else None, reader, budget=_LIMIT)
        size = self._ingest.size
        blob = self._ingest.commit(made.diff_id)
        return LayerRef(
            diff_id=made.diff_id, chain_id=made.chain_id, blob=blob, blob_size=size, media_type=oci.OCI_LAYER, size=made.size
        )

    def _configuration(self, wanted: Wanted, layer: LayerRef | None) -> oci.ImageConfig:
        created = rfc3339(time.time_ns())
        step = oci.History(
            created=created, created_by=wanted.created_by, author=wanted.author, comment=wanted.comment, empty_layer=layer is None
        )
        diff_ids = [*self._config.rootfs.diff_ids, *([layer.diff_id] if layer is not None else [])]
        return structs.replace(
            self._config, created=created, author=wanted.author, config=wanted.settings,
            rootfs=oci.RootFs(diff_ids=diff_ids), history=[*(self._config.history or ()), step],
        )  # fmt: skip
