"""Shapes of the endpoints that look into a container's files (engine-api 4.10, 3.2 changes and commit)."""

from __future__ import annotations

from sampan.wire.shape import Shape


class PathStat(Shape, frozen=True, kw_only=True, rename={"link_target": "linkTarget"}):
    """What a path in a container is; keys in camel case, mode as Go's os.FileMode."""

    name: str
    size: int
    mode: int
    mtime: str
    link_target: str = ""


class Change(Shape, frozen=True, kw_only=True):
    """kind: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


class CommitOptions(Shape, frozen=True, kw_only=True):
    """The query of a commit."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: list[str] = []


class Committed(Shape, frozen=True, kw_only=True):
    id: str
