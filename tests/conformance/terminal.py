"""A terminal for programs that want one: a PTY whose other side the test reads and types into."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time


class Terminal:
    """Run `command` with a PTY as its controlling terminal."""

    def __init__(self, *command: str, rows: int = 24, columns: int = 80) -> None:
        self.output = b""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # who is started in the background ignores it, and so would the program
            os.execvp(command[0], command)
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size; the program gets SIGWINCH."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self._fd, text)

    def wait_for(self, text: bytes, seconds: float = 20) -> bytes:
        """Return what came up to and including `text`, and forget it; AssertionError when it does not come."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            readable, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"{text!r} did not come; got {self.output[-500:]!r}"
            try:
                chunk = os.read(self._fd, 65536)
            except OSError:
                chunk = b""
            assert chunk, f"{text!r} did not come before the end; got {self.output[-500:]!r}"
            self.output += chunk
        head, _, self.output = self.output.partition(text)
        return head + text

    def end(self, seconds: float = 20) -> int:
        """Drain the output, wait for the program and return its exit code."""
        deadline = time.monotonic() + seconds
        while True:
            readable, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"the program goes on; got {self.output[-500:]!r}"
            try:
                chunk = os.read(self._fd, 65536)
            except OSError:
                break
            if not chunk:
                break
            self.output += chunk
        _, status = os.waitpid(self._pid, 0)
        os.close(self._fd)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._fd)
