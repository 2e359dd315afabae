"""A stage's instructions, evaluated over the base image's configuration: steps as data (spec: dockerfile.md 3 and 4)."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from sampan.build import instructions as i
from sampan.build import metadata
from sampan.build.expand import split_words
from sampan.build.parse import trigger
from sampan.build.remote import is_remote
from sampan.build.scope import PROXIES, Request, Scope, given
from sampan.build.source import DockerfileError
from sampan.build.steps import CopyOp, FolderOp, Op, RunOp, Step
from sampan.oci.image import Settings

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHELL = ["/bin/sh", "-c"]
TRIGGER = "ONBUILD of the base image"  # what an error's line stands in


@dataclass(frozen=True)
class Base:
    """What a stage begins with: the image's settings; arguments: those of the stage it is made from."""

    settings: Settings = field(default_factory=Settings)
    author: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """A stage.  settings: the final configuration; arguments: what a stage made from it inherits."""

    steps: tuple[Step, ...]
    settings: Settings
    author: str
    arguments: Mapping[str, str | None]


def evaluate(
    stage: i.Stage, base: Base, outer: Mapping[str, str | None], request: Request, *, escape: str = "\\",
    last: bool = False, on_missing: Callable[[i.Instruction, str], None] = lambda _, __: None,
) -> Evaluated:  # fmt: skip
    """Return the stage's steps.  outer: global and platform arguments; last: it is the target, which bears the labels.

    Raises DockerfileError.
    """
    one = _Stage(base, outer, request, escape, on_missing)
    triggers = base.settings.on_build or ()
    one.set(on_build=None)
    if not any(entry.partition("=")[0] == "PATH" for entry in one.settings.env or ()):
        one.set(env=[*(one.settings.env or ()), PATH])
        one.scope.env["PATH"] = PATH.partition("=")[2]
    for text in triggers:
        try:
            one.step(trigger(text), trigger=True)
        except DockerfileError as error:
            raise error.named(TRIGGER) from None
    for instruction in stage.steps:
        one.step(instruction)
    if last and request.labels:
        one.label(stage.start, sorted(request.labels.items()))
    return Evaluated(tuple(one.steps), one.settings, one.author, dict(one.scope.args))


