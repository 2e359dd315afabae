"""A thousand images with five thousand names: listed and started as if there were few (issue 4)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.content.blobs import Blobs
from sampan.content.images import Catalogue, ImageRecord, LayerRef
from sampan.oci.digest import of
from sampan.oci.reference import parse
from sampan.state import State
from support.daemon import Daemon, UnixHttp
from support.images import LAYER, config

IMAGES, TAGS = 1000, 5


@pytest.fixture
def crowded() -> Iterator[Daemon]:
    """A daemon that is not started yet, over a data root full of images."""
    made = Daemon()
    made.data_root.mkdir(mode=0o700)
    state = State(made.data_root)
    blobs = Blobs(made.data_root)
    catalogue = Catalogue(state, blobs)
    try:
        with state.batch():
            for number in range(IMAGES):
                content = config(LAYER, labels={"n": str(number)})
                with blobs.ingest() as ingest:
                    ingest.write(content)
                    image = ingest.commit(durable=False)
                layer = LayerRef(
                    diff_id=of(LAYER), chain_id=of(LAYER), blob=of(LAYER), blob_size=len(LAYER), size=4,
                    media_type="application/vnd.oci.image.layer.v1.tar",
                )  # fmt: skip
                catalogue.add(ImageRecord(id=image, layers=(layer,), added=number))
                for tag in range(TAGS):
                    catalogue.tag(parse(f"example.org/team/image{number}:v{tag}"), image, number)
    finally:
        state.close()
    yield made
    made.close()


def processor_time(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def test_a_thousand_images_are_listed_within_150_ms_and_cost_a_start_little(crowded: Daemon) -> None:
    empty = Daemon().start()
    alone = processor_time(empty)
    empty.close()
    crowded.start()
    spent = processor_time(crowded)
    connection, took = UnixHttp(crowded.sock), []
    for _ in range(7):
        begun = time.monotonic()
        connection.request("GET", "/images/json")
        body = connection.getresponse().read()
        took.append(time.monotonic() - begun)
    connection.close()
    assert body.count(b'"RepoTags"') == IMAGES and body.count(b":v4") == IMAGES
    assert min(took) < 0.150, took
    assert spent - alone < 0.5, (spent, alone)  # of the second that a start may take
