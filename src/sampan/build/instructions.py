"""Every instruction of the language as a typed value, before any variable is expanded."""

from __future__ import annotations

from dataclasses import dataclass, field

from sampan.build.lines import Heredoc, Logical, Remark


@dataclass(frozen=True)
class Instruction:
    """What all share: the line it came from."""

    line: Logical = field(repr=False)

    @property
    def keyword(self) -> str:
        return self.line.keyword.upper()

    @property
    def text(self) -> str:
        """The instruction as it is shown: the keyword in capitals and the rest."""
        return f"{self.keyword} {self.line.rest}".rstrip()


@dataclass(frozen=True)
class From(Instruction):
    """FROM.  name: the stage's, lower case, or ""; constants of spec section 3."""

    base: str
    platform: str = ""
    name: str = ""


@dataclass(frozen=True)
class Arg(Instruction):
    """ARG.  A default of None: declared without one."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Pairs(Instruction):
    """ENV and LABEL."""

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True)
class Command(Instruction):
    """CMD and ENTRYPOINT.  shell: `words` is one string for the shell."""

    words: tuple[str, ...]
    shell: bool


@dataclass(frozen=True)
class Mount:
    """RUN --mount.  Texts are unexpanded; None: not given."""

    type: str = "bind"
    target: str = ""
    source: str = ""
    source_from: str = ""
    identity: str = ""
    readonly: bool | None = None
    sharing: str = "shared"
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    required: bool = False
    env: str = ""


@dataclass(frozen=True)
class Run(Instruction):
    """RUN.  network: default, none or host; security: sandbox or insecure."""

    words: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copy(Instruction):
    """COPY and ADD.  sources and flags are unexpanded; heredocs are sources too."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    source_from: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    keep_git_dir: bool = False
    checksum: str = ""
    unpack: bool | None = None

    @property
    def adds(self) -> bool:
        return self.keyword == "ADD"


@dataclass(frozen=True)
class Words(Instruction):
    """EXPOSE and VOLUME.  exact: a JSON list."""

    words: tuple[str, ...]
    exact: bool = False


@dataclass(frozen=True)
class Value(Instruction):
    """USER, WORKDIR, STOPSIGNAL and MAINTAINER: one argument."""

    value: str


@dataclass(frozen=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True)
class Healthcheck(Instruction):
    """HEALTHCHECK.  test: as it is stored, but with a shell command still bare; durations: nanoseconds."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Onbuild(Instruction):
    """ONBUILD.  trigger: the text to keep, here-documents included."""

    trigger: str


@dataclass(frozen=True)
class Stage:
    """A FROM and what follows it.  index counts from 0."""

    index: int
    start: From
    steps: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.start.name or str(self.index)


@dataclass(frozen=True)
class Dockerfile:
    """A parsed file.  arguments: the ARGs before the first FROM; remarks: what was seen on the way and is not an error."""

    directives: dict[str, str]
    escape: str
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    lines: tuple[Logical, ...]
    remarks: tuple[Remark, ...] = ()
