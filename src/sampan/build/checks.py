"""Build checks: what is legal and probably not meant (spec: dockerfile.md 7)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from sampan.build import instructions as i
from sampan.build.evaluate import Base, evaluate
from sampan.build.lines import DIRECTIVES, Remark
from sampan.build.plan import Plan
from sampan.build.remote import is_remote
from sampan.build.scope import Request, Scope, platform_arguments
from sampan.build.source import suggestion
from sampan.errors import InvalidRequest
from sampan.files.ignore import Ignore, clean
from sampan.oci import reference

ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"
URL = "https://docs.docker.com/go/dockerfile/rule"
_SECRET = frozenset("apikey auth credential credentials key password pword passwd secret token".split())
_INNOCENT = frozenset(("public", "file", "version"))
_EXPERIMENTAL = frozenset(("InvalidDefinitionDescription",))
_SINGLE = ("CMD", "ENTRYPOINT", "HEALTHCHECK")


@dataclass(frozen=True)
class Settings:
    """The directive `check=skip=RULE,...;error=true`, or the build argument that takes its place."""

    skip: frozenset[str] = frozenset()
    strict: bool = False
    experimental: frozenset[str] = frozenset()

    def wants(self, one: Remark) -> bool:
        """Whether a warning is wanted; experimental ones only by name."""
        if one.rule in self.skip or "all" in self.skip:
            return False
        return one.rule not in _EXPERIMENTAL or bool(self.experimental & {one.rule, "all"})


def settings(plan: Plan, request: Request) -> Settings:
    """Return how the file, or the request, wants to be checked."""
    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    strict = False
    for part in (request.arguments.get(ARGUMENT) or plan.dockerfile.directives.get("check", "")).split(";"):
        name, _, value = part.strip().partition("=")
        if name == "skip":
            skip |= {one.strip() for one in value.split(",")}
        elif name == "experimental":
            experimental |= {one.strip() for one in value.split(",")}
        elif name == "error":
            strict = value.strip().lower() in ("true", "1")
    return Settings(skip, strict, experimental)


def check(plan: Plan, request: Request | None = None, ignore: Ignore | None = None) -> list[str]:
    """Return the warnings as lines for people, in the order of the file.  ignore: what the context leaves out.

    Raises InvalidRequest with them all when they are to be errors.
    """
    request = request or Request()
    found = warnings(plan, request, ignore or Ignore(()))
    refuse(settings(plan, request), found)
    return [_told(one) for one in found] or ["Check complete, no warnings found."]


def warnings(plan: Plan, request: Request, ignore: Ignore) -> list[Remark]:
    """Return what the file is to be warned of, in its order."""
    wanted = settings(plan, request)
    every = [*remarks(plan, request), *_ignored(plan, ignore)]
    return sorted(filter(wanted.wants, every), key=lambda one: one.line)


def refuse(wanted: Settings, found: list[Remark]) -> None:
    """Raise InvalidRequest when there are warnings and they are to be errors."""
    if wanted.strict and found:
        raise InvalidRequest("lint violation found for rules:\n" + "\n".join(map(_told, found)))


def _told(one: Remark) -> str:
    return f"{one.rule} - {URL}/{_kebab(one.rule)}/\n  line {one.line}: {one.message}"


def base_platform(line: int, base: str, found: str, wanted: str) -> Remark:
    """Return the warning of a base image that is for another machine; it is known only when the image is here."""
    text = f'Base image {base} was pulled with platform "{found}", expected "{wanted}" for current build'
    return Remark("InvalidBaseImagePlatform", line, text)


def _ignored(plan: Plan, ignore: Ignore) -> Iterator[Remark]:
    """Sources of the context that are not in it."""
    for stage in plan.dockerfile.stages:
        for one in stage.steps:
            if not isinstance(one, i.Copy) or one.source_from:
                continue
            for source in one.sources:
                path = clean(source)
                if path and not is_remote(source) and not any(sign in path for sign in "*?[$") and ignore.excludes(path):
                    text = f"Attempting to {one.keyword.capitalize()} file {source!r} that is excluded by .dockerignore"
                    yield Remark("CopyIgnoredFile", one.line.first, text)


def _kebab(rule: str) -> str:
    return "".join(f"-{sign.lower()}" if sign.isupper() and number else sign.lower() for number, sign in enumerate(rule))


def remarks(plan: Plan, request: Request) -> Iterator[Remark]:
    """Yield every warning."""
    file = plan.dockerfile
    yield from file.remarks
    yield from _casing(file)
    yield from _descriptions(file)
    yield from _defaults(file, request)
    seen: dict[str, int] = {}
    for stage in file.stages:
        yield from _stage_names(stage, seen)
        yield from _from(stage)
        yield from _stage(stage)
    declared = {name for one in file.arguments for name, _ in one.pairs}
    for stage in file.stages:
        for name in _names_in(stage.start.base):
            if name not in declared and name not in plan.outer:
                hint = suggestion(name, declared)
                yield Remark("UndefinedArgInFrom", stage.start.line.first, f"FROM argument '{name}' is not declared{hint}")
    yield from _undefined(plan, request)


def _defaults(file: i.Dockerfile, request: Request) -> Iterator[Remark]:
    """Base names that cannot be, when nobody gives the global arguments other values than their defaults."""
    scope = Scope(file.escape)
    scope.args.update(platform_arguments(request, ""))
    for one in file.arguments:
        with suppress(InvalidRequest):
            scope.declare(one, Request(), {})
    names = {stage.start.name for stage in file.stages} - {""}
    for stage in file.stages:
        base = stage.start.base
        try:
            text = scope.text(stage.start, base)
            if "$" in base and text.lower() not in names:
                reference.parse(text)
        except InvalidRequest:
            text = f"Default value for ARG {base} results in empty or invalid base image name"
            yield Remark("InvalidDefaultArgInFrom", stage.start.line.first, text)


def _names_in(text: str) -> list[str]:
    found = []
    for piece in text.split("$")[1:]:
        bare = piece.lstrip("{")
        end = next((n for n, sign in enumerate(bare) if not (sign.isalnum() or sign == "_")), len(bare))
        if (end and not piece.startswith("{")) or bare[end : end + 1] == "}":
            found.append(bare[:end])
    return found


def _descriptions(file: i.Dockerfile) -> Iterator[Remark]:
    """A comment right above a named stage or an ARG describes it, and begins with its name."""
    described: list[tuple[i.Instruction, list[str]]] = [(one, [name for name, _ in one.pairs]) for one in file.arguments]
    for stage in file.stages:
        if stage.start.name:
            described.append((stage.start, [stage.start.name]))
        described += [(one, [name for name, _ in one.pairs]) for one in stage.steps if isinstance(one, i.Arg)]
    for one, names in described:
        word = one.line.comment.split(" ")[0]
        if word and word not in names and word.partition("=")[0].lower() not in DIRECTIVES:
            shown = names[0] if len(names) == 1 else "<arg_key>"
            text = f"Comment for {one.keyword} should follow the format: `# {shown} <description>`"
            yield Remark("InvalidDefinitionDescription", one.line.first, text)


def _casing(file: i.Dockerfile) -> Iterator[Remark]:
    upper = sum(line.keyword.isupper() for line in file.lines)
    majority = str.upper if upper * 2 >= len(file.lines) else str.lower
    word = "uppercase" if majority is str.upper else "lowercase"
    for line in file.lines:
        if line.keyword != majority(line.keyword):
            text = f"Command '{line.keyword}' should match the case of the command majority ({word})"
            yield Remark("ConsistentInstructionCasing", line.first, text)


def _stage_names(stage: i.Stage, seen: dict[str, int]) -> Iterator[Remark]:
    words = stage.start.line.rest.split()
    line = stage.start.line.first
    if not stage.start.name:
        return
    if words[-1] != words[-1].lower():
        yield Remark("StageNameCasing", line, f"Stage name '{words[-1]}' should be lowercase")
    if words[-2].isupper() != stage.start.line.keyword.isupper():
        yield Remark("FromAsCasing", line, f"'{words[-2]}' and '{stage.start.line.keyword}' keywords' casing do not match")
    if stage.start.name in seen:
        yield Remark("DuplicateStageName", line, f"Duplicate stage name '{stage.start.name}', stage names should be unique")
    if stage.start.name in ("scratch", "context"):
        yield Remark("ReservedStageName", line, f"Stage name should not use the same name as reserved stage '{stage.start.name}'")
    seen[stage.start.name] = line


def _from(stage: i.Stage) -> Iterator[Remark]:
    platform, line = stage.start.platform, stage.start.line.first
    if platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
        yield Remark("RedundantTargetPlatform", line, f"Setting platform to predefined {platform} in FROM is redundant")
    elif platform and "$" not in platform:
        text = f'FROM --platform flag should not use constant value "{platform}"'
        yield Remark("FromPlatformFlagConstDisallowed", line, text)


def _stage(stage: i.Stage) -> Iterator[Remark]:
    shell = absolute = False
    last: dict[str, int] = {}
    for one in stage.steps:
        line = one.line.first
        shell = shell or isinstance(one, i.Shell)
        if isinstance(one, i.Command) and one.shell and not shell:
            text = f"JSON arguments recommended for {one.keyword} to prevent unintended behavior related to OS signals"
            yield Remark("JSONArgsRecommended", line, text)
        if one.keyword in _SINGLE:
            if one.keyword in last:
                text = f"Multiple {one.keyword} instructions should not be used in the same stage"
                yield Remark("MultipleInstructionsDisallowed", last[one.keyword], text)
            last[one.keyword] = line
        if one.keyword == "MAINTAINER":
            yield Remark("MaintainerDeprecated", line, "Maintainer instruction is deprecated in favor of using label")
        if isinstance(one, i.Value) and one.keyword == "WORKDIR":
            if not absolute and not one.value.startswith(("/", "$")):
                text = f"Relative workdir {one.value!r} can have unexpected results if the base image changes"
                yield Remark("WorkdirRelativePath", line, text)
            absolute = absolute or posixpath.isabs(one.value)
        if isinstance(one, i.Pairs) and one.legacy:
            text = f'"{one.keyword} key=value" should be used instead of legacy "{one.keyword} key value" format'
            yield Remark("LegacyKeyValueFormat", line, text)
        if isinstance(one, i.Words) and one.keyword == "EXPOSE":
            yield from _expose(one)
        yield from _secrets(one)


def _expose(one: i.Words) -> Iterator[Remark]:
    for word in one.words:
        port, _, protocol = word.partition("/")
        if protocol != protocol.lower():
            yield Remark("ExposeProtoCasing", one.line.first, f"Defined protocol '{word}' in EXPOSE should be lowercase")
        if ":" in port:
            text = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
            yield Remark("ExposeInvalidFormat", one.line.first, text)


def _secrets(one: i.Instruction) -> Iterator[Remark]:
    if not (isinstance(one, i.Arg) or (isinstance(one, i.Pairs) and one.keyword == "ENV")):
        return
    for name, _ in one.pairs:
        words = set(name.lower().split("_"))
        if words & _SECRET and not words & _INNOCENT:
            text = f'Do not use ARG or ENV instructions for sensitive data ({one.keyword} "{name}")'
            yield Remark("SecretsUsedInArgOrEnv", one.line.first, text)


def _undefined(plan: Plan, request: Request) -> Iterator[Remark]:
    """Evaluate the needed stages over bases without settings: variables that only the base sets are not reported."""
    found: list[Remark] = []
    done: dict[int, Base] = {}

    def missing(known: bool) -> Callable[[i.Instruction, str], None]:
        def told(one: i.Instruction, name: str) -> None:
            if known:
                found.append(Remark("UndefinedVar", one.line.first, f"Usage of undefined variable '${name}'"))

        return told

    known: dict[int, bool] = {}
    for one in plan.stages:
        base = done.get(one.parent, Base()) if one.parent is not None else Base()
        known[one.index] = one.base == "scratch" or (one.parent in done and known.get(one.parent, False))
        try:
            made = evaluate(
                one.stage, base, plan.outer, request, escape=plan.dockerfile.escape, on_missing=missing(known[one.index])
            )
        except InvalidRequest:
            if known[one.index]:
                raise
            continue  # it may need what only the base image has
        done[one.index] = Base(made.settings, made.author, made.arguments)
    yield from found
