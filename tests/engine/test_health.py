"""Health checks of a real daemon."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.daemon import Daemon, UnixHttp

MS = 10**6


def started(daemon: Daemon, *test: str, run: tuple[str, ...] = ("sleep", "600"), **more: Any) -> str:
    host = more.pop("HostConfig", {})
    check = {"Test": list(test), "Interval": 50 * MS, "Timeout": 10**10, "Retries": 2, **more}
    container = daemon.create(*run, Healthcheck=check, HostConfig=host)
    daemon.ok("POST", f"/containers/{container}/start")
    return container


def until(daemon: Daemon, container: str, holds: Callable[[dict[str, Any]], bool], seconds: float = 30) -> dict[str, Any]:
    """Return State.Health once it holds; looked at after every event."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found: dict[str, Any] = daemon.ok("GET", f"/containers/{container}/json")["State"]["Health"]
        if holds(found):
            return found
        _next_event(daemon, container)
    raise AssertionError(found)


def _next_event(daemon: Daemon, container: str) -> None:
    connection = UnixHttp(daemon.sock, 20)
    filters = json.dumps({"container": {container: True}})
    connection.request("GET", f"/events?filters={filters}&until={time.time() + 0.2:.3f}".replace('"', "%22").replace(" ", ""))
    connection.getresponse().readline()
    connection.close()


def events(daemon: Daemon, container: str, since: float) -> list[str]:
    path = f"/events?since={since:.6f}&until={time.time():.6f}"
    found = [json.loads(line) for line in daemon.call("GET", path).body.splitlines()]
    return [one["Action"] for one in found if one["Actor"]["ID"] == container]


def test_a_probe_that_succeeds_makes_healthy_and_is_told_as_docker_does(daemon: Daemon) -> None:
    since = time.time()
    container = started(daemon, "CMD-SHELL", "echo fine; echo err >&2")

    health = until(daemon, container, lambda found: found["Status"] == "healthy")

    assert health["FailingStreak"] == 0 and sorted(health["Log"][0]["Output"].split()) == ["err", "fine"]
    assert health["Log"][0]["ExitCode"] == 0 and health["Log"][0]["End"] > health["Log"][0]["Start"]
    seen = events(daemon, container, since)
    command = "/bin/sh -c echo fine; echo err >&2"
    assert [f"exec_create: {command}", f"exec_start: {command}", "exec_die", "health_status: healthy"] == seen[2:6]
    assert "(healthy)" in daemon.docker("ps", "--filter", "health=healthy", "--format", "{{.Status}}").stdout.decode()


def test_failures_make_unhealthy_after_the_retries_and_recovery_heals(daemon: Daemon) -> None:
    container = started(daemon, "CMD", "cat", "/tmp/ok")

    health = until(daemon, container, lambda found: found["Status"] == "unhealthy")
    assert health["FailingStreak"] >= 2 and "No such file" in health["Log"][-1]["Output"]
    assert "(unhealthy)" in daemon.docker("ps", "--format", "{{.Status}}").stdout.decode()

    daemon.docker("exec", container, "touch", "/tmp/ok")
    assert until(daemon, container, lambda found: found["Status"] == "healthy")["FailingStreak"] == 0


def test_a_probe_that_takes_too_long_is_killed_with_its_children(daemon: Daemon) -> None:
    container = started(daemon, "CMD-SHELL", "echo begun; sleep 4321 & sleep 4321; true", Timeout=200 * MS, Retries=1)

    health = until(daemon, container, lambda found: found["Status"] == "unhealthy")

    assert health["Log"][0]["ExitCode"] == -1
    assert health["Log"][0]["Output"].startswith("Health check exceeded timeout (200ms): begun")
    daemon.docker("pause", container)  # no probe now
    daemon.docker("unpause", container)
    top = daemon.docker("top", container).stdout.decode()
    assert top.count("sleep 4321") <= 2, top  # those of one probe at most


def test_output_is_bounded_and_a_flood_costs_nothing(daemon: Daemon) -> None:
    container = started(daemon, "CMD-SHELL", "yes | head -c 20000000")

    health = until(daemon, container, lambda found: bool(found["Log"]))

    assert len(health["Log"][0]["Output"]) == 4096 and health["Log"][0]["ExitCode"] == 0


