"""Mutated manifests, configurations and layers from a registry: whole or refused with a reason, nothing left, others served.

SAMPAN_MUTANTS: how many (default 300).
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, pings_while
from support.holds import PATIENCE
from support.images import LAYER, TOP, config
from support.registry import CONFIG, MANIFEST, Registry, descriptor
from support.registry import LAYER as LAYER_TYPE

MUTANTS = int(os.environ.get("SAMPAN_MUTANTS", "300"))
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 63, 1 << 70, 1e300, "", "x" * 5000, "../../etc/passwd", "sha256:" + "0" * 64, "sha256:../x", "\0", [],
    {}, [[[[]]]], ["x"] * 1000, {"digest": "x"}, "application/vnd.oci.image.index.v1+json", "linux", "\ud800",
)  # fmt: skip


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    found: list[tuple[Any, Any]] = []
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    for key in keys:
        found += [(value, key), *places(value[key])]
    return found


def mutated_document(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.3:
        return mutated_bytes(content, chance)
    document = copy.deepcopy(json.loads(content))
    for _ in range(chance.choice((1, 1, 2))):
        where, key = chance.choice(places(document) or [(document, "x")])
        if chance.random() < 0.25 and key in (where if isinstance(where, dict) else range(len(where))):
            del where[key]
        else:
            where[key] = chance.choice(STRANGE)
    return json.dumps(document).encode()


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[: chance.choice((len(changed), len(changed), chance.randrange(len(changed))))])


def put(registry: Registry, number: int) -> str:
    """Put an image with one thing mutated, everything around it made to fit; return its tag."""
    chance, kind = random.Random(number), ("manifest", "config", "layer")[number % 3]
    layers = [mutated_bytes(LAYER, chance), TOP] if kind == "layer" else [LAYER, TOP]
    blobs = [gzip.compress(layer, 1, mtime=0) for layer in layers]
    document = config(*layers)
    if kind == "config":
        document = mutated_document(document, chance)
    for one in (*blobs, document):
        registry.add(one)
    body = {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, document),
        "layers": [descriptor(LAYER_TYPE, blob) for blob in blobs],
    }  # fmt: skip
    content = json.dumps(body).encode()
    registry.put("a", mutated_document(content, chance) if kind == "manifest" else content, MANIFEST, f"m{number}")
    return f"m{number}"


def status(daemon: Daemon, key: str) -> int:
    with open(f"/proc/{daemon.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def stored(folder: Path) -> int:
    """Return the bytes on the disk below a folder from which others take files away."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def sizes_while(folder: Path, work: list[threading.Thread]) -> Iterator[int]:
    """Yield what is stored until the work has ended."""
    while alive := [one for one in work if one.is_alive()]:
        yield stored(folder)
        alive[0].join(0.05)


@pytest.mark.alone
@pytest.mark.timeout(60 + MUTANTS)
def test_rows_47_48_49_54_mutants_are_refused_or_whole_and_leave_nothing(lone: Daemon, registry: Registry) -> None:
    registry.image("a", "1", LAYER, TOP)
    lone.ok("POST", f"/images/create?fromImage={registry.host}/a&tag=1")
    lone.ok("DELETE", f"/images/{registry.host}/a:1?force=1")
    memory, fds = status(lone, "VmRSS"), len(os.listdir(f"/proc/{lone.pid}/fd"))
    Path(f"/proc/{lone.pid}/clear_refs").write_text("5")  # the most it had is counted from here on (proc(5))
    disk = stored(lone.data_root)
    waiting, failures = list(range(MUTANTS)), []
    refused: list[int] = []

    def work() -> None:
        while waiting:
            number = waiting.pop()
            tag = put(registry, number)
            answer = lone.call("POST", f"/images/create?fromImage={registry.host}/a&tag={tag}", timeout=120)
            if answer.status >= 400 or b'"error"' in answer.body:
                refused.append(number)
                if (answer.status == 500 and b'"message"' not in answer.body) or b"Traceback" in answer.body:
                    failures.append((number, answer))
            elif lone.call("DELETE", f"/images/{registry.host}/a:{tag}?force=1").status >= 400:
                failures.append((number, answer))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for one in workers:
        one.start()
    most: list[int] = []
    measuring = threading.Thread(target=lambda: most.extend(sizes_while(lone.data_root, workers)))
    measuring.start()
    waits = sorted(pings_while(lone.sock, workers))
    measuring.join()

    assert not failures, failures[:3]
    assert len(refused) > MUTANTS / 2
    assert waits[int(len(waits) * 0.99)] < 0.1 and waits[-1] < 1.0, waits[-5:]  # a hundredth for what else the machine does
    assert status(lone, "VmHWM") - memory < 64 << 10
    assert max(most) - disk < 16 << 20, max(most)
    deadline = time.monotonic() + PATIENCE  # connections end a moment after their clients, idle unpackers after a while
    while (held := len(os.listdir(f"/proc/{lone.pid}/fd"))) > fds + 4:
        assert time.monotonic() < deadline, held
    where = lone.log.find("Traceback")
    assert where < 0, lone.log[where - 300 : where + 4000]
    lone.ok("POST", '/images/prune?filters={"dangling":["false"]}')
    lone.restart()
    assert lone.ok("GET", "/images/json?all=1") == []
    partials = sum(path.stat().st_size for path in (lone.data_root / "content/partial").iterdir())
    assert partials < 1 << 20 and not list((lone.data_root / "layers/tmp").iterdir())
    assert not list((lone.data_root / "content/ingest").iterdir())
