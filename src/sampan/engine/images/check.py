"""sampan system check: every blob, layer and record is what it should be; with repair, what is not is fetched or dropped.

A layer is compared with what its blob unpacks to, file by file.  Nothing that a container uses is dropped or replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from io import BufferedReader

import msgspec

from sampan.content.images import ImageRecord, LayerRef
from sampan.content.partials import Partial, Partials
from sampan.engine.images.context import Stores
from sampan.engine.images.image import short
from sampan.engine.images.threads import finish
from sampan.engine.images.trees import differences
from sampan.errors import Conflict, InvalidRequest, NotFound, SampanError
from sampan.files.compression import looked_at
from sampan.oci.digest import Digest, algorithm, chain_ids, encoded
from sampan.oci.reference import parse
from sampan.registry.client import Client
from sampan.registry.credentials import ANONYMOUS
from sampan.registry.download import download
from sampan.storage.overlay import Overlay, Staged
from sampan.wire.system import Finding


@dataclass(frozen=True)
class Fault:
    """Something that is broken.  kind: "blob", "layer", "image" or "record"; id: a digest, a chain ID, a key."""

    kind: str
    id: str
    text: str


async def check(stores: Stores, client: Client, partials: Partials, *, repair: bool) -> list[Finding]:
    """Look at everything; return what was found, and with `repair` what was done about it."""
    with ExitStack() as held:
        await finish(lambda: held.enter_context(stores.catalogue.adding()))
        faults = await finish(lambda: list(_faults(stores)))
        found = [Finding(level="error", subject=f"{one.kind} {_short(one.id)}", text=one.text) for one in faults]
        if repair:
            mending = _Repair(stores, client, partials)
            found = [await mending.mend(fault) for fault in faults]
    if repair and faults:
        await finish(stores.collect)
    counts = await finish(
        lambda: (len(stores.catalogue.all()), sum(1 for _ in stores.blobs.digests()), len(stores.layers.layers()))
    )
    ok = Finding(level="ok", subject="images", text=f"{counts[0]} images, {counts[1]} blobs, {counts[2]} layers")
    return found if found else [ok]


def _short(name: str) -> str:
    return short(name) if name.startswith("sha256:") else name


def _faults(stores: Stores) -> Iterator[Fault]:
    """Yield what is broken; blobs first, since layers are judged by them."""
    for key, reason in stores.catalogue.broken():
        yield Fault("record", key, f"cannot be read: {reason}")
    bad = set()
    needed, _ = stores.catalogue.reachable()
    for digest in sorted(needed | set(stores.blobs.digests())):
        text = _blob_fault(stores, digest)
        if text:
            bad.add(digest)
            yield Fault("blob", digest, text)
    seen: set[Digest] = set()
    for record in stores.catalogue.all():
        text = _record_fault(stores, record, bad)
        if text:
            yield Fault("image", record.id, text)
        for layer in record.layers:
            if layer.chain_id not in seen:
                seen.add(layer.chain_id)
                text = _layer_fault(stores, layer, bad)
                if text:
                    yield Fault("layer", layer.chain_id, text)
    for reference in (*stores.catalogue.tags(), *stores.catalogue.repo_digests()):
        image = stores.catalogue.named(reference)
        if image is not None and stores.catalogue.find(image) is None:
            yield Fault("record", str(reference), f"names the image {short(image)}, which is not there")


def _blob_fault(stores: Stores, digest: Digest) -> str:
    try:
        with stores.blobs.open(digest) as reader:
            found = hashlib.file_digest(reader, algorithm(digest)).hexdigest()
    except SampanError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if found == encoded(digest) else f"has the content of {found[:12]}"


def _record_fault(stores: Stores, record: ImageRecord, bad: set[Digest]) -> str:
    """Return what is wrong with an image's record, its configuration being whole."""
    if record.id in bad:
        return ""
    try:
        diff_ids = stores.catalogue.config(record.id).diff_ids()
    except SampanError as error:
        return str(error)
    if diff_ids != tuple(layer.diff_id for layer in record.layers) or chain_ids(diff_ids) != record.chain_ids:
        return "its layers are not those of its configuration"
    return ""


def _layer_fault(stores: Stores, layer: LayerRef, bad: set[Digest]) -> str:
    folder = stores.layers.diff(layer.chain_id)
    if stores.layers.layer(layer.chain_id) is None or not folder.is_dir():
        return "is missing"
    if layer.blob in bad:
        return ""
    try:
        with stores.blobs.open(layer.blob) as stored, _staged(stores.layers, stored, layer) as staged:
            found = differences(folder, staged.place / "diff")
    except InvalidRequest as error:
        return f"its blob does not unpack: {error}"
    return "; ".join(found)


