"""A daemon for the tier, and proof that it leaves the host as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.daemon import BUSYBOX, Daemon


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 or not BUSYBOX.exists():
        for item in items:
            if "tests/engine" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="needs root and /bin/busybox"))


@pytest.fixture(scope="session")
def engine_daemon() -> Iterator[Daemon]:
    made = Daemon(environment={"CANARY": "of-the-daemon"}).start()
    try:
        made.import_busybox()
        yield made
    finally:
        made.close()


@pytest.fixture
def daemon(engine_daemon: Daemon) -> Iterator[Daemon]:
    """The tier's daemon, without containers before and after."""
    yield engine_daemon
    engine_daemon.remove_all()
