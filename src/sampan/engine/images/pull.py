"""docker pull: the manifest for this machine, its layers side by side, then the record and the names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from sampan.content.images import ImageRecord, LayerRef
from sampan.engine.images import documents, platforms, referrers
from sampan.engine.images.context import Event, Stores
from sampan.engine.images.feed import Feed, fed
from sampan.engine.images.layers import EXISTS, PARALLEL, Job, Layers, Means, Wanted, Watcher, check
from sampan.engine.images.threads import finish
from sampan.engine.images.words import explained
from sampan.errors import Forbidden, InvalidRequest, NotFound
from sampan.oci import image as oci
from sampan.oci.digest import Digest
from sampan.oci.reference import Reference
from sampan.oci.reference import parse as parse_reference
from sampan.registry.client import Client, Found
from sampan.registry.credentials import Credentials
from sampan.registry.repository import Document, Repository
from sampan.wire.images import Progress

CONFIG_TYPES = frozenset((oci.OCI_CONFIG, oci.DOCKER_CONFIG, "application/octet-stream", ""))
PATIENCE = 10.0  # seconds that a pull waits, once its layers are here, for what is attached to the image
AT_ONCE = 16  # pulls that run at a time; more wait


@dataclass(frozen=True)
class Request:
    """What to pull: a name with tag or digest; without either, every tag."""

    reference: Reference
    platform: str
    credentials: Credentials


def requested(image: str, tag: str, platform: str, credentials: Credentials) -> Request:
    """Read the parameters of an API request.  Raises InvalidRequest, Forbidden for the reserved name."""
    reference = parse_reference(image.removesuffix(":"))
    if tag:
        made = parse_reference(f"{reference.name}@{tag}" if ":" in tag else f"{reference.name}:{tag}")
        reference = made
    elif reference.digest is not None:
        reference = replace(reference, tag="")  # the digest decides; a tag beside it says nothing
    if reference.name == "docker.io/library/scratch":
        raise Forbidden("'scratch' is a reserved name")
    platforms.parse(platform)
    return Request(reference, platform, credentials)


class Pulls:
    """Pulls from registries into the stores."""

    def __init__(self, stores: Stores, client: Client, layers: Layers) -> None:
        self._stores = stores
        self._client = client
        self._layers = layers
        self._gate = asyncio.Semaphore(AT_ONCE)

    def run(self, wanted: Request) -> AsyncGenerator[Progress | Event, None]:
        """Pull, and yield Docker's messages.  Closing the generator stops the pull; layers that are whole stay.

        Raises, before the first message when it is found then, what words.explained makes of the registry's refusals.
        """
        return fed(lambda feed: self._all(wanted, feed), self._gate)

    async def config(self, reference: Reference, credentials: Credentials) -> tuple[oci.Manifest, bytes]:
        """Return the manifest that a name leads to on its registry, and the configuration beside it, whatever that is.

        Raises NotFound, InvalidRequest, Broken.
        """
        async with opened(self._client, reference, credentials) as found:
            _, manifest = await choose(found.repository, found.document, platforms.parse(""))
            content = await found.repository.small_blob(manifest.config.checked(), manifest.config.size)
        return manifest, content

    async def layer(self, reference: Reference, credentials: Credentials, wanted: Wanted) -> LayerRef:
        """Bring one layer here; it is kept for a day.  Raises as `config`."""
        check(wanted.descriptor)
        found = await asyncio.to_thread(self._layers.find, wanted)
        if found is not None:
            return found
        with explained(reference):
            async with self._client.repository(reference, credentials) as repository:
                job = self._layers.join(wanted, Means(repository, reference.domain, asyncio.Semaphore(1)), None, _unwatched)
                assert job.task is not None
                try:
                    return await asyncio.shield(job.task)
                finally:
                    await self._layers.leave(job, _unwatched)

    async def _all(self, wanted: Request, feed: Feed) -> None:
        reference = wanted.reference
        if reference.tag or reference.digest is not None:
            self._status(reference, await self._named(reference, wanted, feed), feed)
            return
        with explained(reference):
            async with self._client.repository(reference, wanted.credentials) as repository:
                tags = await repository.tags()
        if not tags:
            raise NotFound(f"repository {reference.familiar_name} has no tags")
        news = [await self._named(replace(reference, tag=tag), wanted, feed) for tag in tags]
        self._status(reference, any(news), feed)

    @staticmethod
    def _status(reference: Reference, news: bool, feed: Feed) -> None:
        what = "Downloaded newer image for" if news else "Image is up to date for"
        feed.say(f"Status: {what} {reference.familiar}")

    async def _named(self, reference: Reference, wanted: Request, feed: Feed) -> bool:
        """Pull one name; return whether it brought something new."""
        with explained(reference):
            async with self._client.find(reference, wanted.credentials) as found:
                feed.say(f"Pulling from {reference.path}", reference.tag or reference.familiar)
                with ExitStack() as held:
                    await finish(lambda: held.enter_context(self._stores.catalogue.adding()))
                    pull = _Pull(self._stores, self._layers, found, reference, feed)
                    return await pull.run(platforms.parse(wanted.platform))


class _Pull:
    """One name being pulled."""

    def __init__(self, stores: Stores, layers: Layers, found: Found, reference: Reference, feed: Feed) -> None:
        self._stores = stores
        self._layers = layers
        self._repository = found.repository
        self._document = found.document
        self._reference = reference
        self._feed = feed

    async def run(self, platform: oci.Platform) -> bool:
        """Pull; return whether the image or one of its names is new here."""
        document, manifest = await choose(self._repository, self._document, platform)
        if manifest.config.media_type not in CONFIG_TYPES:
            raise InvalidRequest(
                f"{self._reference.familiar} is no image: its configuration is of type {manifest.config.media_type[:160]!r}"
            )
        image = manifest.config.checked()
        digests = [check(descriptor) for descriptor in manifest.layers]
        known = await asyncio.to_thread(self._stores.catalogue.find, image)
        if known is None or not await asyncio.to_thread(self._whole, known):
            await self._bring(document, manifest, digests, known)
        news = await finish(lambda: self._name(image))
        self._feed.say(f"Digest: {self._document.digest}")
        self._feed.event(Event("pull", self._reference.familiar, {"name": self._reference.familiar_name}))
        return news or known is None

    def _whole(self, record: ImageRecord) -> bool:
        """Return whether everything of the image is stored."""
        chains = all(self._stores.layers.layer(chain) is not None for chain in record.chain_ids)
        return chains and all(self._stores.blobs.has(blob) for blob in record.blobs())

    async def _bring(self, document: Document, manifest: oci.Manifest, digests: list[Digest], known: ImageRecord | None) -> None:
        """Fetch configuration and layers, and make the image known."""
        image = manifest.config.checked()
        content = await self._repository.small_blob(image, manifest.config.size)
        config = oci.decode(content, oci.ImageConfig, f"configuration of {self._reference.familiar}")
        wanted = _stack(config, manifest, digests)
        attached = asyncio.ensure_future(referrers.fetch(self._repository, document.digest))
        try:
            layers = await self._fetch(wanted)
            await asyncio.wait([attached], timeout=PATIENCE)
        finally:
            attached.cancel()
            await asyncio.wait([attached])
        await finish(lambda: self._keep(document, content, image, layers, known))
        if not attached.cancelled() and (found := attached.result()):
            await finish(lambda: self._attach(image, document, found))

    async def _fetch(self, wanted: list[Wanted]) -> tuple[LayerRef, ...]:
        """Return the layers once they are all stored."""
        present = await asyncio.to_thread(lambda: [self._layers.find(one) for one in wanted])
        joined: list[tuple[Job, Watcher]] = []
        means = Means(self._repository, self._reference.domain, asyncio.Semaphore(PARALLEL))
        below: Job | None = None
        waiting: list[Awaitable[LayerRef]] = []
        try:
            for one, found in zip(wanted, present, strict=True):
                if found is not None:
                    self._feed.step(one.shown, EXISTS)
                    waiting.append(_ready(found))
                    below = None
                    continue
                watcher = self._watcher(one)
                below = self._layers.join(one, means, below, watcher)
                joined.append((below, watcher))
                assert below.task is not None
                waiting.append(asyncio.shield(below.task))
            return tuple(await asyncio.gather(*waiting))
        finally:
            for job, watcher in reversed(joined):
                await self._layers.leave(job, watcher)

    def _watcher(self, wanted: Wanted) -> Watcher:
        def watch(status: str, done: int, total: int) -> None:
            if total:
                self._feed.count(wanted.shown, status, done, total)
            else:
                self._feed.step(wanted.shown, status)

        return watch

    def _keep(
        self, document: Document, config: bytes, image: Digest, layers: tuple[LayerRef, ...], known: ImageRecord | None
    ) -> None:
        """Store the documents, then the record that needs them."""
        blobs = self._stores.blobs
        blobs.put(config, image)
        manifest = oci.read_manifest(document.content, document.media_type, "manifest")
        same = documents.fits(manifest, layers)
        if known is not None and (known.manifest is not None or not same or known.layers != layers):
            return
        if same:
            blobs.put(document.content, document.digest)
        self._stores.catalogue.add(
            ImageRecord(
                id=image, layers=layers, manifest=document.digest if same else None, media_type=document.media_type if same else "",
                parent=known.parent if known is not None else "", added=known.added if known is not None else time.time_ns(),
            )
        )  # fmt: skip

    def _attach(self, image: Digest, document: Document, found: list[referrers.Fetched]) -> None:
        record = self._stores.catalogue.get(image)
        kept = referrers.store(self._stores.blobs, document.digest, found)
        self._stores.catalogue.attach(image, [one for one in kept if referrers.goes_with(one, record.manifest)])

    def _name(self, image: Digest) -> bool:
        """Give the image its names; return whether one of them is new."""
        now, catalogue = time.time_ns(), self._stores.catalogue
        names = [replace(self._reference, tag="", digest=self._document.digest)]
        if self._reference.tag:
            names.append(self._reference)
        news = any(catalogue.named(name) != image for name in names)
        for name in names:
            if catalogue.named(name) != image:
                catalogue.tag(name, image, now)
        return news


def _unwatched(status: str, done: int, total: int) -> None:
    return


async def _ready(layer: LayerRef) -> LayerRef:
    return layer


def _stack(config: oci.ImageConfig, manifest: oci.Manifest, digests: list[Digest]) -> list[Wanted]:
    """Return the image's layers in their places.  Raises InvalidRequest when configuration and manifest disagree."""
    if config.os not in ("", "linux"):
        raise InvalidRequest(f"image operating system {config.os[:40]!r} cannot be used on this platform")
    diff_ids = config.diff_ids()
    if len(diff_ids) != len(digests):
        raise InvalidRequest(f"the manifest has {len(digests)} layers, the configuration {len(diff_ids)}")
    made: list[Wanted] = []
    for descriptor, digest, diff_id in zip(manifest.layers, digests, diff_ids, strict=True):
        made.append(Wanted(descriptor, digest, diff_id, made[-1].chain_id if made else None))
    return made


