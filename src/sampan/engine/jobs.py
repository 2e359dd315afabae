"""The textbook's job table: every request is a job with a name, arguments, a beginning and an end, logged both times."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Mapping

from sampan.engine.images.image import rfc3339
from sampan.wire import system as s

KEPT = 256

log = logging.getLogger("sampan.jobs")


class Job:
    """One entry; a context manager that lives as long as the request."""

    def __init__(self, jobs: Jobs, name: str, arguments: Mapping[str, str]) -> None:
        self.id = secrets.token_hex(4)
        self.name = name
        self.arguments = dict(arguments)
        self.started = time.time_ns()
        self.result = ""
        self._begin = time.monotonic()
        self._end = 0.0
        self._jobs = jobs

    def __enter__(self) -> Job:
        self._jobs.running[self.id] = self
        if log.isEnabledFor(logging.INFO):
            log.info("[%s] +job %s", self.id, self._call())
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._end = time.monotonic()
        self.result = "OK (0)" if error is None else f"ERR ({str(error) or type(error).__name__})"
        self._jobs.running.pop(self.id, None)
        self._jobs.done.append(self)
        if log.isEnabledFor(logging.INFO):
            log.info("[%s] -job %s = %s", self.id, self._call(), self.result.encode("unicode_escape").decode())

    def _call(self) -> str:
        arguments = ", ".join(f"{key}={value}" for key, value in self.arguments.items())
        return f"{self.name}({arguments.encode('unicode_escape').decode()[:512]})"

    def shown(self) -> s.Job:
        return s.Job(
            id=self.id, name=self.name, arguments=self.arguments, started=rfc3339(self.started), result=self.result,
            duration=round(self._end - self._begin, 6) if self._end else None,
        )  # fmt: skip


class Jobs:
    """The running ones, and the last 256 that ended."""

    def __init__(self) -> None:
        self.running: dict[str, Job] = {}
        self.done: deque[Job] = deque(maxlen=KEPT)

    def open(self, name: str, arguments: Mapping[str, str]) -> Job:
        return Job(self, name, arguments)

    def shown(self, *, all: bool) -> list[s.Job]:
        """Return the running jobs, and with `all` those that ended too, oldest first."""
        return [job.shown() for job in (*(self.done if all else ()), *self.running.values())]
