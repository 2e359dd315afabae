"""The pipes between a process and whoever carries its output."""

from __future__ import annotations

import os

from sampan.kernel.fds import Fd, open_fd, pipe


class Pipes:
    """The three streams of a process without a terminal: its ends (`inner`, for 0, 1, 2) and the others, by name.

    Without input, 0 is the host's /dev/null.
    """

    def __init__(self, *, takes_input: bool) -> None:
        self.inner: list[Fd] = []
        self.outer: dict[str, Fd] = {}
        try:
            if takes_input:
                reading, self.outer["stdin"] = pipe()
            else:
                reading = open_fd("/dev/null", os.O_RDONLY)
            self.inner.append(reading)
            for name in ("stdout", "stderr"):
                self.outer[name], writing = pipe()
                self.inner.append(writing)
        except BaseException:
            for fd in (*self.inner, *self.outer.values()):
                fd.close()
            raise
