"""The graph of a build: which stages are needed, on what each depends; data that can be printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sampan.build.instructions import Copy, Dockerfile, Instruction, Onbuild, Run, Stage
from sampan.build.parse import trigger
from sampan.build.scope import Request, Scope, checked_arguments, platform_arguments
from sampan.errors import InvalidRequest

_PLATFORM = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+){0,2}")


@dataclass(frozen=True)
class Planned:
    """A stage that is needed.

    base: the image's name, "scratch", or "" when `parent` is the stage it is made from; needs: the stages it must wait for;
    images: what else it copies from.
    """

    stage: Stage
    base: str
    parent: int | None
    platform: str
    needs: frozenset[int]
    images: tuple[str, ...]

    @property
    def index(self) -> int:
        return self.stage.index


@dataclass(frozen=True)
class Plan:
    """A build.  stages: the needed ones, in the order of the file; outer: the values that a bare ARG takes up."""

    dockerfile: Dockerfile
    stages: tuple[Planned, ...]
    target: int
    outer: Mapping[str, str | None]
    skipped: tuple[str, ...]

    def stage(self, index: int) -> Planned:
        return next(one for one in self.stages if one.index == index)

    def describe(self) -> str:
        """Return the graph for people to read."""
        lines = []
        for one in self.stages:
            base = f"stage {self.dockerfile.stages[one.parent].name}" if one.parent is not None else one.base
            after = sorted(one.needs - {one.parent})
            waits = f" after {', '.join(self.dockerfile.stages[n].name for n in after if n is not None)}" if after else ""
            images = f" copying from {', '.join(one.images)}" if one.images else ""
            lines.append(f"{one.stage.name}: from {base}{waits}{images}{' (target)' if one.index == self.target else ''}")
            lines += [f"  {step.text}" for step in one.stage.steps]
        lines += [f"{name}: not needed" for name in self.skipped]
        return "\n".join(lines) + "\n"


def plan(dockerfile: Dockerfile, request: Request) -> Plan:
    """Return the graph for the request's target.  Raises DockerfileError, InvalidRequest."""
    checked_arguments(request.arguments)
    target = _target(dockerfile, request.target)
    name = request.target or dockerfile.stages[-1].start.name or "default"
    scope = Scope(dockerfile.escape)
    outer: dict[str, str | None] = dict(platform_arguments(request, name))
    outer |= {key: value for key, value in request.arguments.items() if key in outer and value is not None}
    scope.args.update(outer)
    for argument in dockerfile.arguments:
        outer |= dict(scope.declare(argument, request, outer))
    planned = [_planned(dockerfile, stage, scope, request) for stage in dockerfile.stages[: target + 1]]
    later = [_planned(dockerfile, stage, scope, request) for stage in dockerfile.stages[target + 1 :]]
    needed = _needed(dockerfile, [*planned, *later], target)
    skipped = tuple(stage.name for stage in dockerfile.stages if stage.index not in needed)
    return Plan(dockerfile, tuple(one for one in [*planned, *later] if one.index in needed), target, outer, skipped)


def _target(dockerfile: Dockerfile, target: str) -> int:
    if not target:
        return len(dockerfile.stages) - 1
    for stage in reversed(dockerfile.stages):
        if stage.start.name == target.lower() or str(stage.index) == target:
            return stage.index
    raise InvalidRequest(f"failed to reach build target {target[:80]} in Dockerfile")


def find_stage(dockerfile: Dockerfile, name: str, before: int) -> int | None:
    """Return the stage that a FROM means: the last of that name before the stage."""
    for stage in reversed(dockerfile.stages[:before]):
        if stage.start.name and stage.start.name == name.lower():
            return stage.index
    return None


def find_source(dockerfile: Dockerfile, name: str, own: int) -> int | None:
    """Return the stage that --from means, by name or by number; None: it is an image or a named context."""
    found = find_stage(dockerfile, name, own)
    if found is not None:
        return found
    if name.isascii() and name.isdigit() and len(name) < 6 and int(name) < len(dockerfile.stages):
        return int(name)
    return next((s.index for s in dockerfile.stages[own:] if s.start.name and s.start.name == name.lower()), None)


def sources_of(instruction: Instruction) -> list[str]:
    """Return what an instruction copies or mounts from, other than the build context."""
    if isinstance(instruction, Copy):
        return [instruction.source_from] if instruction.source_from else []
    if isinstance(instruction, Run):
        return [mount.source_from for mount in instruction.mounts if mount.source_from]
    return []


def _planned(dockerfile: Dockerfile, stage: Stage, scope: Scope, request: Request) -> Planned:
    start = stage.start
    base = scope.text(start, start.base)
    platform = scope.text(start, start.platform) if start.platform else ""
    if not base:
        raise start.line.error(f"base name ({start.base[:80]}) should not be blank", start.line.offset)
    if platform and not _PLATFORM.fullmatch(platform.lower()):
        raise start.line.error(f'failed to parse platform "{platform[:40]}"', start.line.offset)
    parent = find_stage(dockerfile, base, stage.index) if not request.named(base) else None
    needs: set[int] = set() if parent is None else {parent}
    images: list[str] = []
    for instruction in stage.steps:
        for name in sources_of(instruction):
            found = find_source(dockerfile, name, stage.index) if not request.named(name) else None
            if found == stage.index:
                raise instruction.line.error(f"circular dependency detected on stage: {stage.name}")
            if found is not None:
                needs.add(found)
            elif name not in images:
                images.append(name)
    return Planned(stage, "" if parent is not None else base, parent, platform.lower(), frozenset(needs), tuple(images))


def _needed(dockerfile: Dockerfile, planned: list[Planned], target: int) -> set[int]:
    """Return the target and all it depends on.  Raises DockerfileError for a circle."""
    done: set[int] = set()
    path: list[int] = []
    waiting: list[tuple[int, bool]] = [(target, False)]
    while waiting:
        index, left = waiting.pop()
        if left:
            path.remove(index)
            done.add(index)
            continue
        if index in done:
            continue
        if index in path:
            stage = dockerfile.stages[index]
            raise stage.start.line.error(f"circular dependency detected on stage: {stage.name}")
        path.append(index)
        waiting.append((index, True))
        triggered = [n for n in planned[index].needs if n not in done]
        waiting += [(n, False) for n in triggered]
    return done | _triggered(dockerfile, planned, done)


def _triggered(dockerfile: Dockerfile, planned: list[Planned], needed: set[int]) -> set[int]:
    """Return the stages that an ONBUILD of a needed stage copies from once another needed stage is made from it."""
    more: set[int] = set()
    for index in sorted(needed):
        parent = planned[index].parent
        if parent is None:
            continue
        for instruction in dockerfile.stages[parent].steps:
            if isinstance(instruction, Onbuild):
                for name in sources_of(trigger(instruction.trigger)):
                    found = find_source(dockerfile, name, index)
                    if found is not None and found < index:
                        more.add(found)
    waiting, extra = list(more - needed), set(more - needed)
    while waiting:
        for index in planned[waiting.pop()].needs - needed - extra:
            extra.add(index)
            waiting.append(index)
    return extra
