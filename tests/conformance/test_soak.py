"""Cycles of run, exec, attach, logs -f and rm by sixteen clients, with the daemon killed at random.

SAMPAN_SOAK=2000 makes it the full soak; by default it is short.  The last third runs without kills, and what the daemon and
the spawner hold is compared across it.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Answer, Daemon, UnixHttp
from support.host import HostState
from support.tiers import running

CYCLES = int(os.environ.get("SAMPAN_SOAK", "64"))
CLIENTS = 16
EVERY = 50 if CYCLES > 500 else 12  # one kill for so many cycles
PATIENCE = 120.0
POOLS = 16 + min(32, (os.cpu_count() or 1) + 4) + 4  # threads: what starts containers, asyncio's own, and a few
BROKEN = (OSError, http.client.HTTPException)


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    with running() as made:
        yield made


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    descriptors: int
    threads: int
    children: int
    memory: int  # KiB that are its alone

    @classmethod
    def by(cls, pid: int) -> Held:
        status = Path(f"/proc/{pid}/status").read_text()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private"))
        children = sum(
            len(Path(f"/proc/{pid}/task/{task}/children").read_text().split()) for task in os.listdir(f"/proc/{pid}/task")
        )
        return cls(
            len(os.listdir(f"/proc/{pid}/fd")), int(status.partition("Threads:")[2].split()[0]), children, private
        )  # fmt: skip


class Client:
    """Requests that outlive the daemon they were made to."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def attempt(self, method: str, path: str, body: object = None) -> Answer | None:
        try:
            return self._daemon.call(method, path, body, timeout=60)
        except BROKEN:
            return None

    def persist(self, method: str, path: str, body: object = None) -> Answer:
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self.attempt(method, path, body)
            if answer is not None and answer.status != 503:
                return answer
            assert time.monotonic() < deadline, f"no answer to {method} {path}"
            threading.Event().wait(0.02)

    def state(self, name: str) -> dict[str, Any]:
        answer = self.persist("GET", f"/containers/{name}/json")
        assert answer.status == 200, answer
        return dict(answer.json["State"])

    def started(self, name: str, code: int) -> None:
        command = f"trap 'echo ended {name}; exit {code}' USR1; echo begun {name}; sleep 600 & while :; do wait; done"
        made = self.persist("POST", f"/containers/create?name={name}", {"Image": "busybox", "Cmd": ["sh", "-c", command]})
        assert made.status in (201, 409), made
        while self.state(name)["Status"] == "created":
            answer = self.attempt("POST", f"/containers/{name}/start")
            assert answer is None or answer.status in (204, 304, 409, 503), answer

    def followed(self, name: str) -> None:
        """logs -f gives the first line, or breaks off with the daemon and is asked for again."""
        wanted = f"begun {name}\n".encode()
        deadline = time.monotonic() + PATIENCE
        while True:
            connection = UnixHttp(self._daemon.sock)
            try:
                connection.request("GET", f"/containers/{name}/logs?stdout=1&follow=1")
                if connection.getresponse().read(8 + len(wanted))[8:] == wanted:
                    return
            except BROKEN:
                pass
            finally:
                connection.close()
            assert time.monotonic() < deadline, f"{name}: the first line was not followed"

    def executed(self, name: str, code: int) -> None:
        """Every exec that began has its exit code, whichever daemon is asked."""
        while True:
            made = self.persist("POST", f"/containers/{name}/exec", {"Cmd": ["sh", "-c", f"exit {code}"], "AttachStdout": True})
            assert made.status == 201, made
            path = f"/exec/{made.json['Id']}"
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                self.attempt("POST", f"{path}/start", {"Detach": False, "Tty": False})
                found = self.persist("GET", f"{path}/json")
                if found.status == 404:
                    break  # it had not begun when the daemon was killed
                assert found.status == 200, found
                if not found.json["Running"] and found.json["ExitCode"] is not None:
                    assert found.json["ExitCode"] == code, found
                    return
            else:
                raise AssertionError(f"{name}: the exec's exit code is not known")

    def ended(self, name: str, code: int) -> None:
        """Attached with the log before it, the container ends; an attach that no kill breaks has every byte."""
        connection = UnixHttp(self._daemon.sock)
        attached = None
        try:
            connection.request("POST", f"/containers/{name}/attach?stream=1&stdout=1&logs=1")
            attached = connection.getresponse()
        except BROKEN:
            pass
        while (state := self.state(name))["Status"] == "running":
            self.attempt("POST", f"/containers/{name}/kill?signal=USR1")
            self.attempt("POST", f"/containers/{name}/wait")
        assert (state["Status"], state["ExitCode"]) == ("exited", code), (name, state)
        try:
            output = attached.read() if attached is not None and attached.status in (101, 200) else b""
        except BROKEN:
            output = b""
        finally:
            connection.close()
        both = (f"begun {name}\n", f"ended {name}\n")
        whole = b"".join(b"\1\0\0\0" + len(line).to_bytes(4, "big") + line.encode() for line in both)
        assert whole.startswith(output), (name, output)
        log = self.persist("GET", f"/containers/{name}/logs?stdout=1").body
        assert log == whole, (name, log)

    def removed(self, name: str) -> None:
        answer = self.persist("DELETE", f"/containers/{name}?force=1")
        assert answer.status in (204, 404, 409), answer
        while self.persist("GET", f"/containers/{name}/json").status != 404:
            self.attempt("DELETE", f"/containers/{name}?force=1")


