"""Images as the API asks for them (api/backend.py): coroutines around the verbs, which block and run in threads."""

from __future__ import annotations

import asyncio
import time
from builtins import list as List
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from sampan.content.blobs import Blobs
from sampan.content.images import Catalogue, ImageRecord, LayerRef
from sampan.content.partials import Partials
from sampan.engine.images import (
    bootstrap,
    check,
    commit,
    import_,
    inspect,
    list,
    load,
    platforms,
    pull,
    push,
    referrers,
    remote,
    remove,
)
from sampan.engine.images import save as saving
from sampan.engine.images import tag as tagging
from sampan.engine.images.context import Emit, Event, InUse, Stores
from sampan.engine.images.filters import Filters
from sampan.engine.images.image import Image, image_of
from sampan.engine.images.layers import Layers, Wanted
from sampan.engine.images.streams import Reporter, streamed
from sampan.errors import NotFound
from sampan.oci.digest import Digest
from sampan.oci.image import Manifest
from sampan.oci.reference import parse
from sampan.registry.client import Client
from sampan.registry.credentials import from_header
from sampan.registry.hosts import Hosts, Settings
from sampan.state import State
from sampan.storage.overlay import Overlay
from sampan.wire.images import Deleted, HistoryItem, ImageInspect, ImageSummary, Progress, PruneResult
from sampan.wire.registry import AuthAnswer, AuthConfig, Distribution, SearchResult
from sampan.wire.system import Finding

T = TypeVar("T")
KEPT_FOR = 86400 * 10**9  # nanoseconds that a layer without an image is kept


