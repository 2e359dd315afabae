"""docker import: an image of one layer from the tar of a root file system."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import msgspec

from sampan.content.images import ImageRecord, LayerRef, Referrer
from sampan.engine.images.changes import apply_changes
from sampan.engine.images.context import Event, Stores
from sampan.engine.images.image import rfc3339
from sampan.engine.images.load import name
from sampan.engine.images.plans import MACHINES, host_architecture
from sampan.engine.images.streams import Reporter, Watched
from sampan.errors import InvalidRequest, Unavailable
from sampan.files.compression import Compression, open_decompressed
from sampan.files.digests import Readable
from sampan.files.tar_apply import Budget
from sampan.oci import image as oci
from sampan.oci.digest import Digest
from sampan.oci.reference import with_tag
from sampan.registry import plain
from sampan.wire.images import Progress

_PART = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@dataclass(frozen=True)
class Wanted:
    """What the image is to be: names, comment, instructions, platform ("linux/arm64"); created: nanoseconds, None for now."""

    repo: str = ""
    tag: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""
    created: int | None = None
    created_by: str = ""
    source: str = "-"


Attach = Callable[[ImageRecord], Iterable[Referrer]]


def import_(
    stores: Stores, tar: Readable, reporter: Reporter[Progress | Event], wanted: Wanted, attach: Attach = lambda _: ()
) -> None:
    """Store the image and report its ID as the last status.  Raises InvalidRequest; then nothing stays.

    attach: asked for what is attached to the image, whose blobs and layer are stored.
    """
    tags = (with_tag(wanted.repo, wanted.tag),) if wanted.repo else ()
    settings = apply_changes(oci.Settings(), wanted.changes)
    architecture, variant = _platform(wanted.platform)
    try:
        with stores.catalogue.adding(), ExitStack() as held:
            layer = _layer(stores, Watched(tar, reporter.check), held)
            created = rfc3339(time.time_ns() if wanted.created is None else wanted.created)
            step = oci.History(
                created=created, created_by=wanted.created_by, comment=wanted.message or f"Imported from {wanted.source}"
            )
            config = oci.ImageConfig(
                created=created, architecture=architecture, os="linux", variant=variant, config=settings,
                rootfs=oci.RootFs(diff_ids=[layer.diff_id]), history=[step],
            )  # fmt: skip
            image = stores.blobs.put(encode_config(config))
            record = ImageRecord(id=image, layers=(layer,), added=time.time_ns())
            stores.catalogue.add(record, attach(record))
            name(stores, image, tags, reporter)
    except BaseException:
        stores.collect()
        raise
    reporter.report(stores.event("import", image))
    reporter.report(Progress(status=image))


def import_from(stores: Stores, reporter: Reporter[Progress | Event], wanted: Wanted) -> None:
    """Do so with what the address `wanted.source` gives.  Raises InvalidRequest, Unavailable when it does not give it."""
    source = wanted.source if "://" in wanted.source else f"http://{wanted.source}"
    plain.checked(source)
    reporter.report(Progress(status=f"Downloading from {source}"))
    try:
        with plain.opened(source) as reply:
            import_(stores, reply, reporter, replace(wanted, source=source))
    except OSError as error:
        if error.errno is not None and error.filename is not None:
            raise  # of this side's files
        raise Unavailable(f"cannot import from {source[:200]}: {error}") from None


def encode_config(config: oci.ImageConfig) -> bytes:
    """Return the document; `rootfs.type` is always written, the same image gives the same bytes."""
    value = msgspec.to_builtins(config)
    value["rootfs"] = {"type": "layers", "diff_ids": config.rootfs.diff_ids}
    return msgspec.json.encode(value, order="sorted")


def _layer(stores: Stores, tar: Readable, held: ExitStack) -> LayerRef:
    """Keep the plain tar and unpack it."""
    kind, unpacked = open_decompressed(tar)
    ingest = held.enter_context(stores.blobs.ingest(limit=Budget().max_bytes * 2))
    ingest.write_from(unpacked)
    if not ingest.size:
        raise InvalidRequest("archive is empty")
    seen = getattr(tar, "total", ingest.size)
    budget = Budget() if kind is Compression.PLAIN else Budget.for_compressed(seen)
    with ingest.open() as reader:
        made = stores.layers.apply(None, reader, budget=budget)
    blob = ingest.commit(made.diff_id)
    return LayerRef(
        diff_id=made.diff_id, chain_id=made.chain_id, blob=blob, blob_size=ingest.size, media_type=oci.OCI_LAYER, size=made.size
    )


def _platform(text: str) -> tuple[str, str | None]:
    """Return (architecture, variant) of `os/arch[/variant]` or `arch`; this machine's for nothing."""
    parts = [part for part in text.lower().split("/") if part]
    if (len(parts) > 1 or parts == ["linux"]) and parts.pop(0) != "linux":
        raise InvalidRequest(f"cannot import {text[:40]!r}: operating system is not supported")
    if len(parts) > 2 or any(not _PART.issuperset(part) for part in parts):
        raise InvalidRequest(f"{text[:80]!r} is an invalid platform")
    if not parts:
        return host_architecture(), None
    return MACHINES.get(parts[0], parts[0]), parts[1] if len(parts) > 1 else None


__all__ = ["Digest", "Wanted", "encode_config", "import_", "import_from"]
