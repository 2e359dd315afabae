"""Builds that end before their end: whoever ends them, no container, mount, snapshot, context or lock stays."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.build.instructions import Mount
from sampan.build.mounting import Lent
from support.builds import begin, build, context, until
from support.daemon import Daemon

MOUNTED = (
    "FROM busybox AS s\nRUN echo s > /s\nFROM busybox AS side\nARG N\nRUN echo $N && sleep 1000\nFROM busybox\nARG N\n"
    "RUN --mount=type=cache,id=held,sharing=locked,target=/c --mount=type=tmpfs,target=/t --mount=from=s,rw,target=/m "
    "--mount=target=/x,rw "
    "echo $N started && sleep 1000\nCOPY --from=side / /side\n"
)  # fmt: skip
AFTER = "FROM busybox\nRUN --mount=type=cache,id=held,sharing=locked,target=/c echo free\n"


@pytest.fixture
def clean(daemon: Daemon) -> Iterator[Daemon]:
    daemon.ok("POST", "/build/prune?all=1")
    yield daemon
    daemon.ok("POST", "/build/prune?all=1")


def leftovers(daemon: Daemon) -> list[str]:
    """Return what a build that has ended may not have left."""
    root = daemon.data_root
    found = [str(path) for name in ("build/contexts", "layers/snapshots", "layers/tmp") for path in (root / name).iterdir()]
    found += [str(path) for path in (root / "build/mounts").glob("tmp-*")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line and "/build" in line]
    found += [str(path) for path in Path("/run").glob("sampan-mount-*")]
    return found + [one["Id"] for one in daemon.ok("GET", "/containers/json?all=1")]


def wait_for(none: Callable[[], list[str]]) -> list[str]:
    """Return what is left once nothing is, or after a long time."""
    deadline = time.monotonic() + 30
    while (found := none()) and time.monotonic() < deadline:
        os.sched_yield()
    return found


def running(daemon: Daemon, count: int) -> None:
    """Return once so many steps are running."""
    while sum(one["State"] == "running" for one in daemon.ok("GET", "/containers/json")) < count:
        os.sched_yield()


def test_a_client_that_hangs_up_frees_mounts_and_locks(clean: Daemon) -> None:
    with begin(clean, MOUNTED) as client:
        until(client, b"Running in")
        running(clean, 2)

    assert wait_for(lambda: leftovers(clean)) == []
    assert "free" in build(clean, AFTER).ok.text


def test_a_step_that_fails_ends_those_beside_it(clean: Daemon) -> None:
    text = MOUNTED.replace("sleep 1000\nCOPY", "sleep 0.3; false\nCOPY")
    made = build(clean, text)

    assert "returned a non-zero code: 1" in made.error
    assert wait_for(lambda: leftovers(clean)) == []
    assert "free" in build(clean, AFTER).ok.text


def test_a_killed_daemon_takes_its_builds_away_when_it_is_back(clean: Daemon) -> None:
    with begin(clean, MOUNTED) as client:
        until(client, b"Running in")
        running(clean, 2)
        clean.restart()

    assert leftovers(clean) == []
    assert "free" in build(clean, AFTER).ok.text
    assert build(clean, AFTER).ok.cached == 1


def test_a_client_that_leaves_at_any_moment_leaves_nothing(clean: Daemon) -> None:
    """Wherever the build is: while it unpacks, creates, lends, starts, releases or keeps."""
    chance = random.Random(6)
    text = (
        "FROM busybox\nARG N\nCOPY a /a\nRUN --mount=type=cache,target=/c --mount=from=busybox,rw,target=/m echo $N > /n\n"
        "WORKDIR /w/$N\nRUN echo $N > m\n"
    )
    for number in range(40):
        with begin(clean, text.replace("ARG N", f"ARG N={number}").replace("COPY a", "COPY Dockerfile")) as client:
            client.settimeout(chance.random() * 0.12)
            try:
                while client.recv(65536):
                    pass
            except TimeoutError:
                pass

    assert wait_for(lambda: leftovers(clean)) == []
    assert build(clean, text.replace("COPY a", "COPY Dockerfile"), buildargs={"N": "x"}).ok


def test_mounts_of_a_step_that_cannot_have_them_all_are_given_back(clean: Daemon) -> None:
    """No descriptor of the daemon holds a tree any more: neither the cache's, nor the stage's, nor the context's."""

    def trees() -> list[str]:
        found = [os.readlink(one) for one in Path(f"/proc/{clean.pid}/fd").iterdir() if one.is_symlink()]
        return sorted(one for one in found if one == "/" or "/build/" in one)

    text = (
        "FROM busybox\nRUN --mount=type=cache,target=/c --mount=from=busybox,target=/m --mount=target=/x "
        "--mount=type=secret,id=s,required true\n"
    )
    before = trees()
    made = [build(clean, text) for _ in range(3)]

    assert all("secret s: not found" in one.error for one in made)
    assert wait_for(lambda: leftovers(clean)) == []
    assert wait_for(lambda: [] if trees() == before else trees()) == []


def test_a_cache_that_cannot_be_made_or_was_made_by_another_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lent = object.__new__(Lent)
    there = tmp_path / "there"
    (there / "data").mkdir(parents=True)
    lent._new_cache(Mount(type="cache", target="/c"), there)
    monkeypatch.setattr(os, "fchown", lambda *_: os.stat("/no/such"))
    with pytest.raises(FileNotFoundError):
        lent._new_cache(Mount(type="cache", target="/c"), tmp_path / "new")

    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_upload_that_breaks_off_leaves_nothing(clean: Daemon) -> None:
    body = context({"Dockerfile": AFTER, "big": "x" * 3_000_000})
    told = b'{"uploads":[{"kind":"context","name":"a"},{"kind":"cache","name":""}]}'
    before = len(told).to_bytes(8, "big") + told + (2_000_000).to_bytes(4, "big")
    own = b"Content-Type: application/vnd.sampan.build\r\n"
    for head, part in ((b"", b""), (b"", body[:200_000]), (own, before[:20]), (own, before + body[:5000])):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(clean.sock))
            client.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (head, len(body)) + part)

    def jobs() -> list[str]:
        return [one["Name"] for one in clean.ok("GET", "/sampan/jobs") if one["Name"] == "build"]

    assert wait_for(lambda: leftovers(clean) + jobs()) == []
    assert build(clean, AFTER).ok


def test_equal_steps_of_builds_side_by_side_run_once(clean: Daemon) -> None:
    """The first to come does it, the others wait and use it; when it is given up, the next one does it."""
    text = "FROM busybox\nRUN --mount=type=cache,id=once,target=/c echo x >> /c/runs; echo begun; sleep 0.5; cat /c/runs > /runs\n"
    first = begin(clean, text)
    until(first, b"begun")
    second = begin(clean, text)
    third = begin(clean, text)
    first.close()
    for client in (second, third):
        with client:
            until(client, b"Successfully built")

    assert wait_for(lambda: leftovers(clean)) == []
    counted = build(clean, "FROM busybox\nRUN --mount=type=cache,id=once,target=/c cat /c/runs\n").ok
    assert counted.text.count("x\n") == 2  # the one that was given up, and one
