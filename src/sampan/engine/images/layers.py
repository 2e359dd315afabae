"""Layers on their way from a registry into the store: each fetched once, however many pulls want it.

    download  ->  partial blob on disk  ->  verified blob ─┐
                     └ read as it grows -> decompressed -> unpacked aside ─┴─> adopted on top of its parent -> kept

Download, digest, decompression and unpacking run side by side, and the layers of an image beside each other; the file on
disk is the buffer between them.  A layer that is whole is kept for a day though its image never comes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from sampan.content.growing import Growing
from sampan.content.images import LayerRef
from sampan.content.partials import Partial, Partials
from sampan.engine.images.context import Stores
from sampan.engine.images.streams import Cancelled, Watched
from sampan.engine.images.threads import finish
from sampan.errors import Conflict, InvalidRequest
from sampan.files.compression import Compression, looked_at
from sampan.files.tar_apply import Budget
from sampan.oci import image as oci
from sampan.oci.digest import Digest, chain_id, encoded
from sampan.registry.download import download
from sampan.registry.repository import Repository
from sampan.storage.overlay import Staged

UNPACKING = 48  # threads at most: a slow registry holds those of its own pull only
PARALLEL = 3  # layers of one pull that are downloaded or unpacked at a time
FETCHING, WAITING, DOWNLOADING = "Pulling fs layer", "Waiting", "Downloading"
VERIFYING, COMPLETE, EXTRACTING, DONE, EXISTS = (
    "Verifying Checksum", "Download complete", "Extracting", "Pull complete", "Already exists",
)  # fmt: skip
MEDIA_TYPES = {
    oci.OCI_LAYER: Compression.PLAIN, f"{oci.OCI_LAYER}+gzip": Compression.GZIP, f"{oci.OCI_LAYER}+zstd": Compression.ZSTD,
    oci.DOCKER_LAYER: Compression.PLAIN, f"{oci.DOCKER_LAYER}.gzip": Compression.GZIP, f"{oci.DOCKER_LAYER}.zstd": Compression.ZSTD,
}  # fmt: skip
Watcher = Callable[[str, int, int], None]  # status, bytes done, bytes in all (0 for a step)


@dataclass(frozen=True)
class Wanted:
    """A layer of a manifest, and its place: the identity of its content and the chain below."""

    descriptor: oci.Descriptor
    digest: Digest
    diff_id: Digest
    parent: Digest | None

    @property
    def chain_id(self) -> Digest:
        return chain_id(self.parent, self.diff_id)

    @property
    def shown(self) -> str:
        return encoded(self.digest)[:12]


@dataclass
class Means:
    """What one pull fetches with."""

    repository: Repository
    origin: str
    slots: asyncio.Semaphore


@dataclass
class Job:
    """A layer being fetched.  status: the last step, for those who join late; stopping: nobody wanted it any more."""

    wanted: Wanted
    stopping: bool = False
    task: asyncio.Task[LayerRef] | None = None
    watchers: list[Watcher] = field(default_factory=list)
    status: str = FETCHING

    def step(self, status: str) -> None:
        self.status = status
        for watcher in list(self.watchers):
            watcher(status, 0, 0)

    def count(self, status: str, done: int) -> None:
        for watcher in list(self.watchers):
            watcher(status, done, self.wanted.descriptor.size)


class Layers:
    """The layers being fetched now.  Its methods are the event loop's."""

    def __init__(self, stores: Stores, partials: Partials) -> None:
        self._stores = stores
        self._partials = partials
        self._pool = ThreadPoolExecutor(UNPACKING, thread_name_prefix="unpack")
        self._jobs: dict[tuple[str, Digest, Digest], Job] = {}

    def find(self, wanted: Wanted) -> LayerRef | None:
        """Return the layer when it is stored whole.  Blocks."""
        known = self._stores.catalogue.find_layer(wanted.chain_id)
        if known is None or self._stores.layers.layer(wanted.chain_id) is None or not self._stores.blobs.has(known.blob):
            return None
        return known

    def join(self, wanted: Wanted, means: Means, below: Job | None, watcher: Watcher) -> Job:
        """Return the layer's job, begun now if nobody has; its steps are told to `watcher` until `leave`."""
        key = (means.origin, wanted.digest, wanted.chain_id)
        job = self._jobs.get(key)
        if job is None or job.stopping:
            before, job = job, Job(wanted)
            self._jobs[key] = made = job
            fetch = _Fetch(self._stores, self._partials, job, means, self._pool)
            job.task = asyncio.ensure_future(fetch.run(below, before))
            job.task.add_done_callback(lambda task: self._ended(key, made, task))
        job.watchers.append(watcher)
        watcher(job.status, 0, 0)
        return job

    def _ended(self, key: tuple[str, Digest, Digest], job: Job, task: asyncio.Task[LayerRef]) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]
        if not task.cancelled():
            task.exception()  # those who wait for it get it

    async def leave(self, job: Job, watcher: Watcher) -> None:
        """Want the layer no longer; when nobody does, it stops, and has stopped when this returns."""
        if watcher in job.watchers:
            job.watchers.remove(watcher)
        if not job.watchers and job.task is not None and not job.task.done():
            job.stopping = True
            job.task.cancel()
            await asyncio.wait([job.task])