def _staged(layers: Overlay, stored: BufferedReader, layer: LayerRef) -> AbstractContextManager[Staged]:
    """Return the layer's blob unpacked once more, aside."""
    kind, source = looked_at(stored)
    return layers.stage(source, layer.diff_id, kind=kind)


class _Repair:
    """Mends one fault after the other."""

    def __init__(self, stores: Stores, client: Client, partials: Partials) -> None:
        self._stores = stores
        self._client = client
        self._partials = partials

    async def mend(self, fault: Fault) -> Finding:
        """Return what was done about it: a note, or an error when nothing could be."""
        done = ""
        try:
            if fault.kind == "blob":
                done = await self._blob(Digest(fault.id))
            elif fault.kind == "layer":
                done = await finish(lambda: self._layer(Digest(fault.id)))
            elif fault.kind == "image":
                done = await finish(lambda: self._drop([Digest(fault.id)]))
            elif "@" in fault.id or ":" in fault.id:
                done = await finish(lambda: self._untag(fault.id))
        except (SampanError, OSError) as error:
            done = ""
            fault = replace(fault, text=f"{fault.text}; not repaired: {error}")
        text = f"{fault.text}; {done}" if done else fault.text
        return Finding(level="note" if done else "error", subject=f"{fault.kind} {_short(fault.id)}", text=text)

    async def _blob(self, digest: Digest) -> str:
        """Fetch it from where it came, else do without, else drop the images that need it."""
        users = [record for record in await finish(self._stores.catalogue.all) if digest in set(record.blobs())]
        if not users:
            if await finish(lambda: self._stores.catalogue.detach(digest)):
                return "the document attached to an image was dropped"
            await finish(lambda: self._stores.blobs.delete(digest))
            return "deleted, nothing needs it"
        size = next((layer.blob_size for record in users for layer in record.layers if layer.blob == digest), 0)
        sources = self._stores.catalogue.sources.get(digest)
        for name in reversed(sources.repositories if sources is not None and size else ()):
            with suppress(SampanError):
                await self._fetch(digest, size, name)
                return f"fetched again from {name}"
        if all(record.manifest == digest for record in users):
            await finish(lambda: self._without_manifest(users))
            return "the manifest was dropped; a push makes a new one"
        return await finish(lambda: self._drop([record.id for record in users]))

    async def _fetch(self, digest: Digest, size: int, name: str) -> None:
        reference = parse(name)
        async with self._client.repository(reference, ANONYMOUS) as repository:
            partial = await finish(lambda: self._partials.open(digest, size, reference.domain))
            with partial:
                await download(repository, digest, size, _Sink(partial))
                await finish(partial.commit)

    def _without_manifest(self, users: list[ImageRecord]) -> None:
        for record in users:
            self._stores.catalogue.add(msgspec.structs.replace(record, manifest=None, media_type=""))

    def _layer(self, chain: Digest) -> str:
        """Unpack it again from its blob, unless a container uses it."""
        users = [record for record in self._stores.catalogue.all() if chain in record.chain_ids]
        layer = next(layer for layer in users[0].layers if layer.chain_id == chain)
        parent = users[0].chain_ids[users[0].chain_ids.index(chain) - 1] if users[0].chain_ids[0] != chain else None
        try:
            with self._stores.blobs.open(layer.blob) as stored:
                return self._unpack(stored, layer, parent)
        except (InvalidRequest, NotFound) as error:  # there is nothing to unpack it from
            return f"{self._drop([record.id for record in users])} ({error})"

    def _unpack(self, stored: BufferedReader, layer: LayerRef, parent: Digest | None) -> str:
        layers = self._stores.layers
        with _staged(layers, stored, layer) as staged:
            if any(layer.chain_id in chain for chain in layers.snapshots().values()):
                raise Conflict("a container uses it; remove the container first")
            layers.remove_layer(layer.chain_id)
            layers.adopt(staged, parent)
        return "unpacked again from its blob"

    def _drop(self, images: list[Digest]) -> str:
        for image in images:
            users = self._stores.in_use(image)
            if users:
                raise Conflict(f"image {short(image)} is used by container {short(users[0][0])}; remove it first")
        for image in images:
            self._stores.catalogue.forget(image)
        return f"dropped: {', '.join(short(image) for image in images)}"

    def _untag(self, name: str) -> str:
        return "the name was dropped" if self._stores.catalogue.untag(parse(name)) else ""


class _Sink:
    """A partial, as the downloader fills it."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial

    @property
    def size(self) -> int:
        return self._partial.size

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self._partial.write, data)
