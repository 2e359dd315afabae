"""Health checks (engine-api 4.4)."""

from __future__ import annotations

from sampan.wire.shape import Shape


class HealthConfig(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """Durations are nanoseconds; zero means inherit."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class HealthResult(Shape, frozen=True, kw_only=True):
    """One probe.  exit_code -1: it did not come to an end of its own."""

    start: str
    end: str
    exit_code: int = 0
    output: str = ""


class Health(Shape, frozen=True, kw_only=True):
    """State.Health (4.4)."""

    status: str
    failing_streak: int = 0
    log: list[HealthResult] | None = None