class Images:
    """The images of one data root.

    in_use: the containers made from an image, as (container id, running); called in threads.
    emit: emits an event of (type, action, actor id, attributes); called in the event loop's thread.
    """

    def __init__(
        self, data_root: Path, state: State, layers: Overlay, *, in_use: InUse, emit: Emit, registries: Settings = Settings()
    ) -> None:
        self.blobs = Blobs(data_root)
        self.catalogue = Catalogue(state, self.blobs)
        self.layers = layers
        self._stores = Stores(self.blobs, self.catalogue, layers, in_use)
        self._emit = emit
        self.partials = Partials(self.blobs)
        self.registries = Client(Hosts(registries))
        self._pulls = pull.Pulls(self._stores, self.registries, Layers(self._stores, self.partials))
        self._pushes = push.Pushes(self._stores, self.registries)

    @property
    def stores(self) -> Stores:
        """The rooms below, for the builder above."""
        return self._stores

    def sweep(self) -> List[str]:
        """Remove what a crash left: half-written blobs, and blobs and layers that no image needs.  Blocks; at start only,
        after `layers.sweep`.  Returns what was found, and every record that cannot be read."""
        found = [f"{count} half-written blobs"] if (count := self.blobs.sweep()) else []
        found += [f"{count} old unfinished downloads"] if (count := self.partials.sweep()) else []
        self.catalogue.drop_kept(time.time_ns() - KEPT_FOR)
        broken = self.catalogue.broken()
        found += [f"record {key} cannot be read: {reason}" for key, reason in broken]
        if not broken:  # what an unreadable record needs is unknown, so nothing is garbage
            _, layers = self._stores.collect()
            found += [f"layer {chain} of no image" for chain in layers]
        return found

    def resolve(self, ref: str) -> Image:
        """Return the image a container is to be made from.  Blocks for a few database reads.

        Raises NotFound `No such image: NAME:TAG`, InvalidRequest, Conflict for an ambiguous ID.
        """
        image, _ = self.catalogue.resolve(ref)
        return image_of(self.catalogue, self.catalogue.get(image))

    def used(self, image: Digest) -> None:
        """A container is made from the image.  Blocks, once an hour for a commit."""
        self.catalogue.used(image, time.time_ns())

    def find(self, image_id: str) -> Image | None:
        """Return the image with exactly this ID, or None: for containers whose image may be gone.  Blocks likewise."""
        try:
            return self.resolve(image_id)
        except NotFound:
            return None

    async def list(self, *, all: bool, filters: Filters, shared_size: bool, manifests: bool = False) -> List[ImageSummary]:
        """manifests: with the manifest that each image has."""

        def work() -> List[ImageSummary]:
            found = list.list_images(self._stores, all=all, filters=filters, shared_size=shared_size)
            return list.with_manifests(self._stores, found) if manifests else found

        return await self._run(work)

    async def inspect(self, ref: str) -> ImageInspect:
        return await self._run(lambda: inspect.inspect(self._stores, ref))

    async def history(self, ref: str) -> List[HistoryItem]:
        return await self._run(lambda: inspect.history(self._stores, ref))

    async def provides(self, refs: List[str], texts: List[str]) -> None:
        """Raise NotFound unless every image is of one of the platforms; InvalidRequest for what is no platform."""
        wanted = platforms.asked(texts)

        def look() -> None:
            for ref in refs:
                image = self.resolve(ref)
                platforms.require(platforms.normal(image.os, image.architecture, image.variant), wanted, ref)

        await self._run(look)

    def draft(self, parent: Digest) -> commit.Draft:
        """Begin an image on top of `parent`.  Blocks.  Raises Conflict when that is gone."""
        return commit.Draft(self._stores, parent)

    async def tag(self, ref: str, repo: str, tag_: str) -> None:
        self._tell(await self._run(lambda: tagging.tag(self._stores, ref, repo, tag_)))

    async def remove(self, ref: str, *, force: bool, prune: bool) -> List[Deleted]:
        removal = await self._run(lambda: remove.remove(self._stores, ref, force=force, prune=prune))
        self._tell(removal.events)
        return removal.done

    async def prune(self, filters: Filters) -> PruneResult:
        result, events = await self._run(lambda: remove.prune(self._stores, filters))
        self._tell(events)
        return result

    def load(self, tar: BinaryIO, *, quiet: bool, only: Sequence[str] = ()) -> AsyncIterator[Progress]:
        wanted = platforms.asked(only)
        return self._stream(lambda reporter: load.load(self._stores, tar, reporter, quiet=quiet, wanted=wanted))

    def import_(
        self, tar: BinaryIO, *, repo: str, tag: str, message: str, changes: List[str], platform: str
    ) -> AsyncIterator[Progress]:
        wanted = import_.Wanted(repo, tag, message, tuple(changes), platform)
        return self._stream(lambda reporter: import_.import_(self._stores, tar, reporter, wanted))

    def import_from(
        self, source: str, *, repo: str, tag: str, message: str, changes: List[str], platform: str
    ) -> AsyncIterator[Progress]:
        """Import what an address gives."""
        wanted = import_.Wanted(repo, tag, message, tuple(changes), platform, source=source)
        return self._stream(lambda reporter: import_.import_from(self._stores, reporter, wanted))

    def bootstrap(self, recipe: str, *, tag: str) -> AsyncIterator[Progress]:
        return self._stream(lambda reporter: bootstrap.bootstrap(self._stores, reporter, recipe, tag))

    async def sbom(self, ref: str) -> bytes:
        """Return the SPDX document that is attached to the image.  Raises NotFound."""
        return await self._run(lambda: referrers.sbom(self._stores, ref))

    def save(self, refs: List[str]) -> AsyncIterator[bytes]:
        def work(reporter: Reporter[bytes | Event]) -> None:
            saving.save(self._stores, refs, reporter)

        return self._stream(work)

    async def check(self, *, repair: bool) -> List[Finding]:
        return await check.check(self._stores, self.registries, self.partials, repair=repair)

    # With registries.  `auth`: the value of X-Registry-Auth.

    def pull(self, image: str, *, tag: str, platform: str, auth: str) -> AsyncIterator[Progress]:
        return self._told(self._pulls.run(pull.requested(image, tag, platform, from_header(auth))))

    def push(self, image: str, *, tag: str, auth: str) -> AsyncIterator[Progress]:
        return self._told(self._pushes.run(push.requested(image, tag), from_header(auth)))

    # Cached steps of builds: manifests like an image's, with a configuration of another type.

    async def config_of(self, ref: str, *, auth: str) -> tuple[Manifest, bytes]:
        return await self._pulls.config(parse(ref).tagged(), from_header(auth))

    async def layer(self, ref: str, wanted: Wanted, *, auth: str) -> LayerRef:
        return await self._pulls.layer(parse(ref).tagged(), from_header(auth), wanted)

    def push_artifact(self, ref: str, make: Callable[[], ImageRecord], kind: str, *, auth: str) -> AsyncIterator[Progress]:
        return self._told(self._pushes.artifact(push.requested(ref, "").tagged(), from_header(auth), make, kind))

    def save_artifact(self, make: Callable[[], ImageRecord], kind: str) -> AsyncIterator[bytes]:
        def work(reporter: Reporter[bytes | Event]) -> None:
            saving.save_artifact(self._stores, make, kind, reporter)

        return self._stream(work)

    async def distribution(self, ref: str, *, auth: str) -> Distribution:
        return await remote.distribution(self.registries, ref, from_header(auth))

    async def search(self, term: str, *, limit: int, filters: Filters, auth: str) -> List[SearchResult]:
        return await remote.search(self.registries, term, limit, filters, from_header(auth))

    async def login(self, body: AuthConfig) -> AuthAnswer:
        return await remote.login(self.registries, body)

    def _stream(self, work: Callable[[Reporter[T | Event]], None]) -> AsyncIterator[T]:
        return self._told(streamed(work))

    async def _told(self, stream: AsyncGenerator[T | Event, None]) -> AsyncGenerator[T, None]:
        try:
            async for item in stream:
                if isinstance(item, Event):
                    self._tell([item])
                else:
                    yield item
        finally:
            await stream.aclose()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            self._emit("image", event.action, event.actor, event.attributes)
