"""Health checks: what a request means over its image, and what a result does to the state."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from sampan.engine.containers import healthcheck as h
from sampan.errors import InvalidRequest
from sampan.wire import containers as c

S = 10**9


def result(code: int) -> c.HealthResult:
    return c.HealthResult(start="", end="", exit_code=code, output=str(code))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (c.HealthConfig(interval=999_999), "Interval in Healthcheck cannot be less than 1ms"),
        (c.HealthConfig(timeout=-1), "Timeout in Healthcheck"),
        (c.HealthConfig(start_period=5), "StartPeriod in Healthcheck"),
        (c.HealthConfig(start_interval=5), "StartInterval in Healthcheck"),
        (c.HealthConfig(retries=-1), "Retries in Healthcheck cannot be negative"),
        (c.HealthConfig(test=["SHELL", "x"]), "Unknown healthcheck type 'SHELL'"),
        (c.HealthConfig(test=["CMD"]), "needs a command"),
        (c.HealthConfig(test=["CMD-SHELL", ""]), "needs a command"),
        (c.HealthConfig(test=["CMD", "a\0b"]), "NUL"),
    ],
)
def test_a_check_that_makes_no_sense_is_refused_by_name(config: c.HealthConfig, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        h.validate(config)


def test_what_the_request_leaves_out_is_the_images() -> None:
    image = c.HealthConfig(test=["CMD", "image"], interval=7 * S, timeout=8 * S, retries=9)

    merged = h.merge(c.HealthConfig(interval=1 * S), image)
    assert merged == c.HealthConfig(test=["CMD", "image"], interval=1 * S, timeout=8 * S, retries=9)
    assert h.merge(UNSET, image) == image
    assert h.merge(c.HealthConfig(test=["NONE"]), image) == c.HealthConfig(test=["NONE"], interval=7 * S, timeout=8 * S, retries=9)
    assert h.check(c.ContainerConfig(healthcheck=c.HealthConfig(test=["NONE"]))) is None
    assert h.check(c.ContainerConfig()) is None


def test_defaults_and_the_images_shell() -> None:
    found = h.check(c.ContainerConfig(healthcheck=c.HealthConfig(test=["CMD-SHELL", "exit 1"]), shell=["/bin/ash", "-ec"]))
    assert found == h.Check(("/bin/ash", "-ec", "exit 1"), 30, 30, 0, 5, 3)
    plain = h.check(c.ContainerConfig(healthcheck=c.HealthConfig(test=["CMD-SHELL", "true"])))
    assert plain is not None and plain.command == ("/bin/sh", "-c", "true")


def test_retries_make_unhealthy_and_one_success_heals() -> None:
    health = h.Health()
    assert not health.note(result(1), retries=2, in_start_period=False)
    assert (health.status, health.streak) == ("starting", 1)
    assert health.note(result(1), retries=2, in_start_period=False)
    assert (health.status, health.streak) == ("unhealthy", 2)
    assert not health.note(result(3), retries=2, in_start_period=False)
    assert health.note(result(0), retries=2, in_start_period=False)
    assert (health.status, health.streak) == ("healthy", 0)


def test_failures_in_the_start_period_do_not_count_until_it_was_healthy_once() -> None:
    health = h.Health()
    for _ in range(5):
        health.note(result(1), retries=1, in_start_period=True)
    assert (health.status, health.streak) == ("starting", 0)
    health.note(result(0), retries=1, in_start_period=True)
    health.note(result(1), retries=1, in_start_period=True)
    assert health.status == "unhealthy"


def test_the_log_keeps_the_last_five_oldest_first() -> None:
    health = h.Health()
    assert health.shape().log is None
    for code in range(9):
        health.note(result(code), retries=3, in_start_period=False)
    assert [one.exit_code for one in health.shape().log or ()] == [4, 5, 6, 7, 8]
