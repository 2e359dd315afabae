"""One build: stages side by side, each step from the cache or done."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace as replace_struct

from sampan.build import do_files, do_run, inputs, mounting, remote
from sampan.build.bases import Bases, serves
from sampan.build.cache import Cache, StepRecord, bounded, key_of
from sampan.build.checks import base_platform
from sampan.build.digests import Digests
from sampan.build.evaluate import TRIGGER, Base, evaluate
from sampan.build.exchange import Source
from sampan.build.image import COMMENT, Built, history_of
from sampan.build.instructions import Instruction
from sampan.build.layering import make_layer, rebase
from sampan.build.lines import Remark
from sampan.build.named import Named
from sampan.build.options import BuildFailed, Options
from sampan.build.plan import Plan, Planned, find_source
from sampan.build.report import Console, Lines
from sampan.build.select import Root
from sampan.build.source import DockerfileError, StepError
from sampan.build.steps import CopyOp, FolderOp, RunOp, Step
from sampan.content.images import LayerRef
from sampan.engine.containers.containers import Containers
from sampan.engine.images.context import Stores
from sampan.engine.images.images import Images
from sampan.engine.images.streams import Cancelled
from sampan.errors import InvalidRequest, SampanError
from sampan.oci.image import History

T = TypeVar("T")


@dataclass
class Shop:
    """What all builds of a daemon share.

    scratch: a folder for what is fetched; devices: folders of CDI specifications; locks: of steps being done, by key.
    """

    stores: Stores
    containers: Containers
    images: Images
    cache: Cache
    digests: Digests
    mounts: mounting.Mounts
    scratch: Path
    devices: tuple[str, ...] = ()
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)


class Solver:
    """The stages of one build."""

    def __init__(self, shop: Shop, plan: Plan, contexts: tuple[Root, Named], options: Options, console: Console) -> None:
        self.shop, self.plan, self.options, self.console = shop, plan, options, console
        self.context, self.named = contexts
        self.bases = Bases(shop.images, options, self.named)
        self.held: list[str] = []
        self.places: dict[str, dict[str, str]] = {}
        self.base = Built()  # what the target stage began with
        self.done: dict[str, StepRecord] = {}
        self.imports: Sequence[Source] = ()
        self.missed = 0
        self.warned: list[Remark] = []
        self._stages: dict[int, asyncio.Task[Built]] = {}
        self._gone = threading.Event()

    async def solve(self) -> Built:
        """Return the target stage.  Raises what its steps raise; all other stages have ended then."""
        try:
            async with asyncio.TaskGroup() as group:
                for planned in self.plan.stages:
                    self._stages[planned.index] = group.create_task(self._stage(planned))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            self._gone.set()
            self.shop.cache.let_go(self.held)
        return self._stages[self.plan.target].result()

    def _check(self) -> None:
        if self._gone.is_set():
            raise Cancelled

    async def blocking(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; when cancelled, tell it and wait for its end."""
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._gone.set()
            await asyncio.wait([task])
            task.exception()
            raise

    # Stages

    async def _stage(self, planned: Planned) -> Built:
        base = await self._base(planned)
        plan, request = self.plan, self.options.request
        last = planned.index == plan.target
        if last:
            self.base = base
        evaluated = evaluate(
            planned.stage, Base(base.settings, base.author, base.arguments), plan.outer, request, escape=plan.dockerfile.escape,
            last=last,
        )  # fmt: skip
        fresh = self._fresh(planned)
        built = base
        for number, step in enumerate(evaluated.steps):
            lines = self.console.step(step.text)
            with self._at(step.instruction, lines, trigger=step.trigger):
                built = await self._step(built, step, planned, lines, (self._place(planned, number), fresh))
        return replace(built, settings=evaluated.settings, author=evaluated.author, arguments=evaluated.arguments)

    @contextmanager
    def _at(self, instruction: Instruction, lines: Lines, *, trigger: bool = False) -> Iterator[None]:
        """Have what goes wrong with a step say where it stands; of a command that failed the words stay docker's alone."""
        place = instruction.line.place
        name = TRIGGER if trigger else self.options.shown or self.options.dockerfile
        try:
            yield
        except BuildFailed as error:
            if not error.placed:
                lines.say(f"{place.shown(name)}\n")
            error.placed = True
            raise
        except DockerfileError:
            raise
        except SampanError as error:
            raise StepError(place, str(error), name=name) from error

    async def _base(self, planned: Planned) -> Built:
        if planned.parent is not None:
            base = await asyncio.shield(self._stages[planned.parent])
            lines = self.console.step(planned.stage.start.text)
            _end(lines, base)
            return base
        lines = self.console.step(planned.stage.start.text)
        name = self.options.request.named(planned.base)
        if name and not self.named.image(name):
            return await self._from_files(planned, lines)
        with self._at(planned.stage.start, lines):
            base = await self.bases.image(planned.base, planned.platform)
        wanted = self.options.request.platform
        if not planned.platform and not serves(base, wanted):
            line = planned.stage.start.line.first
            self.warned.append(base_platform(line, planned.base, f"linux/{base.architecture}", wanted))
        _end(lines, base)
        return base

    async def _from_files(self, planned: Planned, lines: Lines) -> Built:
        """FROM a named context that is files: they are the first layer."""
        empty = await self.bases.image("scratch", planned.platform)
        op = CopyOp(("/",), "/", source_from=planned.base, link=True)
        text = f"FROM {planned.base}"
        fresh = self._fresh(planned)
        with ExitStack() as held, self._at(planned.stage.start, lines):
            layers = await self._copy(empty, op, planned, lines, (text, self._place(planned, "base"), fresh), held)
        lines.end(_short(layers[-1].chain_id))
        return replace(empty, layers=layers, history=(History(created_by=text, comment=COMMENT),), base=planned.base)

    def _fresh(self, planned: Planned) -> bool:
        return self.options.no_cache or planned.stage.name in self.options.no_cache_stages

    def _place(self, planned: Planned, step: object) -> str:
        return f"{self.options.name}\n{planned.stage.name}\n{step}"

    async def root(self, name: str, own: int) -> tuple[Root, Built | None]:
        """Return where --from=`name` copies from, and the stage or image it is; "" is the context."""
        if not name:
            return self.context, None
        key = self.options.request.named(name)
        if key and not self.named.image(key):
            return await self.named.files(key), None
        index = find_source(self.plan.dockerfile, name, own) if not key else None
        if index is not None and index in self._stages and index != own:
            found = await asyncio.shield(self._stages[index])
        elif index is not None:
            raise InvalidRequest(f"invalid from flag value {name[:80]}: the stage is not available here")
        else:
            found = await self.bases.image(name, "")
        return await self.blocking(lambda: self.bases.view(found, name)), found

    # Steps

    async def _step(self, built: Built, step: Step, planned: Planned, lines: Lines, how: tuple[str, bool]) -> Built:
        op = step.op
        if op is None:
            lines.end(_short(key_of({"step": step.created_by, "on": built.top})))
            return replace(built, history=(*built.history, history_of(step, empty=True)), image="")
        with ExitStack() as held:
            if isinstance(op, RunOp):
                layers = await self._run(built, op, planned, lines, (step.text, *how), held)
            elif isinstance(op, CopyOp):
                layers = await self._copy(built, op, planned, lines, (step.text, *how), held)
            else:
                layers = await self._folder(built, op, lines, (step.text, *how))
        made = len(layers) > len(built.layers)
        lines.end(_short(layers[-1].chain_id if layers else "scratch"))
        return replace(built, layers=layers, history=(*built.history, history_of(step, empty=not made)), image="")

    async def _run(
        self, built: Built, op: RunOp, planned: Planned, lines: Lines, how: tuple[str, str, bool], held: ExitStack
    ) -> tuple[LayerRef, ...]:
        devices = await self.blocking(lambda: do_run.devices(op, self.options, self.shop.devices)) if op.devices else []
        wanted = do_run.body(op, built, self.options, devices)
        sources = {mount.source_from: await self.root(mount.source_from, planned.index) for mount in op.mounts
                   if mount.type == "bind" or (mount.type == "cache" and mount.source_from)}  # fmt: skip
        lent = mounting.Lent(self.shop.mounts, op, sources, self.options, do_run.device_mounts(devices))
        digests = await self.blocking(lambda: lent.digests(self.shop.digests)) if sources else {}
        found = inputs.of_run(op, built.top, do_run.limits(self.options), digests) | do_run.device_inputs(devices)

        async def work(record: Callable[[LayerRef], None]) -> LayerRef:
            async with lent.locked():
                keep = (record, self.options.epoch)
                return await do_run.run(self.shop.containers, self.shop.stores, wanted, lent.lend, lines, keep)

        return await self._cached(built, found, lines, how, work)

    async def _copy(
        self, built: Built, op: CopyOp, planned: Planned, lines: Lines, how: tuple[str, str, bool], held: ExitStack
    ) -> tuple[LayerRef, ...]:
        root, _ = await self.root(op.source_from, planned.index)
        urls = [text for text in op.sources if op.adds and remote.is_remote(text)]
        secrets = self.options.secrets
        fetches = [remote.Fetching(url, op.checksum, op.keep_git_dir, secrets) for url in urls]
        fetched = [
            await self.blocking(lambda one=one: remote.fetch(one, self.shop.scratch, self._check, held))  # type: ignore[misc]
            for one in fetches
        ]
        copying = await self.blocking(lambda: do_files.prepare(op, root, built.top, self.shop.digests, fetched))
        chain = () if op.link else built.chain

        async def work(record: Callable[[LayerRef], None]) -> LayerRef:
            return await self.blocking(
                lambda: make_layer(
                    self.shop.stores, chain, lambda tree: do_files.write(copying, tree, self._check), record, self.options.epoch
                )
            )

        return await self._cached(built, copying.inputs, lines, how, work, apart=op.link)

    async def _folder(self, built: Built, op: FolderOp, lines: Lines, how: tuple[str, str, bool]) -> tuple[LayerRef, ...]:
        def there() -> bool:
            with self.shop.stores.layers.view_chain(built.chain) as view:
                return do_files.exists(view, op.path)

        if await self.blocking(there):
            return built.layers

        async def work(record: Callable[[LayerRef], None]) -> LayerRef:
            def make() -> LayerRef:
                return make_layer(
                    self.shop.stores, built.chain, lambda tree: do_files.make_folder(op, tree), record, self.options.epoch
                )

            return await self.blocking(make)

        return await self._cached(built, inputs.of_folder(op, built.top), lines, how, work)

    async def _cached(
        self, built: Built, found: dict[str, str], lines: Lines, how: tuple[str, str, bool],
        work: Callable[[Callable[[LayerRef], None]], object], *, apart: bool = False,
    ) -> tuple[LayerRef, ...]:  # fmt: skip
        """Return the layers after the step: from the cache, or done and kept there.  apart: its layer fits on any other."""
        text, place, fresh = how
        if self.options.epoch is not None:
            found["epoch"] = str(self.options.epoch)
        key = key_of(found)
        named = self.places[place] = bounded(found)
        cache = self.shop.cache
        lock = self.shop.locks.setdefault(key, asyncio.Lock())
        async with lock:
            cache.hold(key)
            self.held.append(key)
            before = () if apart else built.layers
            record = None if fresh else await self._known(key, text, before)
            if record is not None:
                lines.cached(record.imported)
                layer = record.layers[-1]
            else:
                self.missed += 1
                if self.options.explain:
                    why = ["the cache is not used"] if fresh else await self.blocking(lambda: cache.explain(place, named))
                    lines.missed(f"{', '.join(why[:20])}{' ...' if len(why) > 20 else ''}")
                layer = await work(lambda made: cache.put(key, record_of_step(text, (*before, made))))  # type: ignore[misc]
            self.done[key] = record or record_of_step(text, (*before, layer))
        if not lock.locked():
            self.shop.locks.pop(key, None)
        if apart and built.layers:
            return await self.blocking(lambda: self._rebased(built, layer, key, text))
        return (*built.layers, layer)

    async def _known(self, key: str, text: str, before: tuple[LayerRef, ...]) -> StepRecord | None:
        """Return the step from the cache, or from another daemon's that the build was told to import."""
        source = next((one for one in self.imports if key in one.steps), None)
        found = self.shop.cache.find(key, imported=source is not None)  # microseconds: no thread is worth it
        if found is not None or source is None:
            return found
        try:
            layer = await source.layer(key, before[-1].chain_id if before else None)
        except SampanError as error:
            self.console.say(f"[Warning] {source.name[:200]}: {error}\n")
            return None
        record = replace_struct(record_of_step(text, (*before, layer)), imported=source.name[:200])
        await self.blocking(lambda: self.shop.cache.put(key, record))
        return record

    def _rebased(self, built: Built, layer: LayerRef, key: str, text: str) -> tuple[LayerRef, ...]:
        cache = self.shop.cache
        over = key_of({"linked": key, "base": built.top})
        cache.hold(over)
        self.held.append(over)
        found = rebase(
            self.shop.stores, layer, built.chain[-1], lambda made: cache.put(over, record_of_step(text, (*built.layers, made)))
        )
        return (*built.layers, found)


def record_of_step(text: str, layers: tuple[LayerRef, ...]) -> StepRecord:
    """Return the record of a step done now."""
    now = time.time_ns()
    return StepRecord(text=text[:500], layers=layers, made=True, added=now, used=now)


def _end(lines: Lines, base: Built) -> None:
    """A FROM is done; its triggers come next, with docker's words."""
    count = len(base.settings.on_build or ())
    if count:
        lines.say(f"# Executing {count} build trigger{'s' if count > 1 else ''}\n")
    lines.end(_short(base.image or base.top))


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure that the others follow from."""
    found = [one for one in errors.exceptions if not isinstance(one, asyncio.CancelledError | Cancelled)]
    first = (found or list(errors.exceptions))[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
