"""The builder of one daemon: what `POST /build` and `POST /build/prune` ask for."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import msgspec

from sampan.build import image
from sampan.build.agents import Sessions
from sampan.build.cache import Cache, StepRecord
from sampan.build.checks import check, refuse, settings, warnings
from sampan.build.context import Context
from sampan.build.digests import Digests
from sampan.build.exchange import CONFIG, FromUpload, Source, chosen, record_of, sources
from sampan.build.history import History, Watched, details, summary
from sampan.build.lines import Remark
from sampan.build.mounting import Mounts
from sampan.build.named import Named
from sampan.build.options import EPOCH, BuildFailed, Options
from sampan.build.outbox import Kept, Outbox
from sampan.build.parse import parse
from sampan.build.plan import Plan, plan
from sampan.build.prefix import Before, Pieces, read_prefix
from sampan.build.prune import Wanted, prune
from sampan.build.remote import Fetching
from sampan.build.report import Console, failure
from sampan.build.scope import consumable, given, keep_git
from sampan.build.solve import Shop, Solver
from sampan.build.source import DockerfileError
from sampan.build.squash import squash
from sampan.build.synced import Entry, Synced
from sampan.build.usage import records
from sampan.content.images import ImageRecord
from sampan.engine import cdi
from sampan.engine.containers.containers import Containers
from sampan.engine.containers.exits import background
from sampan.engine.context import Rooms
from sampan.engine.images.threads import finish
from sampan.errors import InvalidRequest, NotFound, SampanError
from sampan.files.ignore import Ignore
from sampan.oci.digest import Digest
from sampan.oci.reference import parse as parse_reference
from sampan.wire.builds import BuildDetails, BuildSummary
from sampan.wire.images import BuildPruned, ContextAnswer, Progress
from sampan.wire.usage import CacheRecord

_MAX_TOLD = 512 << 20
_GIVEN_BACK = 10.0  # seconds


@dataclass
class Brought:
    """What one build was given to build from; held: what else goes with it."""

    context: Context
    named: Named
    caches: list[Source] = field(default_factory=list)
    held: ExitStack = field(default_factory=ExitStack)

    async def close(self) -> None:
        await asyncio.to_thread(self.context.close)
        await asyncio.to_thread(self.held.close)
        await self.named.close()


class Builder:
    """Builds of one data root: any number side by side.

    granted: what their steps may ask for (SECURITY.md row 63); devices: folders of CDI specifications.
    """

    def __init__(
        self, rooms: Rooms, containers: Containers, granted: frozenset[str], devices: tuple[str, ...] = cdi.DIRS
    ) -> None:  # fmt: skip
        self._granted = granted
        self._images = rooms.images
        self._stores = rooms.images.stores
        self.cache = Cache(rooms.state)
        self._stores.catalogue.holders.append(self.cache.held)
        self._stores.catalogue.settlers.append(rooms.layers.settle)
        folder = rooms.data_root / "build"
        for one in (folder, folder / "contexts", folder / "mounts"):
            one.mkdir(mode=0o700, exist_ok=True)
        self._contexts = folder / "contexts"
        self._synced = Synced(folder / "synced")
        self.sessions = Sessions()
        self.history = History(rooms.state, folder / "history")
        self._loans: Counter[Digest] = Counter()
        self._notes: set[asyncio.Task[None]] = set()
        self._shop = Shop(
            self._stores,
            containers,
            rooms.images,
            self.cache,
            Digests(),
            Mounts(folder / "mounts", rooms.layers),
            self._contexts,
            devices,
        )

    def sweep(self) -> None:
        """Remove what a killed daemon's builds left, and steps whose layers are gone.  At start only.  Blocks."""
        self.history.sweep()
        stored = {layer.chain_id for layer in self._stores.layers.layers()}
        for key, record in self.cache.all():
            if not all(layer.chain_id in stored and self._stores.blobs.has(layer.blob) for layer in record.layers):
                self.cache.forget(key)
        for left in self._contexts.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        for left in (self._contexts.parent / "mounts").glob("tmp-*"):
            shutil.rmtree(left, ignore_errors=True)

    def build(self, tar: BinaryIO, options: Options, remote: str = "") -> AsyncIterator[Progress]:
        """Build from an uploaded context, or from the one at the URL `remote`; the messages are docker's.

        What is wrong with the request or the Dockerfile is raised before the first message.  When the iteration is given up, the
        build ends and leaves nothing but the cache.
        """
        return self._build(tar, options, remote)

    async def _build(self, tar: BinaryIO, options: Options, remote: str) -> AsyncGenerator[Progress, None]:
        outbox = Outbox()
        context = await finish(lambda: Context(self._contexts, self._synced), undo=Context.close)
        brought = Brought(context, Named(self._contexts, self._images, self._loans))
        try:
            prepared, options = await self._prepare(brought, tar, options, remote)
            if options.check or settings(prepared, options.request).strict:
                root = await finish(lambda: context.root(options.dockerfile))
                lines = check(prepared, options.request, root.ignore)
                for line in lines if options.check else ():
                    yield Progress(stream=line + "\n")
                if options.check:
                    return
            if options.plan:
                yield Progress(stream=prepared.describe())
                return
            entry = self.history.begin(Watched(options.name, options.request.target))
            self._later(asyncio.to_thread(self.history.write_begin, entry))
            task = asyncio.ensure_future(self._run(brought, prepared, options, outbox, entry))
            task.add_done_callback(lambda _: outbox.end())
            # By the task's own end: whoever waits for it here may be cancelled twice.
            task.add_done_callback(
                lambda ended: self._later(asyncio.to_thread(self.history.end, entry, cancelled=ended.cancelled()))
            )
            try:
                while (message := await outbox.get()) is not None:
                    yield message
                await task
            finally:
                task.cancel()
                await asyncio.wait([task])
        finally:
            self._later(brought.close())

    async def _prepare(self, brought: Brought, tar: BinaryIO, options: Options, remote: str) -> tuple[Plan, Options]:
        """Take the contexts and read the Dockerfile.  Raises what the request is refused for."""
        for tag in options.tags:
            parse_reference(tag)
        context, named = brought.context, brought.named
        named.tell(options.contexts)

        def work() -> tuple[Plan, Options]:
            name = options.dockerfile
            before = read_prefix(tar) if options.prefixed else Before()
            named.secrets = before.secrets
            for upload in before.uploads:
                pieces = Pieces(tar)
                if upload.kind == "cache":
                    brought.caches.append(FromUpload(self._stores, pieces, lambda: None, brought.held))
                else:
                    named.take(upload, pieces)
                pieces.drain()
            if remote:
                name = context.fetch(Fetching(remote, "", keep_git(options.request), before.secrets), name)
            elif before.context:
                context.take(before.context, tar, lambda: None)
            else:
                context.unpack(tar, lambda: None)
            request = replace(options.request, contexts=named.names)
            session = self.sessions.find(before.session)
            secrets = {**options.secrets, **before.secrets}
            found = replace(options, request=request, secrets=secrets, dockerfile=name, session=session, granted=self._granted)
            with _naming(found):
                return plan(parse(context.dockerfile(name)), request), found

        prepared, options = await finish(work)  # nothing is taken away while the thread still brings
        epoch = given(options.request).get(EPOCH)
        if epoch is not None and options.epoch is None:
            if not (epoch.isascii() and epoch.isdigit() and len(epoch) < 12):
                raise InvalidRequest(f"invalid {EPOCH} {epoch[:40]!r}: seconds since 1970 are expected")
            options = replace(options, epoch=int(epoch))
        return prepared, options

    async def _run(self, brought: Brought, made: Plan, options: Options, outbox: Outbox, entry: Watched) -> None:
        kept, emit = Kept(), outbox.put
        say = entry.listened(kept.put if options.quiet else emit)
        total = sum(1 + len(stage.stage.steps) for stage in made.stages)
        console = entry.console = Console(say, total, outbox.room, live=options.live)
        if options.explain and self._notes:
            await asyncio.wait(set(self._notes))
        try:
            root = await asyncio.to_thread(brought.context.root, options.dockerfile)
            solver = Solver(self._shop, made, (root, brought.named), options, console)
            solver.imports = [*brought.caches, *await sources(self._images, options.cache_from, options.auth, console.say)]
            try:
                with _naming(options):
                    built = await solver.solve()
                if options.squash:
                    plain = built
                    built = await solver.blocking(lambda: squash(self._stores, self.cache, plain, solver.base, options))
                warned = _warnings(made, options, root.ignore, solver.warned)
                inline = any(one.kind == "inline" for one in options.cache_to)
                told = chosen(solver.done, built.layers, whole=False) if inline else {}
                identity = await solver.blocking(lambda: self._finish(built, options, told))
                await self._export(solver.done, built, options, say)
            finally:
                solver.bases.close()
                await asyncio.shield(asyncio.to_thread(self._stores.layers.settle))
        except Exception as error:
            entry.error = str(error) or type(error).__name__
            console.flush()
            for message in kept.all():
                emit(message)
            if isinstance(error, BuildFailed):
                emit(failure(error))
                return
            raise
        brought.named.result = entry.image = identity
        for one in warned:
            say(Progress(stream=f"[Warning] {one.rule}: {one.message} (line {one.line})\n"))
        await self._announce(identity, made, options, say)
        self._later(self._note(set(solver.held), solver.places))
        if options.quiet:
            emit(Progress(stream=f"{identity}\n"))

    def _later(self, work: Coroutine[None, None, None]) -> None:
        """Do what nobody has to wait for, except prune."""
        task = background(work)
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _note(self, keys: set[str], places: dict[str, dict[str, str]]) -> None:
        """What nobody has to wait for: which steps were used, and by what inputs."""
        await asyncio.to_thread(self.cache.used, keys)
        await asyncio.to_thread(self.cache.remember, places)

    async def _export(
        self, done: Mapping[str, StepRecord], built: image.Built, options: Options, say: Callable[[Progress], None]
    ) -> None:
        """Give the steps to those who are to have them.  Raises SampanError."""
        for wanted in options.cache_to:
            steps = chosen(done, built.layers, whole=wanted.whole)
            if wanted.kind == "local":
                say(Progress(aux={"CacheSteps": sorted(steps)}))
            if wanted.kind != "registry":
                continue
            say(Progress(stream=f"Exporting {len(steps)} steps to {wanted.reference}\n"))
            auth = options.auth.get(parse_reference(wanted.reference).domain, "")
            try:
                async for _ in self._images.push_artifact(wanted.reference, self._artifact(steps), CONFIG, auth=auth):
                    pass
            except SampanError as error:
                if not wanted.lenient:
                    raise
                say(Progress(stream=f"[Warning] cache-to {wanted.reference}: {error}\n"))

    def _artifact(self, steps: Mapping[str, StepRecord]) -> Callable[[], ImageRecord]:
        return lambda: record_of(self._stores, steps)

    def exported(self, keys: list[str]) -> AsyncIterator[bytes]:
        """Return an OCI layout with the steps of these keys.  Raises NotFound before the first byte."""

        def make() -> ImageRecord:
            found = {key: self.cache.find(key, imported=True) for key in keys}
            if gone := [key for key, record in found.items() if record is None]:
                raise NotFound(f"{len(gone)} steps are not in the cache any more: {gone[0][:64]}")
            return record_of(self._stores, {key: record for key, record in found.items() if record is not None})

        return self._images.save_artifact(make, CONFIG)

    def _finish(self, built: image.Built, options: Options, inline: Mapping[str, StepRecord]) -> Digest:
        if built.image:
            return Digest(built.image)
        with self._stores.catalogue.adding():
            return image.store(self._stores, image.assemble(built, self.cache, options.epoch, inline), built.layers)

    async def _announce(self, identity: Digest, made: Plan, options: Options, say: Callable[[Progress], None]) -> None:
        say(Progress(aux={"ID": str(identity)}))
        unused = sorted(set(options.request.arguments) - consumable(made.dockerfile))
        if unused:
            say(Progress(stream=f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n"))
        say(Progress(stream=f"Successfully built {identity.removeprefix('sha256:')[:12]}\n"))
        for tag in options.tags:
            reference = parse_reference(tag)
            await self._images.tag(identity, reference.name, reference.tag or "latest")
            say(Progress(stream=f"Successfully tagged {reference.tagged().familiar}\n"))

    async def usage(self) -> list[CacheRecord]:
        return await asyncio.to_thread(records, self._shop)

    async def builds(self) -> list[BuildSummary]:
        return [summary(one) for one in await asyncio.to_thread(self.history.all)]

    async def inspect(self, build: str) -> BuildDetails:
        return details(await asyncio.to_thread(self.history.get, build))

    async def said(self, build: str) -> bytes:
        return await asyncio.to_thread(self.history.log, build)

    async def forget(self, build: str) -> None:
        await asyncio.to_thread(self.history.remove, build)

    async def tell(self, key: str, upload: BinaryIO) -> ContextAnswer:
        """Compare a context with the kept one; see synced.py.  Raises InvalidRequest, Conflict."""

        def work() -> ContextAnswer:
            content = bytearray()
            while data := upload.read(1 << 20):
                content += data
                if len(content) > _MAX_TOLD:
                    raise InvalidRequest(f"a list of files of more than {_MAX_TOLD} bytes")
            try:
                entries = msgspec.json.decode(content, type=list[Entry])
            except (msgspec.DecodeError, RecursionError) as error:
                raise InvalidRequest(f"a list of files is expected: {str(error)[:200]}") from None
            token, wanted = self._synced.tell(key, entries)
            return ContextAnswer(token=token, wanted=wanted)

        if self._synced.busy(key) and self._notes:  # a build that has ended may be about to give it back
            await asyncio.wait(set(self._notes), timeout=_GIVEN_BACK)
        return await asyncio.to_thread(work)

    async def prune(self, wanted: Wanted) -> BuildPruned:
        """Remove cached steps, and with `all` cache mounts too."""
        if self._notes:
            await asyncio.wait(set(self._notes))
        with ExitStack() as held:
            if wanted.all:
                await asyncio.to_thread(self._synced.trim, 0)
            return await asyncio.to_thread(prune, self._shop, wanted, held, time.time_ns())


@contextmanager
def _naming(options: Options) -> Iterator[None]:
    """Have errors of the Dockerfile say its name."""
    try:
        yield
    except DockerfileError as error:
        raise error.named(options.shown or options.dockerfile) from None


def _warnings(made: Plan, options: Options, ignore: Ignore, found: list[Remark]) -> list[Remark]:
    """Return all there is to warn of; `found`: on the way.  Raises InvalidRequest when warnings are to be errors."""
    wanted = settings(made, options.request)
    seen = [one for one in found if wanted.wants(one)]
    refuse(wanted, seen)
    return [*warnings(made, options.request, ignore), *seen]
