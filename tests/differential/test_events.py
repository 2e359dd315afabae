"""The same life of a container, and the events that both daemons tell of it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from normal import normal

from support.daemon import Daemon
from support.oracle import Oracle

Told = list[tuple[str, str, dict[str, str]]]


def ask(daemon: Daemon | Oracle, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    answer = daemon.call(method, "/v1.41" + path, data, headers={"Content-Type": "application/json"} if data else {})
    assert answer.status < 400, (method, path, answer)
    return answer.json if answer.body.startswith((b"{", b"[")) else None


def live(daemon: Daemon | Oracle) -> Told:
    """Lead a container through its life; return (type, action, attributes) of what was told."""
    begin = time.time()
    labels = {"story": "events"}
    config = {"Image": "busybox", "Cmd": ["sleep", "600"], "Labels": labels, "HostConfig": {"Binds": ["evdata:/v:ro"]}}
    ask(daemon, "POST", "/containers/create?name=ev", config)
    ask(daemon, "POST", "/containers/ev/start")
    made = ask(daemon, "POST", "/containers/ev/exec", {"Cmd": ["echo", "hi"], "AttachStdout": True, "Tty": True})["Id"]
    ask(daemon, "POST", f"/exec/{made}/start", {"Tty": True})
    ask(daemon, "POST", "/containers/ev/pause")
    ask(daemon, "POST", "/containers/ev/unpause")
    ask(daemon, "POST", "/containers/ev/rename?name=ev2")
    ask(daemon, "GET", "/containers/ev2/top")
    ask(daemon, "POST", "/containers/ev2/resize?h=10&w=20")
    ask(daemon, "POST", "/containers/ev2/update", {"PidsLimit": 50})
    ask(daemon, "POST", "/containers/ev2/kill?signal=SIGWINCH")
    ask(daemon, "POST", "/containers/ev2/restart?t=0")
    ask(daemon, "POST", "/containers/ev2/stop?t=0")
    ask(daemon, "DELETE", "/containers/ev2")
    ask(daemon, "DELETE", "/volumes/evdata")
    ask(daemon, "POST", "/images/busybox/tag?repo=evimage&tag=1")
    ask(daemon, "DELETE", "/images/evimage:1")
    time.sleep(0.2)  # the oracle tells of an exec's end late
    answer = daemon.call("GET", f"/v1.41/events?since={begin:.3f}&until={time.time():.3f}")
    found = [json.loads(line) for line in answer.body.splitlines()]
    return [(one["Type"], one["Action"], normal(one["Actor"]["Attributes"])) for one in found]


@pytest.fixture(scope="session")
def told(sampan: Daemon, oracle: Oracle) -> tuple[Told, Told]:
    return live(sampan), live(oracle)


def kinds(told: Told, kind: str) -> list[str]:
    return [action for one, action, _ in told if one == kind]


@pytest.mark.parametrize("kind", ["container", "image", "volume", "network"])
def test_the_same_things_are_told_of(told: tuple[Told, Told], kind: str) -> None:
    assert sorted(kinds(told[0], kind)) == sorted(kinds(told[1], kind))


@pytest.mark.parametrize("kind", ["container", "image", "volume", "network"])
def test_in_the_same_order(told: tuple[Told, Told], kind: str) -> None:
    """Each kind by itself: between kinds Docker's own order has changed (engine-api 4.18)."""
    ours, theirs = ([action for action in kinds(one, kind) if action != "exec_die"] for one in told)  # comes when it is reaped

    assert ours == theirs


def test_with_the_same_attributes(told: tuple[Told, Told]) -> None:
    kinds = ("container", "volume", "network")
    ours, theirs = ({action: attributes for kind, action, attributes in one if kind in kinds} for one in told)
    for attributes in ours.values():
        attributes.pop("execDuration", None)  # since 23.0

    assert ours == theirs