def _cycles(daemon: Daemon, numbers: range, kills: int, doomed: Doomed) -> None:
    client = Client(daemon)
    done = threading.Event()
    progress = threading.Semaphore(0)

    def one(number: int) -> None:
        name, code = f"soak{number}", number % 200
        client.started(name, code)
        client.followed(name)
        client.executed(name, (number * 7) % 200)
        client.ended(name, code)
        client.removed(name)
        progress.release()

    def killer() -> None:
        for _ in range(kills):
            for _ in range(EVERY):
                progress.acquire()
            if done.wait(random.uniform(0, 0.3)):
                return
            doomed.below(daemon.pid)
            daemon.restart()

    killing = threading.Thread(target=killer)
    killing.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(one, numbers))
    finally:
        done.set()
        for _ in range(kills * EVERY):
            progress.release()
        killing.join()


def _spawner(daemon: Daemon) -> int:
    return next(int(pid) for pid in _children(daemon.pid) if (Path("/proc") / pid / "comm").read_text().strip() == "sampan-spawner")


def _children(pid: int) -> list[str]:
    return [c for task in os.listdir(f"/proc/{pid}/task") for c in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]


def _settled(daemon: Daemon) -> tuple[Held, Held]:
    """Return what the daemon and its spawner hold once that no longer falls."""
    held: list[tuple[Held, Held]] = []
    deadline = time.monotonic() + 15
    while len(held) < 3 or held[-1] != held[-3]:
        held.append((Held.by(daemon.pid), Held.by(_spawner(daemon))))
        if time.monotonic() > deadline:
            break
        threading.Event().wait(0.3)
    return held[-1]


class Doomed:
    """Every process that a killed daemon had below it, told apart from others that bear its number later."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, str]] = set()

    def below(self, pid: int) -> None:
        for child in map(int, _children(pid)):
            try:
                self._seen.add((child, _begun(child)))
                self.below(child)
            except OSError:
                continue  # it has ended meanwhile

    def left(self) -> list[int]:
        alive = []
        for pid, begun in self._seen:
            try:
                if _begun(pid) == begun:
                    alive.append(pid)
            except OSError:
                continue
        return alive


def _begun(pid: int) -> str:
    state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if state == "Z":
        raise ProcessLookupError(pid)
    return rest[18]


def _left(daemon: Daemon, before: HostState) -> dict[str, list[str]]:
    """Return what is new on the host, processes apart, and on a host that others use too only what bears our names."""
    gained = HostState.now().leaked_since(before)
    gained.pop("processes", None)
    if os.environ.get("SAMPAN_SHARED_HOST"):
        ours = (str(daemon.work), daemon.bridge, daemon.cgroup_parent)
        gained = {kind: [one for one in what if any(name in one for name in ours)] for kind, what in gained.items()}
    return {kind: what for kind, what in gained.items() if what}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(240 if CYCLES <= 64 else 3600)
def test_cycles_by_16_clients_and_a_daemon_that_is_killed_leave_nothing_and_know_every_code(own_daemon: Daemon) -> None:
    random.seed(3)
    third = CYCLES // 3
    own_daemon.run("true")
    before = HostState.now()
    doomed = Doomed()

    _cycles(own_daemon, range(CYCLES - third), (CYCLES - third) // EVERY, doomed)
    _cycles(own_daemon, range(CYCLES, CYCLES + CLIENTS * 2), 0, doomed)  # the last daemon has warmed up
    first = _settled(own_daemon)
    _cycles(own_daemon, range(CYCLES - third, CYCLES), 0, doomed)
    last = _settled(own_daemon)

    print(json.dumps({"cycles": CYCLES, "before the last third": [vars(h) for h in first], "after": [vars(h) for h in last]}))
    for begun, over in zip(first, last, strict=True):
        assert over.descriptors <= begun.descriptors and over.children <= begun.children, (begun, over)
        assert over.threads <= POOLS, (begun, over)
        assert over.memory <= begun.memory + 4096, (begun, over)
    assert own_daemon.ok("GET", "/containers/json?all=1") == []
    assert list((own_daemon.data_root / "containers").iterdir()) == []
    deadline = time.monotonic() + 30
    while left := (doomed.left(), _left(own_daemon, before)):
        if not any(left):
            break
        assert time.monotonic() < deadline, left
        threading.Event().wait(0.1)
