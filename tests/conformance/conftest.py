"""One daemon for the tier; the real docker client and docker-py drive it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.daemon import Daemon
from support.tiers import running, skip_without

# From 3.13 on http.client flushes a response when it is collected; those of docker-py have been closed beneath it by then.
DOCKER_PY = "ignore:Exception ignored in. <http.client.HTTPResponse:pytest.PytestUnraisableExceptionWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_without(items, "conformance", "docker")
    for item in items:
        if "tests/conformance" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings(DOCKER_PY))


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[Daemon]:
    with running() as made:
        yield made


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The tier's daemon, without containers before and after."""
    yield shared_daemon
    shared_daemon.remove_all()
