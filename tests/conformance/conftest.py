"""One daemon for the tier; the real docker client and docker-py drive it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from support.daemon import BUSYBOX, Daemon


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [what for what, there in (("root", os.geteuid() == 0), ("/bin/busybox", BUSYBOX.exists())) if not there]
    if shutil.which("docker") is None:
        missing.append("the docker command")
    for item in items:
        if missing and "conformance" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[Daemon]:
    daemon = Daemon().start()
    try:
        daemon.import_busybox()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The tier's daemon, without containers before and after."""
    yield shared_daemon
    shared_daemon.remove_all()