class _Fetch:
    """One layer's way."""

    def __init__(self, stores: Stores, partials: Partials, job: Job, means: Means, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._stores = stores
        self._partials = partials
        self._job = job
        self._means = means
        self._wanted = job.wanted
        self._gone = False
        self._loop = asyncio.get_running_loop()

    async def run(self, below: Job | None, before: Job | None) -> LayerRef:
        """Fetch the layer, above `below`, after an earlier job for it has stopped."""
        async with self._means.repository.session:  # the pull that began this may end before
            return await self._run(below, before)

    async def _run(self, below: Job | None, before: Job | None) -> LayerRef:
        if before is not None and before.task is not None:
            await asyncio.wait([before.task])
        with ExitStack() as held:
            await finish(lambda: held.enter_context(self._stores.catalogue.adding()))
            if self._means.slots.locked():
                self._job.step(WAITING)
            staging = ExitStack()
            try:
                async with self._means.slots:
                    staged = await self._fetch(staging)
                if below is not None and below.task is not None:
                    await asyncio.shield(below.task)
                made = await finish(lambda: self._adopt(staged))
            finally:
                await finish(staging.close)
            self._job.step(DONE)
            return made

    async def _fetch(self, staging: ExitStack) -> Staged:
        if await asyncio.to_thread(self._stores.blobs.has, self._wanted.digest):
            self._job.step(COMPLETE)
            return await self._work(lambda: self._from_blob(staging))
        for again in (False, True):
            partial = await finish(self._open, undo=Partial.close)
            try:
                return await self._both(partial, staging)
            except InvalidRequest:
                if again or not partial.resumed:
                    raise
                await finish(staging.close)  # what was taken up again may be what a power cut left: once more
                await finish(partial.discard)
            finally:
                await finish(partial.close)
        raise AssertionError("unreachable")

    def _open(self) -> Partial:
        return self._partials.open(self._wanted.digest, self._wanted.descriptor.size, self._means.origin)

    async def _both(self, partial: Partial, staging: ExitStack) -> Staged:
        """Download and unpack side by side; the first to fail ends the other."""
        with partial.reader() as stored:  # now: a small layer is whole, and its file closed, before a busy pool begins with it
            return await self._side_by_side(partial, stored, staging)

    async def _side_by_side(self, partial: Partial, stored: Growing, staging: ExitStack) -> Staged:
        unpacking = asyncio.ensure_future(self._work(lambda: self._unpack(Watched(stored, self._check, self._tell), staging)))
        downloading = asyncio.ensure_future(self._download(partial))
        try:
            await asyncio.wait([unpacking, downloading], return_when=asyncio.FIRST_EXCEPTION)
            if unpacking.done() and not unpacking.cancelled() and (error := unpacking.exception()) and not downloading.done():
                raise error
            await downloading
            return await unpacking
        finally:
            self._gone = not (unpacking.done() and downloading.done())
            downloading.cancel()
            await asyncio.wait([downloading])
            await finish(partial.close)
            await asyncio.wait([unpacking])
            if not unpacking.cancelled():
                unpacking.exception()
            self._gone = False

    async def _download(self, partial: Partial) -> None:
        await download(self._means.repository, partial.digest, partial.expected, _Sink(self, partial))
        self._job.step(VERIFYING)
        await finish(partial.commit)
        self._job.step(COMPLETE)

    async def _work(self, work: Callable[[], Staged]) -> Staged:
        """Run `work` in the pull's threads; told to stop, it is waited for."""
        return await finish(lambda: self._unless_gone(work), self._pool, stop=self._leave)

    def _leave(self) -> None:
        self._gone = True

    def _unless_gone(self, work: Callable[[], Staged]) -> Staged:
        self._check()
        return work()

    # In threads

    def _from_blob(self, staging: ExitStack) -> Staged:
        with self._stores.blobs.open(self._wanted.digest) as stored:
            return self._unpack(Watched(stored, self._check, self._tell), staging)

    def _unpack(self, stored: Watched, staging: ExitStack) -> Staged:
        kind, source = looked_at(stored)
        announced = MEDIA_TYPES[self._wanted.descriptor.media_type]
        if kind not in (Compression.PLAIN, Compression.GZIP, Compression.ZSTD):
            raise InvalidRequest(f"layer {self._wanted.digest} is compressed with {kind.value}, announced was {announced.value}")
        size = self._wanted.descriptor.size
        budget = Budget() if kind is Compression.PLAIN else Budget.for_compressed(size)
        try:
            staged = staging.enter_context(self._stores.layers.stage(source, self._wanted.diff_id, kind=kind, budget=budget))
        except InvalidRequest as error:
            raise InvalidRequest(f"failed to register layer {self._wanted.shown}: {error}") from error
        while stored.read(1 << 20):  # what follows the archive belongs to the blob, and is verified with it
            pass
        return staged

    def _check(self) -> None:
        if self._gone:
            raise Cancelled

    def _tell(self, done: int) -> None:
        if self._job.status in (COMPLETE, EXTRACTING):
            self._loop.call_soon_threadsafe(self._extracting, done)

    def _extracting(self, done: int) -> None:
        if self._job.status == COMPLETE:
            self._job.status = EXTRACTING
        if self._job.status == EXTRACTING:
            self._job.count(EXTRACTING, done)

    def _adopt(self, staged: Staged) -> LayerRef:
        wanted = self._wanted
        made = self._stores.layers.adopt(staged, wanted.parent)
        layer = LayerRef(
            diff_id=wanted.diff_id, chain_id=made.chain_id, blob=wanted.digest, blob_size=wanted.descriptor.size, size=made.size,
            media_type=wanted.descriptor.media_type,
        )  # fmt: skip
        self._stores.catalogue.keep_layer(layer, time.time_ns())
        self._stores.catalogue.add_source(wanted.digest, f"{self._means.origin}/{self._means.repository.path}")
        return layer


class _Sink:
    """A partial as the downloader fills it: written and hashed in a thread, while the next bytes arrive."""

    def __init__(self, fetch: _Fetch, partial: Partial) -> None:
        self._fetch = fetch
        self._partial = partial

    @property
    def size(self) -> int:
        return self._partial.size

    async def write(self, data: bytes) -> None:
        await finish(lambda: self._partial.write(data))
        self._fetch._job.status = DOWNLOADING
        self._fetch._job.count(DOWNLOADING, self._partial.size)


def check(descriptor: oci.Descriptor) -> Digest:
    """Return a layer's digest.  Raises InvalidRequest for what cannot be unpacked, naming it: foreign layers among others."""
    digest = descriptor.checked()
    kind = descriptor.media_type
    if "nondistributable" in kind or ".foreign." in kind:
        raise InvalidRequest(f"layer {digest} is a foreign layer ({kind}), which is fetched from elsewhere: not supported")
    if kind not in MEDIA_TYPES:
        raise InvalidRequest(f"layer {digest} has the unknown type {kind[:160]!r}")
    return digest


__all__ = ["Conflict", "Job", "Layers", "Means", "Wanted", "check"]
