"""What the tiers with a daemon of their own have in common."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.daemon import BUSYBOX, Daemon


def skip_without(items: list[pytest.Item], tier: str, *commands: str) -> None:
    """Skip a tier's tests where root, the static busybox or a command is missing, and say which."""
    missing = [] if os.geteuid() == 0 else ["root"]
    missing += [] if BUSYBOX.exists() else [str(BUSYBOX)]
    missing += [f"the {name} command" for name in commands if shutil.which(name) is None]
    if missing:
        for item in items:
            if f"tests/{tier}" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


@contextmanager
def running(environment: dict[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon with the busybox image."""
    made = Daemon(environment=environment).start()
    try:
        made.import_busybox()
        yield made
    finally:
        made.close()
