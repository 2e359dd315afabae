"""What the tiers with a daemon of their own have in common."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.daemon import BUSYBOX, Daemon


def skip_without(items: list[pytest.Item], tier: str, *commands: str) -> None:
    """Skip a tier's tests where root, the static busybox or a command is missing, and say which."""
    missing = [] if os.geteuid() == 0 else ["root"]
    missing += [] if BUSYBOX.exists() else [str(BUSYBOX)]
    missing += [f"the {name} command" for name in commands if shutil.which(name) is None]
    for item in items:
        if f"tests/{tier}" not in str(item.path):
            continue
        wanted = item.get_closest_marker("docker_client")
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))
        elif wanted is not None and docker_client() < wanted.args[0]:
            item.add_marker(pytest.mark.skip(reason=f"needs the docker client {wanted.args[0]}, here is {docker_client()}"))


@functools.cache
def docker_client() -> int:
    """Return the docker client's major version, 0 without one: Debian 12 has 20, whose flags and words are fewer."""
    if shutil.which("docker") is None:
        return 0
    shown = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout
    return int(shown.split()[2].partition(".")[0])


@contextmanager
def running(environment: dict[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon with the busybox image."""
    made = Daemon(environment=environment).start()
    try:
        made.import_busybox()
        yield made
    finally:
        made.close()
