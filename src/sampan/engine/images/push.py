"""docker push: every layer that the registry lacks, side by side, then the manifest under the tag.

What was pulled goes back byte for byte, under the same digest.  Layers that are stored plain are compressed on the way
(the same input gives the same bytes), and how they came out is remembered, so that the next push only asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import BufferedReader

from sampan.content.images import ImageRecord, LayerRef, Packed
from sampan.engine.images import documents, referrers
from sampan.engine.images.context import Event, Stores
from sampan.engine.images.feed import Feed, fed
from sampan.engine.images.packing import Packing
from sampan.engine.images.threads import finish
from sampan.engine.images.words import push_explained
from sampan.errors import InvalidRequest, NotFound, SampanError
from sampan.oci import image as oci
from sampan.oci.digest import Digest, encoded, of
from sampan.oci.reference import Reference, parse, with_tag
from sampan.registry.client import Client
from sampan.registry.credentials import Credentials
from sampan.registry.repository import Document, Repository
from sampan.registry.upload import CHUNK, Blob, Uploads
from sampan.wire.images import Progress

PARALLEL = 5  # uploads of one push at a time
AT_ONCE = 16
GZIP = f"{oci.DOCKER_LAYER}.gzip"


@dataclass(frozen=True)
class Sent:
    """A layer as the registry has it."""

    digest: Digest
    size: int
    media_type: str


def requested(image: str, tag: str) -> Reference:
    """Read the parameters of an API request.  Raises InvalidRequest."""
    reference = parse(image)
    if reference.digest is not None:
        raise InvalidRequest("cannot push a digest reference")
    return with_tag(image, tag) if tag else reference


class Pushes:
    """Pushes from the stores to registries."""

    def __init__(self, stores: Stores, client: Client) -> None:
        self._stores = stores
        self._client = client
        self._gate = asyncio.Semaphore(AT_ONCE)

    def run(self, reference: Reference, credentials: Credentials) -> AsyncGenerator[Progress | Event, None]:
        """Push a name, or every tag of a repository when it has none; yield Docker's messages."""
        return fed(lambda feed: self._all(reference, credentials, feed), self._gate)

    async def _all(self, reference: Reference, credentials: Credentials, feed: Feed) -> None:
        feed.say(f"The push refers to repository [{reference.name}]")
        tags = [reference] if reference.tag else await asyncio.to_thread(self._tags, reference)
        if not tags:
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
        for tag in tags:
            image = await asyncio.to_thread(self._stores.catalogue.named, tag)
            if image is None:
                raise NotFound(f"tag does not exist: {tag.familiar}")
            with push_explained(), ExitStack() as held:
                await finish(lambda: held.enter_context(self._stores.catalogue.adding()))
                record = await asyncio.to_thread(self._stores.catalogue.get, image)
                async with self._client.uploads(tag, credentials) as (repository, uploads):
                    await _Push(self._stores, repository, uploads, tag, feed).run(record)

    def artifact(
        self, reference: Reference, credentials: Credentials, make: Callable[[], ImageRecord], kind: str
    ) -> AsyncGenerator[Progress | Event, None]:
        """Push what `make` stores under a tag, with a configuration of type `kind`: something made of layers that is no image."""

        async def work(feed: Feed) -> None:
            with push_explained(), ExitStack() as held:
                await finish(lambda: held.enter_context(self._stores.catalogue.adding()))
                record = await finish(make)
                async with self._client.uploads(reference, credentials) as (repository, uploads):
                    await _Push(self._stores, repository, uploads, reference, feed).run(record, kind)

        return fed(work, self._gate)

    def _tags(self, reference: Reference) -> list[Reference]:
        return [tag for tag in self._stores.catalogue.tags() if tag.name == reference.name]


