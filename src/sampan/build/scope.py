"""Which variables an instruction sees: ENV, ARG, platform and proxy arguments (spec: dockerfile.md 2 and 3, ARG)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sampan.build.expand import Expanded, ExpansionError, expand
from sampan.build.instructions import Arg, Dockerfile, Instruction
from sampan.errors import InvalidRequest
from sampan.oci import reference
from sampan.oci.reference import Reference

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
PROXIES = frozenset(_PROXIES) | frozenset(name.upper() for name in _PROXIES)
_CONTROL = frozenset((
    "BUILDKIT_BUILD_NAME", "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_CONTEXT_KEEP_GIT_DIR", "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_SYNTAX", "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE", "SOURCE_DATE_EPOCH",
))  # fmt: skip
_PLATFORM = ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")


@dataclass(frozen=True)
class Request:
    """What the builder of the image asked for.  arguments: None for a name without a value; contexts: their names.

    strict_platform: `platform` was asked for, and is not only this machine's.
    """

    target: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = "linux/amd64"
    build_platform: str = "linux/amd64"
    contexts: frozenset[str] = frozenset()
    strict_platform: bool = False

    def named(self, name: str) -> str:
        """Return the named context that FROM or --from `name` means, "" for none: the same word, or the same image name."""
        if name in self.contexts or not self.contexts or name == "scratch":
            return name if name in self.contexts else ""
        wanted = _reference(name)
        return next((one for one in sorted(self.contexts) if wanted is not None and _reference(one) == wanted), "")


def _reference(name: str) -> Reference | None:
    try:
        return reference.parse(name).tagged()
    except InvalidRequest:
        return None


def check_context(name: str) -> None:
    """Raise InvalidRequest unless `name` can be that of a context."""
    if name == "scratch" or _reference(name) is None:
        raise InvalidRequest(f"invalid name of a build context: {name[:100]!r}")


def platform_arguments(request: Request, stage: str) -> dict[str, str]:
    """Return the TARGET* and BUILD* arguments."""
    found = {"TARGETSTAGE": stage}
    for prefix, platform in (("TARGET", request.platform), ("BUILD", request.build_platform)):
        parts = [*platform.split("/"), "", ""]
        values = (platform, parts[0], "", parts[1], parts[2])
        found |= {prefix + name: value for name, value in zip(_PLATFORM, values, strict=True)}
    return found


def consumable(dockerfile: Dockerfile) -> set[str]:
    """Return the names of build arguments that the file takes."""
    declared = [*dockerfile.arguments]
    for stage in dockerfile.stages:
        declared += [one for one in stage.steps if isinstance(one, Arg)]
    names = {name.strip("\"'") for one in declared for name, _ in one.pairs}
    return names | PROXIES | _CONTROL


def given(request: Request) -> dict[str, str]:
    """Return the build arguments that have a value."""
    return {name: value for name, value in request.arguments.items() if value is not None}


def keep_git(request: Request) -> bool:
    """Whether a context that is a repository keeps its .git."""
    return (request.arguments.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR") or "").lower() in ("1", "true")


class Scope:
    """The variables of one stage while its instructions are evaluated.

    env: ENV, which wins over args.  on_missing: told of each (instruction, name) that was used and is not set.
    """

    def __init__(
        self, escape: str, env: Iterable[str] = (), on_missing: Callable[[Instruction, str], None] = lambda _, __: None
    ) -> None:
        self._escape = escape
        self.env: dict[str, str] = {}
        for entry in env:
            name, _, value = entry.partition("=")
            self.env[name] = value
        self.args: dict[str, str | None] = {}
        self._on_missing = on_missing

    def values(self) -> dict[str, str]:
        return {**{name: value for name, value in self.args.items() if value is not None}, **self.env}

    def _expanded(self, instruction: Instruction, text: str, *, quotes: bool = True) -> Expanded:
        try:
            found = expand(text, self.values(), self._escape if quotes else "\\", quotes=quotes)
        except ExpansionError as error:
            at = instruction.line.text.find(text, instruction.line.offset) if text else -1
            raise instruction.line.error(error.reason, at + error.offset if at >= 0 else None) from None
        for name in sorted(found.missing - set(self.args)):
            self._on_missing(instruction, name)
        return found

    def text(self, instruction: Instruction, text: str) -> str:
        """Return the word expanded.  Raises DockerfileError."""
        return self._expanded(instruction, text).text

    def words(self, instruction: Instruction, text: str) -> tuple[str, ...]:
        """Return the words it expands to: blanks in unquoted values separate."""
        return self._expanded(instruction, text).words

    def document(self, instruction: Instruction, content: str) -> str:
        """Return a here-document expanded: quotes are signs like others in it."""
        return self._expanded(instruction, content, quotes=False).text

    def declare(self, instruction: Arg, request: Request, outer: Mapping[str, str | None]) -> list[tuple[str, str | None]]:
        """Take an ARG: the build argument, else its default, else the global value.  Returns what was declared."""
        provided = given(request)
        made = []
        for raw_name, default in instruction.pairs:
            name = self.text(instruction, raw_name)
            value = None if default is None else self.text(instruction, default)
            if name in provided:
                value = provided[name]
            elif default is None:
                value = outer.get(name)
            made.append((name, value))
        self.args.update(made)
        return made


def checked_arguments(arguments: Mapping[str, str | None]) -> None:
    """Raises InvalidRequest for names and values that can be no environment."""
    for name, value in arguments.items():
        if not name or "=" in name or "\0" in name or "\0" in (value or "") or len(name) > 4096:
            raise InvalidRequest(f"invalid build argument {name[:80]!r}")