def test_a_command_that_is_not_there_is_a_failure_with_words(daemon: Daemon) -> None:
    container = started(daemon, "CMD", "nosuch")

    health = until(daemon, container, lambda found: found["Status"] == "unhealthy")

    assert "nosuch" in health["Log"][0]["Output"] and health["Log"][0]["ExitCode"] == -1


def test_failures_in_the_start_period_leave_it_starting_and_the_start_interval_counts(daemon: Daemon) -> None:
    container = started(daemon, "CMD", "false", StartPeriod=3600 * 10**9, StartInterval=20 * MS, Interval=3600 * 10**9, Retries=1)

    health = until(daemon, container, lambda found: len(found["Log"] or ()) >= 3)

    assert (health["Status"], health["FailingStreak"]) == ("starting", 0)
    assert "(health: starting)" in daemon.docker("ps", "--format", "{{.Status}}").stdout.decode()


def test_the_images_check_is_inherited_changed_and_switched_off(daemon: Daemon) -> None:
    daemon.ok("POST", "/images/create?fromSrc=-&repo=checked&changes=HEALTHCHECK%20--interval=50ms%20CMD%20true", _tar(daemon))
    plain = daemon.create("sleep", "600", image="checked")
    off = daemon.create("sleep", "600", image="checked", Healthcheck={"Test": ["NONE"]})
    for one in (plain, off):
        daemon.ok("POST", f"/containers/{one}/start")

    until(daemon, plain, lambda found: found["Status"] == "healthy")
    assert "Health" not in daemon.ok("GET", f"/containers/{off}/json")["State"]


def _tar(daemon: Daemon) -> bytes:
    from support.daemon import busybox_rootfs

    return busybox_rootfs()


def test_health_survives_a_killed_daemon_and_the_timer_goes_on(daemon: Daemon) -> None:
    container = started(daemon, "CMD-SHELL", "echo $RANDOM", Interval=100 * MS)
    before = until(daemon, container, lambda found: found["Status"] == "healthy" and len(found["Log"]) >= 2)

    daemon.restart(signal.SIGKILL)

    found = daemon.ok("GET", f"/containers/{container}/json")["State"]["Health"]
    assert found["Status"] == "healthy" and found["Log"]
    last = before["Log"][-1]["End"]
    until(daemon, container, lambda found: found["Log"][-1]["Start"] > last)


def test_an_ended_container_is_not_healthy_and_a_start_begins_anew(daemon: Daemon) -> None:
    container = started(daemon, "CMD", "true")
    until(daemon, container, lambda found: found["Status"] == "healthy")

    daemon.docker("stop", "-t", "0", container)
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["Health"]["Status"] == "unhealthy"
    daemon.restart()
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["Health"]["Status"] == "unhealthy"
    daemon.docker("start", container)
    assert until(daemon, container, lambda found: found["Status"] == "healthy")["Log"]


def test_restart_on_unhealthy_starts_it_again(daemon: Daemon) -> None:
    policy = {"RestartPolicy": {"Name": "on-unhealthy"}}
    run = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    container = started(daemon, "CMD", "false", run=run, HostConfig=policy)

    end = time.monotonic() + 30
    while daemon.ok("GET", f"/containers/{container}/json")["RestartCount"] < 1 and time.monotonic() < end:
        _next_event(daemon, container)

    assert daemon.ok("GET", f"/containers/{container}/json")["RestartCount"] >= 1


@pytest.mark.docker_client(28)
def test_the_real_clients_flags_reach_the_check(daemon: Daemon) -> None:
    for run in (daemon.docker, daemon.sampan):
        name = f"flags-{run.__name__}"
        flags = "--health-cmd true --health-interval 50ms --health-timeout 3s --health-retries 4 --health-start-period 1s"
        run("run", "-d", "--name", name, *flags.split(), "--health-start-interval", "40ms", "busybox", "sleep", "600")
        config = daemon.ok("GET", f"/containers/{name}/json")["Config"]["Healthcheck"]
        assert config == {"Test": ["CMD-SHELL", "true"], "Interval": 50 * MS, "Timeout": 3 * 10**9, "Retries": 4,
                          "StartPeriod": 10**9, "StartInterval": 40 * MS}  # fmt: skip
        until(daemon, name, lambda found: found["Status"] == "healthy")
