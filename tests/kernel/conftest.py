"""Fixtures of the kernel tier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import Boxes

from sampan.launch.client import sealed_interpreter, start_spawner


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Boxes]:
    """A spawner of its own and a place for root file systems."""
    with sealed_interpreter() as interpreter:
        made = Boxes(tmp_path, start_spawner(interpreter))
    yield made
    made.close()
