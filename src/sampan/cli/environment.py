"""Variables and labels from flags and from files of them."""

from __future__ import annotations

import os

from sampan.cli.main import Exit


def _lines(path: str) -> list[str]:
    """The lines of a file that say something.  Raises Exit."""
    try:
        with open(path, encoding="utf-8") as file:
            found = [line.rstrip("\r\n").lstrip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise Exit(125, f"open {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    return [line for line in found if line and not line.startswith("#")]


def environment(given: list[str], files: list[str]) -> list[str]:
    """--env-file, then --env: "K=V", and "K" alone taken from our own environment or, unset there, left out."""
    made = []
    for one in [line for path in files for line in _lines(path)] + list(given):
        name, equals, _ = one.partition("=")
        if not name or (name != name.strip() and not equals):
            raise Exit(125, f"invalid environment variable: {one}")
        if equals:
            made.append(one)
        elif name in os.environ:
            made.append(f"{name}={os.environ[name]}")
        elif one in given:
            made.append(one)  # docker passes it on: it removes the image's
    return made


def labels(given: list[str], files: list[str]) -> dict[str, str]:
    """--label-file, then --label."""
    made = {}
    for one in [line for path in files for line in _lines(path)] + list(given):
        name, _, value = one.partition("=")
        if not name:
            raise Exit(125, f"invalid label '{one}': empty name")
        made[name] = value
    return made
