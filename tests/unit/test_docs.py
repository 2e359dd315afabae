"""What the documents point at is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_file_that_the_walk_names_exists() -> None:
    named = re.findall(r"`(src/[\w/.]+)`", (ROOT / "docs/walk.md").read_text())

    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
