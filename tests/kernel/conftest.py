"""Fixtures of the kernel tier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import Boxes
from net_place import World

from sampan.launch.client import start_spawner
from sampan.launch.sealed import sealed_interpreter


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Boxes]:
    """A spawner of its own and a place for root file systems."""
    with sealed_interpreter() as interpreter:
        made = Boxes(tmp_path, start_spawner(interpreter))
    yield made
    made.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A host's network namespace of the test's own, left with everything undone."""
    made = World(tmp_path)
    yield made
    made.close()