async def choose(repository: Repository, document: Document, platform: oci.Platform) -> tuple[Document, oci.Manifest]:
    """Return the manifest for `platform` that the document is, or leads to.

    An index is walked no deeper than 4, no more than 1000 nodes are looked at, each once (row 53).  Raises NotFound.
    """
    walk = _Walk(repository, platform)
    await walk.look(document, 1)
    for _, _, descriptor in sorted(walk.found, key=lambda one: one[:2]):
        chosen = descriptor if isinstance(descriptor, Document) else await repository.manifest(descriptor.checked())
        manifest = oci.read_manifest(chosen.content, chosen.media_type, f"manifest {chosen.digest}")
        if isinstance(manifest, oci.Manifest):
            return chosen, manifest
    raise NotFound(f"no matching manifest for {platforms.shown(platform)} in the manifest list entries")


class _Walk:
    def __init__(self, repository: Repository, platform: oci.Platform) -> None:
        self._repository = repository
        self._platform = platform
        self._seen: set[str] = set()
        self._nodes = 0
        self.found: list[tuple[int, int, Document | oci.Descriptor]] = []  # rank, place

    async def look(self, document: Document, depth: int) -> None:
        value = oci.read_manifest(document.content, document.media_type, f"manifest {document.digest}")
        if isinstance(value, oci.Manifest):
            self.found.append((0, self._nodes, document))
            return
        if depth > oci.MAX_INDEX_DEPTH:
            raise InvalidRequest("image index is nested too deep")
        for descriptor in value.manifests:
            self._nodes += 1
            if self._nodes > oci.MAX_INDEX_NODES:
                raise InvalidRequest("image index is too wide")
            digest = descriptor.checked()
            if digest in self._seen or (descriptor.annotations or {}).get("vnd.docker.reference.type"):
                continue
            self._seen.add(digest)
            found = platforms.rank(descriptor.platform, self._platform)
            if descriptor.media_type in oci.MANIFEST_TYPES and found is not None:
                self.found.append((found, self._nodes, descriptor))
            elif descriptor.media_type in oci.INDEX_TYPES and found is not None:
                await self.look(await self._repository.manifest(digest), depth + 1)


@asynccontextmanager
async def opened(client: Client, reference: Reference, credentials: Credentials) -> AsyncGenerator[Found, None]:
    """Find a manifest for whoever only wants to look at it."""
    with explained(reference):
        async with client.find(reference, credentials) as found:
            yield found
