"""What an evaluated stage is: steps as data, everything expanded, nothing done yet."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.build.instructions import Instruction, Mount
from sampan.oci.image import Settings


@dataclass(frozen=True)
class RunOp:
    """A command to run.  environment: ENV and ARG values as it sees them; keyed: those that count for the cache.

    files: what has to be in the container while it runs: (path, content), mode 0755.
    """

    argv: tuple[str, ...]
    environment: tuple[str, ...]
    keyed: tuple[str, ...]
    user: str
    folder: str
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    files: tuple[tuple[str, str], ...] = ()
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class CopyOp:
    """Files to put at `destination`, an absolute path; a trailing slash makes it a folder.

    inline: here-documents as (name, content).  source_from: "" for the build context.  adds: ADD's extras apply.
    """

    sources: tuple[str, ...]
    destination: str
    inline: tuple[tuple[str, str], ...] = ()
    source_from: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    adds: bool = False
    keep_git_dir: bool = False
    checksum: str = ""
    unpack: bool | None = None


@dataclass(frozen=True)
class FolderOp:
    """WORKDIR: the folder is made when it is missing."""

    path: str
    user: str = ""


Op = RunOp | CopyOp | FolderOp


@dataclass(frozen=True)
class Step:
    """One instruction, evaluated.

    text: as it is announced; created_by: the history entry; settings: the configuration after it; op: None for what only
    changes the configuration; trigger: it came from an ONBUILD of the base image.
    """

    instruction: Instruction
    text: str
    created_by: str
    settings: Settings
    op: Op | None = None
    author: str = ""
    trigger: bool = False
