"""Restart policies over the ends of daemons, keepers and hosts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon


def policy(name: str, count: int = 0) -> dict[str, Any]:
    return {"HostConfig": {"RestartPolicy": {"Name": name, "MaximumRetryCount": count}}}


def state(daemon: Daemon, container: str) -> dict[str, Any]:
    return dict(daemon.ok("GET", f"/containers/{container}/json")["State"])


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def until_running(daemon: Daemon, container: str, seconds: float = 20) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = state(daemon, container)
        if found["Status"] == "running":
            return found
        daemon.call("GET", f"/events?until={time.time() + 0.05:.3f}")
    raise AssertionError(found)


def reboot(daemon: Daemon) -> None:
    """What a power cut leaves: no process, no run-time folder."""
    keepers = [parent(one) for one in _pids(daemon)]
    daemon.kill(signal.SIGKILL)
    for keeper in keepers:
        os.kill(keeper, signal.SIGKILL)
    shutil.rmtree(daemon.exec_root)


def _pids(daemon: Daemon) -> list[int]:
    rows = daemon.ok("GET", "/containers/json")
    return [pid for row in rows if (pid := state(daemon, row["Id"])["Pid"])]


def test_after_a_reboot_those_come_back_whose_policy_wants_it(daemon: Daemon) -> None:
    made = {}
    for name in ("always", "unless-stopped", "on-failure", "no"):
        made[name] = daemon.create("sleep", "600", **policy(name))
        daemon.ok("POST", f"/containers/{made[name]}/start")
    for name in ("always", "unless-stopped"):
        made[f"{name}, stopped"] = daemon.create("sleep", "600", **policy(name))
        daemon.ok("POST", f"/containers/{made[f'{name}, stopped']}/start")
        daemon.ok("POST", f"/containers/{made[f'{name}, stopped']}/stop?t=0")
    before = {name: state(daemon, one)["Pid"] for name, one in made.items()}

    reboot(daemon)
    daemon.start()

    for name in ("always", "unless-stopped", "on-failure", "always, stopped"):
        assert until_running(daemon, made[name])["Pid"] not in (0, before[name]), name
    for name in ("no", "unless-stopped, stopped"):
        assert state(daemon, made[name])["Status"] == "exited", name
    assert state(daemon, made["no"])["ExitCode"] == 255


def test_the_back_off_goes_on_after_a_restart_of_the_daemon(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "exit 1", **policy("on-failure", 50))
    daemon.ok("POST", f"/containers/{container}/start")
    while (count := daemon.ok("GET", f"/containers/{container}/json")["RestartCount"]) < 4:  # the next wait is 1.6 s
        daemon.call("GET", f"/events?until={time.time() + 0.05:.3f}")
    while state(daemon, container)["Status"] == "running":
        daemon.call("GET", f"/events?until={time.time() + 0.05:.3f}")
    finished = state(daemon, container)["FinishedAt"]

    daemon.restart(signal.SIGKILL)

    found = daemon.ok("GET", f"/containers/{container}/json")
    assert found["State"]["Status"] == "restarting" and found["RestartCount"] >= count - 1
    daemon.ok("POST", f"/containers/{container}/wait?condition=next-exit")
    after = daemon.ok("GET", f"/containers/{container}/json")
    waited = _seconds(after["State"]["StartedAt"]) - _seconds(finished)
    assert 1.0 < waited < 15.0 and after["RestartCount"] > count - 1


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()


def test_a_stop_ends_a_back_off_also_after_a_restart_of_the_daemon(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "exit 1", **policy("always"))
    daemon.ok("POST", f"/containers/{container}/start")
    while daemon.ok("GET", f"/containers/{container}/json")["RestartCount"] < 3:
        daemon.call("GET", f"/events?until={time.time() + 0.05:.3f}")
    daemon.restart(signal.SIGKILL)

    assert daemon.call("POST", f"/containers/{container}/stop?t=0").status == 204
    assert state(daemon, container)["Status"] == "exited"
    assert daemon.call("POST", f"/containers/{container}/wait?condition=not-running", timeout=5).status == 200


def test_the_count_of_retries_holds_over_daemons(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "sleep 0.1; exit 1", **policy("on-failure", 3))
    daemon.ok("POST", f"/containers/{container}/start")
    while daemon.ok("GET", f"/containers/{container}/json")["RestartCount"] < 2:
        daemon.call("GET", f"/events?until={time.time() + 0.05:.3f}")
    daemon.restart(signal.SIGKILL)

    while (found := daemon.ok("GET", f"/containers/{container}/json"))["State"]["Status"] != "exited":
        daemon.call("GET", f"/events?until={time.time() + 0.05:.3f}")
    assert found["RestartCount"] == 3 and found["State"]["ExitCode"] == 1


@pytest.mark.parametrize("name", ["always", "on-failure"])
def test_a_killed_keeper_counts_as_an_end_that_the_policy_answers(daemon: Daemon, name: str) -> None:
    container = daemon.create("sleep", "600", **policy(name))
    daemon.ok("POST", f"/containers/{container}/start")
    before = state(daemon, container)["Pid"]
    os.kill(parent(before), signal.SIGKILL)

    while (found := until_running(daemon, container))["Pid"] == before:
        daemon.call("GET", f"/events?until={time.time() + 0.05:.3f}")
    assert daemon.ok("GET", f"/containers/{container}/json")["RestartCount"] == 1 and found["Pid"] != before


def cut_in_the_middle_of_a_start(daemon: Daemon, container: str) -> None:
    """Kill the daemon and leave the record that is written while a start is under way."""
    daemon.kill(signal.SIGKILL)
    database = sqlite3.connect(daemon.data_root / "state.db")
    with database:
        (body,) = database.execute("SELECT body FROM records WHERE kind = 'container' AND key = ?", (container,)).fetchone()
        record = {**json.loads(body), "status": "running", "pid": 0}
        database.execute(
            "UPDATE records SET body = ? WHERE kind = 'container' AND key = ?", (json.dumps(record).encode(), container)
        )
    database.close()


def test_a_start_that_no_daemon_finished_is_taken_back(daemon: Daemon) -> None:
    fresh, used = daemon.create("sleep", "600", **policy("always")), daemon.create("sh", "-c", "exit 7")
    daemon.ok("POST", f"/containers/{used}/start")
    daemon.ok("POST", f"/containers/{used}/wait")
    before = state(daemon, used)

    cut_in_the_middle_of_a_start(daemon, fresh)
    cut_in_the_middle_of_a_start(daemon.start(), used)
    daemon.start()

    assert (state(daemon, fresh)["Status"], state(daemon, fresh)["ExitCode"]) == ("created", 0)
    assert state(daemon, used) == before  # its own exit code, not one that nobody saw


def test_the_same_record_after_a_reboot_is_of_a_container_that_ran(daemon: Daemon) -> None:
    container = daemon.create("sleep", "600", **policy("always"))
    cut_in_the_middle_of_a_start(daemon, container)
    (daemon.exec_root / "boot_id").write_text("another\n")  # an exec root that is on a disk
    daemon.start()
    assert until_running(daemon, container)["Pid"] > 0
