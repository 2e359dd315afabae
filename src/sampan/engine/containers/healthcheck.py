"""What a health check is: the request over the image's, judged, and with defaults (engine-api 4.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import UNSET, UnsetType, structs

from sampan.errors import InvalidRequest
from sampan.wire import containers as c

SECOND = 10**9
_LEAST = 10**6  # nanoseconds
_DURATIONS = ("interval", "timeout", "start_period", "start_interval")
_NAMES = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod", "start_interval": "StartInterval"}
_KEPT = 5
Config = c.HealthConfig | UnsetType | None


@dataclass(frozen=True)
class Check:
    """A check as it is run.  Durations are seconds."""

    command: tuple[str, ...]
    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int


@dataclass
class Health:
    """How a running container is; `log` holds the last five results, oldest first."""

    status: str = "starting"
    streak: int = 0
    log: list[c.HealthResult] = field(default_factory=list)

    def note(self, result: c.HealthResult, *, retries: int, in_start_period: bool) -> bool:
        """Take a result in; return whether the status changed."""
        before = self.status
        self.log = [*self.log[1 - _KEPT :], result]
        if result.exit_code == 0:
            self.status, self.streak = "healthy", 0
        elif not (in_start_period and self.status == "starting"):
            self.streak += 1
            if self.streak >= retries:
                self.status = "unhealthy"
        return self.status != before

    def shape(self) -> c.Health:
        """Return State.Health of inspect."""
        return c.Health(status=self.status, failing_streak=self.streak, log=list(self.log) or None)


def validate(config: Config) -> None:
    """Raises InvalidRequest for a check that makes no sense."""
    if config is UNSET or config is None:
        return
    assert isinstance(config, c.HealthConfig)
    for name in _DURATIONS:
        value = getattr(config, name)
        if value and value < _LEAST:
            raise InvalidRequest(f"{_NAMES[name]} in Healthcheck cannot be less than 1ms")
    if config.retries < 0:
        raise InvalidRequest("Retries in Healthcheck cannot be negative")
    if config.test:
        kind, *words = config.test
        if kind not in ("NONE", "CMD", "CMD-SHELL"):
            raise InvalidRequest(f"Unknown healthcheck type '{kind[:32]}' (expected 'CMD', 'CMD-SHELL' or 'NONE')")
        if kind != "NONE" and (not words or not words[0]):
            raise InvalidRequest(f"Healthcheck {kind} needs a command")
        if any("\0" in word for word in words):
            raise InvalidRequest("a word of the healthcheck's command holds a NUL")


def merge(own: Config, image: Config) -> Config:
    """Return the container's check: what the request leaves out is the image's."""
    if not isinstance(own, c.HealthConfig):
        return image
    if not isinstance(image, c.HealthConfig):
        return own
    taken = {name: getattr(own, name) or getattr(image, name) for name in (*_DURATIONS, "retries")}
    return structs.replace(own, test=own.test or image.test, **taken)


def check(config: c.ContainerConfig) -> Check | None:
    """Return the check of a container's configuration, None when it has none or switched it off."""
    wanted = config.healthcheck
    if not isinstance(wanted, c.HealthConfig) or not wanted.test or wanted.test[0] == "NONE":
        return None
    kind, *words = wanted.test
    if not words:
        return None
    if kind == "CMD-SHELL":
        shell = config.shell if isinstance(config.shell, list) and config.shell else ["/bin/sh", "-c"]
        words = [*shell, words[0]]
    return Check(
        command=tuple(words), interval=(wanted.interval or 30 * SECOND) / SECOND, timeout=(wanted.timeout or 30 * SECOND) / SECOND,
        start_period=wanted.start_period / SECOND, start_interval=(wanted.start_interval or 5 * SECOND) / SECOND,
        retries=wanted.retries or 3,
    )  # fmt: skip
