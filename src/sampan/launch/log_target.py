"""The log of a container: which writer a LogTarget means."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sampan.errors import StepFailed
from sampan.kernel.fds import Fd
from sampan.launch.streams import Log
from sampan.logs import json_file
from sampan.messages import LogTarget


def check(target: LogTarget, fds: Sequence[Fd]) -> None:
    """Open the log and close it again: a start must fail when its output could not be kept.  Raises StepFailed, OSError."""
    if target.driver == "none" or target.fd is None:
        return
    _open(target, Fd(os.dup(fds[target.fd].fileno()))).close()


def open_log(target: LogTarget, fds: Sequence[Fd]) -> Log | None:
    """Return the writer, which owns the descriptor from here on; None when nothing is kept.  Raises as `check` does."""
    if target.driver == "none" or target.fd is None:
        return None
    return _open(target, fds[target.fd])


def _open(target: LogTarget, folder: Fd) -> Log:
    if target.driver != "json-file":
        raise StepFailed("log", 0, f"no log driver {target.driver!r}")
    return json_file.Writer(folder.take(), target.name, target.options)
