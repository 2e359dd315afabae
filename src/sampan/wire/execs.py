"""Execs (engine-api 4.8)."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from sampan.wire.shape import Shape, Strings


class ExecCreate(Shape, frozen=True, kw_only=True):
    """4.8, the body."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    privileged: bool = False
    detach_keys: str = ""
    user: str = ""
    working_dir: str = ""
    env: Strings = None
    cmd: list[str] | None = None
    console_size: list[int] | None = None


class ExecStart(Shape, frozen=True, kw_only=True):
    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


class ExecCreated(Shape, frozen=True, kw_only=True):
    id: str


class ExecProcess(Shape, frozen=True, kw_only=True):
    tty: bool = field(name="tty")
    entrypoint: str = field(name="entrypoint")
    arguments: list[str] = field(name="arguments")
    privileged: bool = field(name="privileged", default=False)
    user: str | UnsetType = field(name="user", default=UNSET)


class ExecInspect(Shape, frozen=True, kw_only=True):
    id: str = field(name="ID")
    running: bool
    exit_code: int | None
    process_config: ExecProcess
    open_stdin: bool
    open_stderr: bool
    open_stdout: bool
    can_remove: bool = False
    container_id: str = field(name="ContainerID")
    detach_keys: str | None = ""
    pid: int = 0
