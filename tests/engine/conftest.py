"""A daemon for the tier, and proof that it leaves the host as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.places import Place
from support.tiers import running, skip_without


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_without(items, "engine")


@pytest.fixture(scope="session")
def engine_daemon() -> Iterator[Daemon]:
    with running({"CANARY": "of-the-daemon"}) as made:
        yield made


@pytest.fixture
def daemon(engine_daemon: Daemon) -> Iterator[Daemon]:
    """The tier's daemon, without containers before and after."""
    yield engine_daemon
    engine_daemon.remove_all()


@pytest.fixture
def lone() -> Iterator[Daemon]:
    """A daemon of the test's own, which may be killed."""
    made = Daemon().start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A data root of the test's own, without a daemon."""
    with Place(tmp_path) as made:
        yield made


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Place]:
    """Another one."""
    (tmp_path / "other").mkdir()
    with Place(tmp_path / "other") as made:
        yield made
