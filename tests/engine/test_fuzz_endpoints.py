"""Every operation of Docker's own API description, with values that fit and values that do not: no 500, no hang, no leak.

SAMPAN_FUZZ_SEED and SAMPAN_FUZZ_CASES (requests an operation) widen it; a failure prints the requests to blame.
"""

from __future__ import annotations

import http.client
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from support.api_spec import SPEC, Case, Maker, load
from support.daemon import Daemon, UnixHttp
from support.tiers import running

pytestmark = [
    pytest.mark.skipif(not SPEC.exists(), reason=f"needs Docker's API description: {SPEC} (SAMPAN_API_SPEC names another)"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]
SEED = int(os.environ.get("SAMPAN_FUZZ_SEED", "1"))
CASES = int(os.environ.get("SAMPAN_FUZZ_CASES", "12"))
PATIENCE = 30.0  # seconds for the head of an answer, on a busy host
NOWHERE = "127.0.0.1:9"  # a registry that nobody runs: nothing here goes out to the world
OUTWARD = ("/distribution/", "/images/search", "/push", "/images/create?", "/auth", "/build?", "/build ")
ALLOWED = frozenset({501, 503})  # not supported; no swarm
# What dockerd answers with a 500 too (probed): a registry is not there; a state that is not so; a session that does not come.
AS_DOCKER = ("dial tcp", "is not paused", "is not connected to the network", "timeout waiting for exec session ready")


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    with running() as made:
        yield made


def names(daemon: Daemon) -> dict[str, list[Any]]:
    """Values by the name of what they are for: objects that exist, programs that end, registries that do not answer."""
    there = daemon.create("sleep", "600", name="fuzz1")
    daemon.ok("POST", f"/containers/{there}/start")
    stopped = daemon.create("true", name="fuzz2")
    execution = daemon.ok("POST", f"/containers/{there}/exec", {"Cmd": ["true"]})["Id"]
    inside = str(daemon.work / "fuzz")
    return {
        "id": [there, there[:12], "fuzz1", "fuzz2", stopped, execution, "nope", "bridge", "host"],
        "name": ["busybox", "fuzz1", "fuzz3", f"{NOWHERE}/a:b", "vol1", "bridge", "busybox:latest"],
        "image": ["busybox"],
        "cmd": [["true"], ["sh", "-c", "exit 3"], ["sleep", "1"], [], ["/nope"]],
        "entrypoint": [None, [], ["sh", "-c"]],
        "container": ["fuzz1", "fuzz2", "nope"],
        "t": [0, 1, "x"],
        "condition": ["", "not-running", "next-exit", "removed", "x"],
        "fromimage": [f"{NOWHERE}/a", ""],
        "fromsrc": ["-", "http://127.0.0.1:9/x"],
        "remote": ["http://127.0.0.1:9/x.git", ""],
        "term": [f"{NOWHERE}/a"],
        "serveraddress": [NOWHERE],
        "identitytoken": [""],
        "names": [["busybox"], [f"{NOWHERE}/a"]],
        "path": ["/", "/etc", "/etc/passwd", "/nope", "..", "/proc/self"],
        "source": [inside, "vol1", "", "relative"],
        "binds": [[], [f"{inside}:/x"], ["vol1:/y:ro"], ["a:b:c:d"]],
        "restartpolicy": [{"Name": "no"}, {"Name": "on-failure", "MaximumRetryCount": 1}, {"Name": "x"}],
        "stoptimeout": [0, 1],
        "timeout": [0, 1],
        "platform": ["", "linux/amd64", "x", "windows"],
        "driver": ["", "bridge", "local", "x"],
    }


def send(daemon: Daemon, case: Case) -> str:
    """Make a request; "" when the answer is one that a client may get, else what was wrong."""
    connection = UnixHttp(daemon.sock, PATIENCE)
    began = time.monotonic()
    try:
        connection.request(case.method, case.path, case.body, dict(case.headers))
        sock = connection.sock
        reply = connection.getresponse()
        sock.settimeout(0.3)  # a stream is left after its first words
        try:
            text = reply.read(1 << 20)
        except (TimeoutError, http.client.HTTPException):
            text = b""
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, ValueError | http.client.InvalidURL):
            return ""  # http.client itself does not send it
        return f"{type(error).__name__} {error} after {time.monotonic() - began:.1f} s"
    finally:
        connection.close()
    if reply.status < 500 or reply.status in ALLOWED or any(words in text.decode(errors="replace") for words in AS_DOCKER):
        return ""
    return f"{reply.status} {text[:500]!r}"


