"""A thousand images with five thousand names: listed, started and pruned as if there were few (issue 4)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, UnixHttp
from support.images import crowd

IMAGES, TAGS = 1000, 5


@pytest.fixture
def crowded() -> Iterator[Daemon]:
    """A daemon that is not started yet, over a data root full of images."""
    made = Daemon()
    made.data_root.mkdir(mode=0o700)
    crowd(made.data_root, IMAGES, TAGS)
    yield made
    made.close()


def processor_time(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.alone
def test_a_thousand_images_are_listed_within_150_ms_and_cost_a_start_little(crowded: Daemon) -> None:
    empty = Daemon().start()
    alone = processor_time(empty)
    empty.close()
    crowded.start()
    spent = processor_time(crowded)
    connection, took, costs = UnixHttp(crowded.sock), [], []
    for _ in range(5):
        begun, before = time.monotonic(), processor_time(crowded)
        connection.request("GET", "/images/json")
        body = connection.getresponse().read()
        took.append(time.monotonic() - begun)
        costs.append(processor_time(crowded) - before)
    connection.close()
    assert body.count(b'"RepoTags"') == IMAGES and body.count(b":v4") == IMAGES
    assert costs[0] <= 0.150, costs  # the first one after a start too; in processor time: the machine may be busy
    assert min(took) < 0.150, took
    assert spent - alone < 0.3, (spent, alone)  # of the second that a start may take

    before = processor_time(crowded)
    pruned = crowded.ok("POST", '/images/prune?filters={"keep":["2"]}', timeout=120)
    assert len(pruned["ImagesDeleted"]) == IMAGES * (TAGS - 2)
    pruned = crowded.ok("POST", '/images/prune?filters={"dangling":["false"]}', timeout=120)
    assert len(pruned["ImagesDeleted"]) == IMAGES * 3  # two names and the image
    assert processor_time(crowded) - before < 4  # it took minutes once: everything was asked of everything
