"""What the documents point at is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_file_that_the_walk_names_exists() -> None:
    named = re.findall(r"`(src/[\w/.]+)`", (ROOT / "docs/walk.md").read_text())

    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_security_duty_of_the_first_issues_has_a_test_of_its_number() -> None:
    """Rows and P numbers, as CONTRIBUTING.md has it.  Row 92 is about plugins' privileges: there are no plugins."""
    tests = re.findall(r"def (test_\w+)", "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py")))
    rows: set[int] = set()
    for name in tests:
        for first, last in re.findall(r"rows?_(\d+)_to_(\d+)", name):
            rows.update(range(int(first), int(last) + 1))
        for numbers in re.findall(r"rows?_((?:and_)?\d+(?:_(?:and_)?\d+(?=_|$))*)", name):
            rows.update(map(int, re.findall(r"\d+", numbers)))
    python = {int(number) for name in tests for number in re.findall(r"_p(\d+)(?=_|$)", name)}

    assert [number for number in (*range(1, 92), *range(93, 104), 105, 106) if number not in rows] == []
    assert [number for number in range(1, 20) if number not in python] == []
