"""A tar to standard output or to a file, which appears under its name only when it is whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from sampan.cli.main import Exit


def write_tar(target: str, blocks: Iterable[bytes]) -> None:
    """Write to the file `target`, or to stdout when it is empty.  Raises Exit for a terminal, OSError."""
    if not target:
        if sys.stdout.isatty():
            raise Exit(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
        for data in blocks:
            sys.stdout.buffer.write(data)
        return
    part = f"{target}.part-{os.getpid()}"
    try:
        with open(part, "xb") as file:
            for data in blocks:
                file.write(data)
        os.replace(part, target)
    except BaseException:
        if os.path.exists(part):
            os.unlink(part)
        raise


def check_target(path: str) -> None:
    """Raise Exit unless something can be written at `path`, in docker's words."""
    folder = os.path.dirname(path.rstrip("/"))
    if folder and not os.path.isdir(folder):
        raise Exit(1, f'invalid output path: directory "{folder}" does not exist')