class _Push:
    """One tag being pushed."""

    def __init__(self, stores: Stores, repository: Repository, uploads: Uploads, reference: Reference, feed: Feed) -> None:
        self._stores = stores
        self._repository = repository
        self._uploads = uploads
        self._reference = reference
        self._feed = feed
        self._slots = asyncio.Semaphore(PARALLEL)

    async def run(self, record: ImageRecord, kind: str = "") -> None:
        """kind: the type of its configuration, "" for an image."""
        unique = {layer.blob: layer for layer in record.layers}
        shown = {layer.blob: encoded(layer.diff_id)[:12] for layer in record.layers}
        for layer in reversed(unique.values()):
            self._feed.step(shown[layer.blob], "Preparing")
        async with asyncio.TaskGroup() as group:
            tasks = {blob: group.create_task(self._layer(layer, shown[blob])) for blob, layer in unique.items()}
            config = group.create_task(self._config(record.id))
        sent = {blob: task.result() for blob, task in tasks.items()}
        found = [sent[layer.blob] for layer in record.layers]
        document = await asyncio.to_thread(self._document, record, found, config.result(), kind)
        await self._uploads.manifest(document, self._reference.tag)
        if kind:
            return
        await self._attach(record, document)
        await finish(lambda: self._keep(record, document))
        self._feed.say(f"{self._reference.tag}: digest: {document.digest} size: {document.size}")
        self._feed.aux(Tag=self._reference.tag, Digest=document.digest, Size=document.size)
        self._feed.event(Event("push", self._reference.familiar, {"name": self._reference.familiar_name}))

    async def _attach(self, record: ImageRecord, document: Document) -> None:
        """Send what is attached to the image; a registry that does not take it has the image all the same."""
        subject = {"mediaType": document.media_type, "digest": document.digest, "size": document.size}
        blobs = self._stores.blobs
        for one in await asyncio.to_thread(self._stores.catalogue.referrers, record.id):
            if not referrers.goes_with(one, document.digest):
                self._feed.say(f"{one.artifact_type} was not pushed: it holds for {one.subject} only")
                continue
            try:
                content = documents.moved(await asyncio.to_thread(blobs.read, one.manifest), subject)
                needed = {digest: await asyncio.to_thread(blobs.read, digest) for digest in one.blobs}
                await referrers.push(self._uploads, content, needed)
            except SampanError as error:
                self._feed.say(f"{one.artifact_type} of the image was not pushed: {error}")

    async def _config(self, image: Digest) -> int:
        content = await asyncio.to_thread(self._stores.blobs.read, image)
        if not await self._uploads.has(image):
            await self._uploads.put(Blob(image, len(content), lambda at: _one(content[at:])))
        return len(content)

    async def _layer(self, layer: LayerRef, shown: str) -> Sent:
        if self._slots.locked():
            self._feed.step(shown, "Waiting")
        async with self._slots:
            sent, how = await self._put(layer, shown)
        self._feed.step(shown, how)
        await asyncio.to_thread(self._stores.catalogue.add_source, sent.digest, self._reference.name)
        return sent

    async def _put(self, layer: LayerRef, shown: str) -> tuple[Sent, str]:
        """Return the layer as the registry has it now, and how that came about."""
        plain = layer.media_type in (oci.OCI_LAYER, oci.DOCKER_LAYER)
        known = Sent(layer.blob, layer.blob_size, layer.media_type)
        if plain:
            packed = await asyncio.to_thread(self._stores.catalogue.packed.get, layer.blob)
            if packed is None:
                return await self._compressed(layer, shown, ""), "Pushed"
            known = Sent(packed.digest, packed.size, GZIP)
        if await self._uploads.has(known.digest):
            return known, "Layer already exists"
        location = ""
        source = await asyncio.to_thread(self._source, known.digest)
        if source:
            location = await self._uploads.mount(known.digest, source)
            if not location:
                return known, f"Mounted from {source}"
        if plain:
            return await self._compressed(layer, shown, location), "Pushed"
        await self._whole(layer, shown, location)
        return known, "Pushed"

    def _source(self, digest: Digest) -> str:
        """Return another repository of the same registry that is known to have the blob, "" for none."""
        found = self._stores.catalogue.sources.get(digest)
        prefix = f"{self._reference.domain}/"
        for name in reversed(found.repositories if found is not None else ()):
            if name.startswith(prefix) and name != self._reference.name:
                return name.removeprefix(prefix)
        return ""

    async def _whole(self, layer: LayerRef, shown: str, location: str) -> None:
        """Send a blob as it is stored."""

        async def read(offset: int) -> AsyncIterator[bytes]:
            with await finish(lambda: self._stores.blobs.open(layer.blob), undo=BufferedReader.close) as reader:
                reader.seek(offset)
                while data := await asyncio.to_thread(reader.read, 1 << 20):
                    yield data

        blob = Blob(layer.blob, layer.blob_size, read)
        await self._uploads.put(blob, location, lambda sent: self._feed.count(shown, "Pushing", sent, layer.blob_size))

    async def _compressed(self, layer: LayerRef, shown: str, location: str) -> Sent:
        """Compress a plain layer while it is sent; one chunk is made while the one before is on its way."""
        with await finish(lambda: self._stores.blobs.open(layer.blob), undo=BufferedReader.close) as reader:
            packing = Packing(reader)

            async def chunks() -> AsyncGenerator[bytes, None]:
                following = asyncio.ensure_future(asyncio.to_thread(packing.take, CHUNK))
                try:
                    while data := await following:
                        following = asyncio.ensure_future(asyncio.to_thread(packing.take, CHUNK))
                        yield data
                        self._feed.count(shown, "Pushing", packing.read, layer.blob_size)
                finally:
                    await asyncio.wait([following])

            async with contextlib.aclosing(chunks()) as made:
                digest = await self._uploads.chunked(made, lambda: packing.digest, location)
        packed = Packed(digest=digest, size=packing.size)
        await asyncio.to_thread(self._stores.catalogue.packed.put, layer.blob, packed)
        return Sent(digest, packing.size, GZIP)

    def _document(self, record: ImageRecord, layers: list[Sent], config_size: int, kind: str) -> Document:
        """Return the manifest: the one that the image came with when it says the same, else a new one of Docker's schema 2."""
        if record.manifest is not None:
            content = self._stores.blobs.read(record.manifest)
            kept = oci.read_manifest(content, record.media_type, f"manifest {record.manifest}")
            if isinstance(kept, oci.Manifest) and [one.digest for one in kept.layers] == [one.digest for one in layers]:
                return Document(content, record.media_type, record.manifest)
        docker = not kind and all(layer.media_type in (GZIP, f"{oci.OCI_LAYER}+gzip") for layer in layers)
        kinds = (oci.DOCKER_MANIFEST, oci.DOCKER_CONFIG) if docker else (oci.OCI_MANIFEST, kind or oci.OCI_CONFIG)
        body = {
            "schemaVersion": 2,
            "mediaType": kinds[0],
            "config": {"mediaType": kinds[1], "size": config_size, "digest": record.id},
            "layers": [
                {
                    "mediaType": GZIP if docker else documents.layer_type(layer.media_type),
                    "size": layer.size,
                    "digest": layer.digest,
                }
                for layer in layers
            ],
        }
        content = json.dumps(body, indent=3).encode()
        return Document(content, kinds[0], of(content))

    def _keep(self, record: ImageRecord, document: Document) -> None:
        """Remember what the image is called on its registry."""
        name = replace(self._reference, tag="", digest=document.digest)
        if self._stores.catalogue.named(name) != record.id:
            self._stores.catalogue.tag(name, record.id, 0)


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content