def stays_here(case: Case) -> bool:
    """Whether a case speaks to no registry of the world's."""
    said = f"{case.path} {case.body!r}"
    return NOWHERE in unquote(said) or "fromSrc" in said or not any(path in said for path in OUTWARD)


def belongings(daemon: Daemon) -> dict[str, int]:
    """What a daemon without containers has open."""
    pid = daemon.pid
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(daemon.work) in line]
    links = [link for link in os.listdir("/sys/class/net") if Path(f"/sys/class/net/{link}/master").exists()
             and os.readlink(f"/sys/class/net/{link}/master").endswith(f"/{daemon.bridge}")]  # fmt: skip
    groups = [path for path in Path("/sys/fs/cgroup").glob(f"*/{daemon.cgroup_parent.lstrip('/')}/*") if path.is_dir()]
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "mounts": len(mounts), "links": len(links), "cgroups": len(groups),
        "children": len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()),
    }  # fmt: skip


def _open(pid: int) -> list[str]:
    return sorted(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))


def clear(daemon: Daemon) -> None:
    for container in daemon.ok("GET", "/containers/json?all=1"):
        daemon.call("POST", f"/containers/{container['Id']}/unpause")
        gone = daemon.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        assert gone.status in (204, 404, 409), gone
    for path in ("networks/prune", "volumes/prune?filters=%7B%22all%22:[%22true%22]%7D", "images/prune"):
        assert daemon.call("POST", f"/{path}").status == 200


def test_no_operation_answers_500_hangs_or_leaves_anything(own_daemon: Daemon) -> None:
    daemon = own_daemon
    assert daemon.run("true")[0] == 0
    before = belongings(daemon)
    maker = Maker(load(), SEED, names(daemon))
    cases = [
        maker.case(method, path, operation, prefix)
        for method, path, operation in maker.operations()
        for prefix in ["/v1.50", "/v1.44", "", "/v1.24", *["/v1.50"] * CASES][:CASES]
    ]
    cases = [case for case in cases if stays_here(case)]
    random.Random(SEED).shuffle(cases)
    wrong: list[str] = []

    def one(numbered: tuple[int, Case]) -> None:
        number, case = numbered
        if number % 100 == 0:
            daemon.import_busybox()  # a prune may have taken it
        said = send(daemon, case)
        if said:
            wrong.append(f"{case}\n    -> {said}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, enumerate(cases)))

    assert not wrong, f"{len(wrong)} of {len(cases)} requests:\n" + "\n".join(wrong[:40])
    assert daemon.call("GET", "/_ping", timeout=10).body == b"OK"
    assert "Traceback" not in daemon.log
    clear(daemon)
    deadline = time.monotonic() + 30
    while any(now > before[what] + (2 if what == "descriptors" else 0) for what, now in belongings(daemon).items()):
        assert time.monotonic() < deadline, f"{before} -> {belongings(daemon)}: {_open(daemon.pid)}"
        threading.Event().wait(0.1)
    jobs = [job for job in daemon.ok("GET", "/sampan/jobs") if job.get("Name") != "jobs"]
    assert jobs == [], jobs
    daemon.import_busybox()
    assert daemon.run("echo", "still well") == (0, b"still well\n")
