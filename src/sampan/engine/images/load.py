"""docker load: archives of `docker save` and OCI layouts, in any usual compression."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

from msgspec import structs

from sampan.content.images import ImageRecord, LayerRef
from sampan.engine.images import documents, referrers
from sampan.engine.images.ahead import Ahead
from sampan.engine.images.archive import Part, spool
from sampan.engine.images.context import Event, Stores
from sampan.engine.images.feed import bar
from sampan.engine.images.image import short
from sampan.engine.images.plans import Plan, plans
from sampan.engine.images.platforms import normal, require
from sampan.engine.images.streams import Reporter, Watched
from sampan.errors import InvalidRequest
from sampan.files.compression import Compression, detect, looked_at, open_decompressed
from sampan.files.digests import Readable
from sampan.files.tar_apply import Budget
from sampan.oci import image as oci
from sampan.oci.digest import Digest, chain_id
from sampan.oci.image import Platform
from sampan.oci.reference import Reference
from sampan.storage.driver import Layer
from sampan.wire.images import Progress, ProgressDetail

MEDIA_TYPES = {
    Compression.PLAIN: oci.OCI_LAYER,
    Compression.GZIP: f"{oci.OCI_LAYER}+gzip",
    Compression.ZSTD: f"{oci.OCI_LAYER}+zstd",
}
_STEP = 4 << 20  # bytes between two progress messages


def load(
    stores: Stores, tar: BinaryIO, reporter: Reporter[Progress | Event], *, quiet: bool, wanted: Sequence[Platform] = ()
) -> None:
    """Store every image of the archive, each whole or not at all, and report Docker's lines.

    wanted: the platforms that the images may be of, and that are taken of an index; empty for this machine's.

    Raises NotFound when an image is of another platform, InvalidRequest for an archive that is malformed, does not have the
    content of its names, or breaks a budget.
    """
    try:
        with stores.catalogue.adding(), ExitStack() as held:
            ahead = held.enter_context(Ahead(stores, reporter.check))
            files = spool(stores.blobs, Watched(tar, reporter.check), held, ahead.begin)
            attached = referrers.of_archive(files)
            for plan in plans(files, wanted[0].architecture if wanted else ""):
                _require(plan, wanted)
                _store(stores, plan, reporter, quiet, ahead)
                kept = [referrers.keep(stores.blobs, files, one) for one in attached.get(plan.config.digest, ())]
                manifest = stores.catalogue.get(plan.config.digest).manifest
                stores.catalogue.attach(plan.config.digest, [one for one in kept if referrers.goes_with(one, manifest)])
    except BaseException:
        stores.collect()
        raise


def _require(plan: Plan, wanted: Sequence[Platform]) -> None:
    if wanted:
        config = oci.decode(plan.config.document(), oci.ImageConfig, "image configuration")
        offered = normal(config.os or "linux", config.architecture, config.variant or "")
        require(offered, wanted, plan.tags[0].familiar if plan.tags else plan.config.digest)


class Hearer(Protocol):
    """Who is told how it goes, and says when nobody wants it any more; see streams.Reporter."""

    def report(self, item: Progress | Event, /) -> None: ...
    def check(self) -> None: ...


class _Silent:
    """Whoever wants the image and none of the words."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def report(self, item: Progress | Event) -> None:
        return


def store(stores: Stores, tar: Readable, check: Callable[[], None]) -> tuple[Digest, bool]:
    """Store the one image of an archive, without its names; return it, and whether it was here already.

    Blocks.  Raises as `load`, and when the archive does not hold exactly one image.
    """
    try:
        with stores.catalogue.adding(), ExitStack() as held:
            ahead = held.enter_context(Ahead(stores, check))
            found = plans(spool(stores.blobs, Watched(tar, check), held, ahead.begin))
            if len(found) != 1:
                raise InvalidRequest(f"an archive with one image is expected, this one has {len(found)}")
            known = stores.catalogue.find(found[0].config.digest) is not None
            _store(stores, replace(found[0], tags=()), _Silent(check), True, ahead)
            return found[0].config.digest, known
    except BaseException:
        stores.collect()
        raise


def store_layer(stores: Stores, part: Part, parent: Digest | None, diff_id: Digest, check: Callable[[], None]) -> LayerRef:
    """Keep one layer of an archive and unpack it over `parent`; the caller keeps garbage collection out.  Raises InvalidRequest."""
    with Ahead(stores, check) as ahead:
        return _store_layer(stores, Step(part, parent, diff_id, 0), _Silent(check), True, ahead)


