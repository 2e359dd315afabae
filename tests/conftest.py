"""Every test session proves that the host is as it was found."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import lanes
from support.host import HostState


def pytest_configure() -> None:
    """SAMPAN_TEST_GC=never|always runs everything without the garbage collector, or with it at every moment (P19)."""
    rule = os.environ.get("SAMPAN_TEST_GC")
    if rule == "never":
        gc.disable()
    elif rule == "always":
        gc.set_threshold(1)


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: looking through them takes a tenth of a second of whatever is measured."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """In one of two lanes (support/lanes.py) only what the other has not taken."""
    return lanes.share(session) or None


@pytest.fixture(scope="session", autouse=True)
def host_as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the session when mounts, links, namespaces, nft tables, cgroups, processes or sockets are left behind.

    The unit tier alone touches nothing of the host, and may run beside other daemons.  SAMPAN_SHARED_HOST=1 leaves the check
    out, for developers who run several sessions on one host at once: each would be blamed for the others' things.
    """
    if os.environ.get("SAMPAN_SHARED_HOST"):
        yield
        return
    before = HostState.now()
    yield
    if os.geteuid() == 0 and any("unit" not in item.path.parts for item in request.session.items):
        leaked = HostState.now().leaked_since(before)
        assert not leaked, f"left on the host: {leaked}"
