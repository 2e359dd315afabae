"""A daemon that pulls: killed at any moment it goes on later; whatever a registry does, others are answered."""

from __future__ import annotations

import gzip
import http.client
import os
import random
import select
import signal
import statistics
import tarfile
import threading
import time
from collections.abc import Iterator

import pytest

from sampan.kernel.inotify import Inotify
from support.daemon import Daemon, UnixHttp, busybox_rootfs, pings_while
from support.registry import Handler, Registry, config_of, digest, paced
from support.tars import archive, member

KILLS = int(os.environ.get("SAMPAN_KILLS", "8"))
BUSYBOX = busybox_rootfs()
LARGE = [archive(member(f"large{number}", content=random.Random(number).randbytes(4 << 20))) for number in range(3)]


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


def pull(daemon: Daemon, name: str) -> bytes:
    return daemon.call("POST", f"/images/create?fromImage={name}&tag=1", timeout=60).body


def test_killed_at_any_moment_a_pull_goes_on_and_the_image_runs(lone: Daemon, registry: Registry) -> None:
    made = registry.image("a", "1", BUSYBOX, *LARGE, pack=lambda data: gzip.compress(data, 0, mtime=0))
    registry.hooks.append(paced)
    name = f"{registry.host}/a"
    moments = random.Random(KILLS)
    for _ in range(KILLS):
        asking = threading.Thread(target=lambda: _quietly(lone, name))
        asking.start()
        time.sleep(moments.uniform(0.0, 0.35))  # any moment
        lone.restart(signal.SIGKILL)
        asking.join(30)
        assert not asking.is_alive()
    said = pull(lone, name)
    assert b'"error"' not in said, said
    assert lone.run("sh", "-c", "echo alive; wc -c < /large2", image=f"{name}:1") == (0, b"alive\n4194304\n")
    for blob in made.blobs:
        assert registry.sent[digest(blob)] < len(blob) * (KILLS + 1) / 2 + (4 << 20), "nothing was kept from one try to the next"
    lone.ok("DELETE", f"/images/{name}:1?force=1")
    lone.restart(signal.SIGKILL)
    left = [path for folder in ("content/blobs/sha256", "content/partial", "layers/sha256", "layers/tmp")
            for path in (lone.data_root / folder).iterdir()]  # fmt: skip
    assert left == []


def _quietly(daemon: Daemon, name: str) -> None:
    try:
        pull(daemon, name)
    except (OSError, http.client.HTTPException):
        pass


def test_a_killed_pull_is_continued_by_the_byte(lone: Daemon, registry: Registry) -> None:
    blob = gzip.compress(LARGE[0], 0, mtime=0)
    registry.image("a", "1", LARGE[0], pack=lambda _: blob)
    arrived = threading.Event()

    def half(handler: Handler) -> bool:
        if not handler.path.endswith(digest(blob)) or arrived.is_set():
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(blob)))
        handler.end_headers()
        handler.wfile.write(blob[: 2 << 20])
        handler.wfile.flush()
        arrived.set()
        handler.rfile.read(1)  # until the daemon is gone
        handler.close_connection = True
        return True

    registry.hooks.append(half)
    asking = threading.Thread(target=lambda: _quietly(lone, f"{registry.host}/a"))
    asking.start()
    assert arrived.wait(20)
    with Inotify() as watch:
        watch.add(str(lone.data_root / "content/partial"))
        while sum(path.stat().st_size for path in (lone.data_root / "content/partial").iterdir()) < 2 << 20:
            assert select.select([watch], [], [], 20)[0]
            watch.read()
    lone.restart(signal.SIGKILL)
    asking.join(20)
    assert b'"error"' not in pull(lone, f"{registry.host}/a")
    assert [seen.headers.get("Range") for seen in registry.asked("GET", digest(blob))] == [None, f"bytes={2 << 20}-"]
    assert registry.sent[digest(blob)] == len(blob) - (2 << 20)


@pytest.mark.alone
def test_row_54_hostile_pulls_do_not_make_others_wait(lone: Daemon, registry: Registry) -> None:
    header = tarfile.TarInfo("zeros")
    header.size = 64 << 30
    head = header.tobuf(tarfile.GNU_FORMAT)
    bomb = gzip.compress(head) + gzip.compress(bytes(16 << 20), 9) * 200
    registry.image("bomb", "1", b"", config=config_of(head), pack=lambda _: bomb)
    registry.image("files", "1", archive(*(member(f"f{number}") for number in range(20_000))))
    before = _rss(lone)
    work = [threading.Thread(target=lambda name=name: _quietly(lone, f"{registry.host}/{name}")) for name in ("bomb", "files") * 2]
    for one in work:
        one.start()
    waits = pings_while(lone.sock, work)
    assert len(waits) > 20
    assert statistics.median(waits) < 0.1 and max(waits) < 1.0, (statistics.median(waits), max(waits))
    assert _rss(lone) - before < 200 << 10


def _rss(daemon: Daemon) -> int:
    """KiB at most so far."""
    with open(f"/proc/{daemon.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def test_a_client_that_leaves_ends_its_pull(lone: Daemon, registry: Registry) -> None:
    registry.image("a", "1", *LARGE)
    begun, ended = threading.Event(), threading.Event()

    def hold(handler: Handler) -> bool:
        if "/blobs/" not in handler.path or handler.path.endswith("config"):
            return False
        content = handler.registry.blobs[handler.path.rpartition("/")[2]]
        if len(content) < 1 << 20:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:1000])
        begun.set()
        if not handler.rfile.read(1):
            ended.set()
        handler.close_connection = True
        return True

    registry.hooks.append(hold)
    connection = UnixHttp(lone.sock)
    connection.request("POST", f"/images/create?fromImage={registry.host}/a&tag=1")
    assert begun.wait(20)
    connection.close()
    assert ended.wait(20)
    assert lone.ok("GET", "/images/json") == []
