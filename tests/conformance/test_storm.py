"""Many containers at once, and a daemon that is killed while it works."""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from support.daemon import Answer, Daemon
from support.host import HostState
from support.tiers import running

BROOD = 2  # keeper and init of the next start; at the beginning they may not have been there yet


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    with running() as made:
        yield made


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_200_containers_started_8_at_a_time_leave_nothing(own_daemon: Daemon) -> None:
    warm, _ = own_daemon.run("true")
    assert warm == 0
    descriptors = _open_descriptors(own_daemon.pid)
    before = HostState.now()

    def start(_: int) -> str:
        container = own_daemon.create("sleep", "600")
        own_daemon.ok("POST", f"/containers/{container}/start")
        return container

    with ThreadPoolExecutor(8) as pool:
        containers = list(pool.map(start, range(200)))
        running = own_daemon.ok("GET", "/containers/json")
        assert {c["Id"] for c in running} == set(containers)
        addresses = [c["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for c in running]
        assert len(set(addresses)) == 200
        list(pool.map(lambda c: own_daemon.ok("DELETE", f"/containers/{c}?force=1"), containers))

    _eventually(lambda: not _left(before), lambda: str(_left(before)))
    _eventually(lambda: _open_descriptors(own_daemon.pid) <= descriptors + 16, lambda: str(_open_descriptors(own_daemon.pid)))
    assert list((own_daemon.data_root / "containers").iterdir()) == []
    assert list((own_daemon.exec_root / "containers").iterdir()) == []


def _left(before: HostState) -> dict[str, list[str]]:
    """Return what is here now and was not before.  The processes made ahead of the next start are others, but no more."""
    now = HostState.now()
    names = [Counter(entry.partition(" ")[2] for entry in state.processes) for state in (before, now)]
    left = replace(now, processes=before.processes).leaked_since(before)
    more = names[1] - names[0]
    return left if more.total() <= BROOD else {**left, "processes": sorted(more.elements())}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killing_the_daemon_20_times_during_500_runs_loses_no_container(own_daemon: Daemon) -> None:
    """Each client goes on after a broken connection; each container must run once and end with its own code."""
    random.seed(1)
    total, kills, clients = 500, 20, 8
    codes: dict[str, int] = {}
    lock = threading.Lock()

    def persist(method: str, path: str, body: object = None) -> Answer:
        """Repeat a request until the daemon answers it."""
        deadline = time.monotonic() + 120
        while True:
            answer = attempt(method, path, body)
            if answer is not None and answer.status != 503:
                return answer
            assert time.monotonic() < deadline, f"no answer to {method} {path}"
            threading.Event().wait(0.02)

    def attempt(method: str, path: str, body: object = None) -> Answer | None:
        try:
            return own_daemon.call(method, path, body, timeout=60)
        except (OSError, http.client.HTTPException):
            return None

    def state(name: str) -> dict[str, object]:
        answer = persist("GET", f"/containers/{name}/json")
        assert answer.status == 200, answer
        return dict(answer.json["State"])

    def one(number: int) -> None:
        name, code = f"storm{number}", number % 200
        body = {"Image": "busybox", "Cmd": ["sh", "-c", f"echo ran {number}; exit {code}"]}
        made = persist("POST", f"/containers/create?name={name}", body)
        assert made.status in (201, 409), made
        # A start whose answer was lost is asked about, not repeated: it would run the program twice.
        while state(name)["Status"] == "created":
            answer = attempt("POST", f"/containers/{name}/start")
            assert answer is None or answer.status in (204, 304, 409, 503), answer
        while state(name)["Status"] != "exited":
            attempt("POST", f"/containers/{name}/wait")
        with lock:
            codes[name] = int(str(state(name)["ExitCode"]))

    done = threading.Event()

    def killer() -> None:
        for _ in range(kills):
            if done.wait(random.uniform(0.2, 0.9)):
                break
            own_daemon.restart()

    killing = threading.Thread(target=killer)
    killing.start()
    try:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(one, range(total)))
    finally:
        done.set()
        killing.join()

    assert codes == {f"storm{n}": n % 200 for n in range(total)}
    listed = [c["Names"][0] for c in own_daemon.ok("GET", "/containers/json?all=1")]
    assert sorted(listed) == sorted(f"/storm{n}" for n in range(total))
    for number in range(total):
        log = own_daemon.call("GET", f"/containers/storm{number}/logs?stdout=1").body
        assert log[8:] == f"ran {number}\n".encode(), log


def _open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _eventually(condition: object, explain: object, seconds: float = 15) -> None:
    """The kernel takes network namespaces and cgroups down in its own time: look until it has, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, explain()  # type: ignore[operator]
        threading.Event().wait(0.05)
