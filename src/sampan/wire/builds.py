"""Builds that were (GET /sampan/builds): Sampan's own."""

from __future__ import annotations

from sampan.wire.shape import Shape


class BuildStep(Shape, frozen=True, kw_only=True):
    """A step.  duration: seconds, null when it did not end; outcome: "cached", "done" or ""; why: why it was not cached."""

    text: str
    duration: float | None = None
    outcome: str = ""
    why: str = ""


class BuildSummary(Shape, frozen=True, kw_only=True):
    """A build.  started: RFC 3339; duration: seconds, null while it runs; steps: how many, and how many were cached.

    outcome: running, done, failed, cancelled, or interrupted: the daemon was killed meanwhile.
    """

    id: str
    name: str
    target: str
    started: str
    duration: float | None
    outcome: str
    error: str
    image: str
    steps: int
    cached: int


class BuildDetails(Shape, frozen=True, kw_only=True):
    """A build with its steps."""

    summary: BuildSummary
    steps: list[BuildStep]