def _store(stores: Stores, plan: Plan, reporter: Hearer, quiet: bool, ahead: Ahead) -> None:
    config = oci.decode(plan.config.document(), oci.ImageConfig, "image configuration")
    if config.os not in ("", "linux"):
        raise InvalidRequest(f"cannot load {config.os[:40]} image on linux")
    diff_ids = config.diff_ids()
    if len(diff_ids) != len(plan.layers):
        raise InvalidRequest(f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(plan.layers)}")
    image = plan.config.digest
    known = stores.catalogue.find(image)
    layers: list[LayerRef] = []
    for number, (part, diff_id) in enumerate(zip(plan.layers, diff_ids, strict=True)):
        step = Step(part, layers[-1].chain_id if layers else None, diff_id, number)
        layers.append(_store_layer(stores, step, reporter, quiet, ahead))
    plan.config.keep(stores.blobs)
    manifest = _keep_manifest(stores, plan, layers)
    if known is None or (manifest and known.manifest is None and known.layers == tuple(layers)):
        record = known or ImageRecord(id=image, layers=tuple(layers), added=time.time_ns())
        kind = plan.media_type if manifest else ""
        stores.catalogue.add(structs.replace(record, manifest=manifest, media_type=kind))
    name(stores, image, plan.tags, reporter)
    for reference in plan.tags:
        reporter.report(Progress(stream=f"Loaded image: {reference.familiar}\n"))
    if not plan.tags:
        reporter.report(Progress(stream=f"Loaded image ID: {image}\n"))
    reporter.report(stores.event("load", image))


def _keep_manifest(stores: Stores, plan: Plan, layers: Sequence[LayerRef]) -> Digest | None:
    """Keep the manifest that came with the image; None where there is none, or the layers are stored in another form."""
    if plan.manifest is None:
        return None
    value = oci.read_manifest(plan.manifest.document(), plan.media_type, "manifest")
    return plan.manifest.keep(stores.blobs) if documents.fits(value, layers) else None


def name(stores: Stores, image: Digest, tags: tuple[Reference, ...], reporter: Hearer) -> None:
    """Give the image its names and report which other image loses one."""
    for reference in tags:
        loser = stores.catalogue.tag(reference, image, time.time_ns())
        if loser is not None:
            text = f"The image {reference.familiar} already exists, renaming the old one with ID {loser} to empty string\n"
            reporter.report(Progress(stream=text))
        reporter.report(stores.event("tag", image, reference.familiar))


@dataclass(frozen=True)
class Step:
    """A layer to be stored: what it came as, the chain below, its identity, its place in the image."""

    part: Part
    parent: Digest | None
    diff_id: Digest
    number: int


def _store_layer(stores: Stores, step: Step, reporter: Hearer, quiet: bool, ahead: Ahead) -> LayerRef:
    """Keep the layer's blob and unpack it, unless it is here already."""
    part, parent, diff_id = step.part, step.parent, step.diff_id
    chain = chain_id(parent, diff_id)
    for record in stores.catalogue.all():
        for layer in record.layers:
            if layer.chain_id == chain and stores.layers.layer(chain) is not None and stores.blobs.has(layer.blob):
                return layer
    with part.open() as reader:
        kind = detect(reader.read(6))
    budget = Budget() if kind is Compression.PLAIN else Budget.for_compressed(part.size)
    watch = _Watch(reporter, short(diff_id), part.size, quiet)
    try:
        made = _from_ahead(stores, step, ahead)
        if made is None:
            with part.open() as stored:
                _, source = looked_at(Watched(stored, reporter.check, watch))
                made = stores.layers.apply(parent, source, diff_id, kind=kind, budget=budget)
        watch(part.size)
    except InvalidRequest as error:
        text = str(error).replace("invalid diffID:", f"invalid diffID for layer {step.number}:")
        raise InvalidRequest(text if "diffID" in text else f"layer {step.number}: {text}") from error
    blob, size = (part.keep(stores.blobs), part.size) if kind in MEDIA_TYPES else _plain(stores, part)
    return LayerRef(
        diff_id=diff_id, chain_id=made.chain_id, blob=blob, blob_size=size, size=made.size,
        media_type=MEDIA_TYPES.get(kind, oci.OCI_LAYER),
    )  # fmt: skip


def _from_ahead(stores: Stores, step: Step, ahead: Ahead) -> Layer | None:
    """Return the layer if it has been unpacked already, and is what it should be."""
    ready = ahead.take(step.part.ingest)
    if ready is None:
        return None
    with ready.held:
        return stores.layers.adopt(ready.staged, step.parent) if ready.staged.diff_id == step.diff_id else None


def _plain(stores: Stores, part: Part) -> tuple[Digest, int]:
    """Keep a layer that came in a compression which images do not have (xz, bzip2) as a plain tar."""
    with part.open() as stored, stores.blobs.ingest() as ingest:
        ingest.write_from(open_decompressed(stored)[1])
        return ingest.commit(), ingest.size


class _Watch:
    """Reports how far a layer is, every few MiB."""

    def __init__(self, reporter: Hearer, layer: str, total: int, quiet: bool) -> None:
        self._reporter, self._layer, self._total, self._quiet = reporter, layer, total, quiet
        self._next = 0

    def __call__(self, done: int) -> None:
        if self._quiet or done < self._next:
            return
        self._next = min(done + _STEP, max(self._total, done + 1))
        detail = ProgressDetail(current=done, total=self._total)
        drawn = bar(done, self._total)
        self._reporter.report(Progress(status="Loading layer", id=self._layer, progress_detail=detail, progress=drawn))
