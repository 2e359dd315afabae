"""One daemon for the tier; the real docker client and docker-py drive it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.daemon import Daemon
from support.tiers import running, skip_without


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_without(items, "conformance", "docker")


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[Daemon]:
    with running() as made:
        yield made


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The tier's daemon, without containers before and after."""
    yield shared_daemon
    shared_daemon.remove_all()
