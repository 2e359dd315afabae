"""Sampan and a real dockerd side by side, asked the same things in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import BUSYBOX, Daemon
from support.oracle import Oracle, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = missing() or ("" if BUSYBOX.exists() else str(BUSYBOX))
    for item in items:
        if lacks and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"no oracle: {lacks} is missing"))


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    made = Oracle()
    try:
        made.start().import_busybox()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def sampan() -> Iterator[Daemon]:
    made = Daemon().start()
    try:
        made.import_busybox()
        yield made
    finally:
        made.close()