class _Stage:
    def __init__(
        self, base: Base, outer: Mapping[str, str | None], request: Request, escape: str,
        on_missing: Callable[[i.Instruction, str], None],
    ) -> None:  # fmt: skip
        self.settings = base.settings
        self.author = base.author
        self.scope = Scope(escape, base.settings.env or (), on_missing)
        self.scope.args.update(base.arguments)
        self.steps: list[Step] = []
        self._outer = outer
        self._request = request
        self._own_command = False

    def set(self, **changed: Any) -> None:
        self.settings = msgspec.structs.replace(self.settings, **changed)

    def step(self, instruction: i.Instruction, *, trigger: bool = False) -> None:
        """Evaluate one instruction."""
        created, op = self._evaluate(instruction)
        self.steps.append(Step(instruction, instruction.text, created, self.settings, op, self.author, trigger))

    def label(self, start: i.Instruction, pairs: list[tuple[str, str]]) -> None:
        """The labels that were asked for, as a last step."""
        self.set(labels={**(self.settings.labels or {}), **dict(pairs)})
        text = "LABEL " + " ".join(f"{name}={value}" for name, value in pairs)
        self.steps.append(Step(start, text, text, self.settings, None, self.author))

    def _evaluate(self, one: i.Instruction) -> tuple[str, Op | None]:
        """Return the history entry and what there is to do; the settings are changed."""
        text, words = self.scope.text, self.scope.words
        if isinstance(one, i.Run):
            return self._run(one)
        if isinstance(one, i.Copy):
            return self._copy(one)
        if isinstance(one, i.Arg):
            made = self.scope.declare(one, self._request, self._outer)
            return "ARG " + " ".join(name if value is None else f"{name}={value}" for name, value in made), None
        if isinstance(one, i.Command):
            return self._command(one), None
        if isinstance(one, i.Shell):
            self.set(shell=list(one.words))
            return f"SHELL {metadata.listed(one.words)}", None
        if isinstance(one, i.Healthcheck):
            self.set(healthcheck=metadata.health(one))
            return one.text, None
        if isinstance(one, i.Onbuild):
            self.set(on_build=[*(self.settings.on_build or ()), one.trigger])
            return one.text, None
        if isinstance(one, i.Pairs):
            return self._pairs(one), None
        if isinstance(one, i.Words):
            if one.keyword == "EXPOSE":
                found = metadata.ports(one, [word for part in one.words for word in words(one, part)])
                self.set(exposed_ports={**(self.settings.exposed_ports or {}), **found})
                return f"EXPOSE {metadata.bracketed(found)}", None
            volumes = metadata.volumes(one, [text(one, word) for word in one.words])
            self.set(volumes={**(self.settings.volumes or {}), **{path: {} for path in volumes}})
            return f"VOLUME {metadata.listed(volumes)}", None
        assert isinstance(one, i.Value), one
        return self._value(one, text(one, one.value))

    def _value(self, one: i.Value, value: str) -> tuple[str, Op | None]:
        keyword = one.keyword
        if keyword == "USER":
            self.set(user=metadata.user(one, value))
        elif keyword == "STOPSIGNAL":
            self.set(stop_signal=metadata.stop_signal(one, value))
        elif keyword == "MAINTAINER":
            self.author = value
        else:
            if not value:
                raise one.line.error("WORKDIR requires exactly one argument: it is empty after expansion")
            folder = absolute(self.settings.working_dir, value)
            self.set(working_dir=folder)
            return f"WORKDIR {folder}", FolderOp(folder, self.settings.user)
        return f"{keyword} {value}", None

    def _pairs(self, one: i.Pairs) -> str:
        pairs = [(self.scope.text(one, name), self.scope.text(one, value)) for name, value in one.pairs]
        if any(not name for name, _ in pairs):
            raise one.line.error(f"{one.keyword} names can not be blank")
        if one.keyword == "LABEL":
            self.set(labels={**(self.settings.labels or {}), **dict(pairs)})
        else:
            env = {entry.partition("=")[0]: entry for entry in self.settings.env or ()}
            env |= {name: f"{name}={value}" for name, value in pairs}
            self.set(env=list(env.values()))
            self.scope.env.update(pairs)
        return f"{one.keyword} " + " ".join(f"{name}={value}" for name, value in pairs)

    def _shell(self) -> list[str]:
        return self.settings.shell or SHELL

    def _command(self, one: i.Command) -> str:
        words = [*(self._shell() if one.shell else ()), *one.words]
        if one.keyword == "CMD":
            self.set(cmd=words or None)
            self._own_command = True
        else:
            self.set(entrypoint=words or None)
            if not self._own_command:
                self.set(cmd=None)
        return f"{one.keyword} {metadata.listed(words)}"

    # What changes files.

    def _run(self, one: i.Run) -> tuple[str, RunOp]:
        files: tuple[tuple[str, str], ...] = ()
        if not one.shell:
            argv = list(one.words)
        elif len(one.heredocs) == 1 and _only_heredoc(one.words[0]):
            document = one.heredocs[0]
            if document.content.startswith("#!"):
                path = f"/dev/pipes/{document.name}"
                files, argv = ((path, document.content),), [path]
            else:
                argv = [*self._shell(), document.content]
        else:
            documents = "".join(f"\n{document.content}{document.name}" for document in one.heredocs)
            argv = [*self._shell(), one.words[0] + documents]
        arguments = {name: value for name, value in self.scope.args.items() if value is not None and name not in self.scope.env}
        proxies = {n: v for n, v in given(self._request).items() if n in PROXIES and n not in arguments and n not in self.scope.env}
        keyed = [*(self.settings.env or ()), *(f"{name}={value}" for name, value in sorted(arguments.items()))]
        environment = [*keyed, *(f"{name}={value}" for name, value in sorted(proxies.items()))]
        mounts = tuple(self._mount(one, mount) for mount in one.mounts)
        op = RunOp(
            tuple(argv), tuple(environment), tuple(keyed), self.settings.user, self.settings.working_dir or "/", mounts,
            one.network, one.security, files, one.devices,
        )  # fmt: skip
        declared = [f"{name}={value}" for name, value in sorted(arguments.items())]
        shown = f"|{len(declared)} {' '.join(declared)} " if declared else ""
        return f"RUN {shown}{' '.join(argv)}", op

    def _mount(self, one: i.Run, mount: i.Mount) -> i.Mount:
        def value(text: str) -> str:
            return self.scope.text(one, text) if text else ""

        target = value(mount.target)
        if target:
            target = absolute(self.settings.working_dir, target)
            if target == "/" and mount.type != "secret":
                raise one.line.error(f"invalid mount target {mount.target!r}: the root cannot be mounted over")
        return replace(
            mount, target=target, source=value(mount.source), identity=value(mount.identity), env=value(mount.env)
        )  # fmt: skip

    def _copy(self, one: i.Copy) -> tuple[str, CopyOp]:
        text = self.scope.text
        sources = [text(one, source) for source in one.sources]
        inline = tuple(
            (document.name, self.scope.document(one, document.content) if document.expand else document.content)
            for document in one.heredocs
        )
        destination = text(one, one.destination)
        if not destination:
            raise one.line.error(f"{one.keyword} needs a destination: it is empty after expansion")
        if len(sources) + len(inline) > 1 and not (destination.endswith("/") or destination in (".", "..")):
            raise one.line.error(
                f"When using {one.keyword} with more than one source file, the destination must be a directory and end with a /"
            )
        checksum = metadata.checksum(one, text(one, one.checksum))
        if checksum and not (len(sources) == 1 and not inline and is_remote(sources[0])):
            at = one.line.text.find("--checksum")
            reason = "--checksum is for one source from elsewhere: a URL or a git repository"
            raise one.line.error(reason, at if at >= 0 else None)
        folder = destination.endswith("/") or posixpath.basename(destination) in (".", "..")
        target = absolute(self.settings.working_dir, destination)
        op = CopyOp(
            tuple(sources), target + ("/" if folder and target != "/" else ""), inline, text(one, one.source_from),
            text(one, one.chown), metadata.mode(one, text(one, one.chmod)), one.link, one.parents,
            tuple(text(one, pattern) for pattern in one.exclude), one.adds, one.keep_git_dir,
            checksum, one.unpack,
        )  # fmt: skip
        flags = f" --from={op.source_from}" if op.source_from else ""
        names = [*sources, *(f"<<{name}" for name, _ in inline)]
        return f"{one.keyword}{flags} {' '.join(names)} {destination}", op


def absolute(folder: str, path: str) -> str:
    """Return a path as it is from the root of the image: joined to the working folder, without `..`."""
    joined = path if path.startswith("/") else f"{folder or '/'}/{path}"
    parts: list[str] = []
    for part in joined.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _only_heredoc(text: str) -> bool:
    """Whether a RUN's arguments are one here-document and nothing else."""
    return len(split_words(text)) == 1 and text.lstrip("0123456789").startswith("<<")
