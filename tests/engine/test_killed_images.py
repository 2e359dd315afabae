"""The daemon killed at random moments of pull, load, rmi and prune: afterwards every listed image runs, and all is whole.

SAMPAN_IMAGE_KILLS: how many kills (200 for a long run).
"""

from __future__ import annotations

import gzip
import http.client
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from support.daemon import Daemon, busybox_rootfs
from support.images import config, docker_archive
from support.registry import Registry, digest, paced
from support.tars import archive, member

KILLS = int(os.environ.get("SAMPAN_IMAGE_KILLS", "12"))
BUSYBOX = busybox_rootfs()
LARGE = archive(member("large", content=random.Random(1).randbytes(6 << 20)))
MANY = archive(*(member(f"many/{number}", content=b"x" * 500) for number in range(1500)))
LOADED = docker_archive(config(BUSYBOX, MANY, LARGE), BUSYBOX, MANY, LARGE, tags=["loaded:1"])


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        made.hooks.append(paced)
        yield made


def quietly(daemon: Daemon, method: str, path: str, body: bytes | None = None) -> None:
    try:
        daemon.call(method, path, body, timeout=60)
    except (OSError, http.client.HTTPException):
        pass


def whole(daemon: Daemon) -> None:
    """Every listed image runs, and `system check` finds nothing."""
    for image in daemon.ok("GET", "/images/json"):
        assert daemon.run("true", image=image["Id"])[0] == 0, image
    checked = daemon.sampan("system", "check", check=False)
    assert checked.returncode == 0, checked.stdout.decode() + checked.stderr.decode()


@pytest.mark.timeout(60 + 10 * KILLS)
def test_killed_at_random_moments_every_listed_image_runs_and_all_is_whole(lone: Daemon, registry: Registry) -> None:
    made = registry.image("a", "1", BUSYBOX, LARGE, pack=lambda data: gzip.compress(data, 0, mtime=0))
    pulled = f"{registry.host}/a:1"
    random_moments = random.Random(KILLS)
    work: tuple[tuple[Callable[[], None], tuple[Callable[[], None], ...], float], ...] = (
        (lambda: quietly(lone, "POST", f"/images/create?fromImage={registry.host}/a&tag=1"), (), 0.6),
        (lambda: quietly(lone, "POST", "/images/load?quiet=1", LOADED), (), 0.9),
        (
            lambda: [quietly(lone, "DELETE", f"/images/{name}?force=1") for name in (pulled, "loaded:1")] and None,
            (lambda: quietly(lone, "POST", "/images/load?quiet=1", LOADED),),
            0.05,
        ),
        (
            lambda: quietly(lone, "POST", '/images/prune?filters={"dangling":["false"]}'),
            (lambda: quietly(lone, "POST", "/images/load?quiet=1", LOADED),),
            0.05,
        ),
    )
    for number in range(KILLS):
        act, before, most = work[number % len(work)]
        for one in before:
            one()
        asking = threading.Thread(target=act)
        asking.start()
        time.sleep(random_moments.uniform(0, most))  # any moment
        lone.restart(signal.SIGKILL)
        asking.join(60)
        assert not asking.is_alive()
        if number % 4 == 1 or number >= KILLS - 4:
            whole(lone)
    for image in lone.ok("GET", "/images/json"):
        lone.ok("DELETE", f"/images/{image['Id']}?force=1")
    assert b'"error"' not in lone.call("POST", f"/images/create?fromImage={registry.host}/a&tag=1").body
    whole(lone)
    assert lone.run("sh", "-c", "wc -c < /large", image=pulled) == (0, b"6291456\n")
    assert registry.sent[digest(made.blobs[1])] > 0


def test_a_pull_that_was_killed_again_and_again_costs_its_bytes_once(lone: Daemon, registry: Registry) -> None:
    made = registry.image("b", "1", BUSYBOX, LARGE, pack=lambda data: gzip.compress(data, 0, mtime=0))
    blob = digest(made.blobs[1])
    kills = 5
    for number in range(1, kills + 1):
        asking = threading.Thread(target=lambda: quietly(lone, "POST", f"/images/create?fromImage={registry.host}/b&tag=1"))
        asking.start()
        registry.until_sent(blob, number * (1 << 20))
        lone.restart(signal.SIGKILL)
        asking.join(60)
    assert b'"error"' not in lone.call("POST", f"/images/create?fromImage={registry.host}/b&tag=1").body
    again = registry.sent[blob] - len(made.blobs[1])
    assert again <= kills * (4 << 20) / 2, f"{again} bytes came twice"  # what was in the sockets, and not yet on the disk
    assert [seen.headers["Range"] for seen in registry.asked("GET", blob)[1:] if seen.headers.get("Range")], "nothing was resumed"
    assert lone.run("true", image=f"{registry.host}/b:1")[0] == 0
