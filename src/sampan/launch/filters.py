"""Compiled seccomp filters, kept by the daemon: most containers share one, and compiling takes longer than a start."""

from __future__ import annotations

import os
import threading

from sampan.kernel import seccomp
from sampan.kernel.fds import Fd, memfd
from sampan.oci.runtime import Seccomp

_KEPT = 16


class Filters:
    """Owns a memfd for each of the last profiles."""

    def __init__(self) -> None:
        self._kept: dict[Seccomp, Fd] = {}
        self._lock = threading.Lock()

    def compiled(self, wanted: Seccomp) -> Fd:
        """Return the filter's program as a memfd, the caller's to close; any thread.

        Raises an error of errors.py for what cannot be compiled.
        """
        with self._lock:
            if wanted not in self._kept:
                program = memfd("sampan-filter", seccomp.compile(wanted))
                while len(self._kept) >= _KEPT:
                    self._kept.pop(next(iter(self._kept))).close()
                self._kept[wanted] = program
            return Fd(os.dup(self._kept[wanted].fileno()))

    def close(self) -> None:
        for program in self._kept.values():
            program.close()
        self._kept.clear()
