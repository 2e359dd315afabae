"""A user at one end of a process: bytes both ways, the terminal's modes and size, signals, the end of input."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from sampan.client.connect import Hijacked
from sampan.client.errors import ClientError
from sampan.client.stream import Demultiplexer
from sampan.wire.frames import STDERR, STDOUT

DETACHED = "read escape sequence"
Resize = Callable[[int, int], None]


def write(stream: int, data: bytes) -> None:
    """Write all to our stdout or stderr, past every buffer."""
    fd = 2 if stream == STDERR else 1
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def check_terminal(*, tty: bool, stdin: bool) -> None:
    """Refuse -it without a terminal.  Raises Exit."""
    if tty and stdin and not os.isatty(0):
        from sampan.cli.main import Exit

        raise Exit(1, "the input device is not a TTY")


def window() -> tuple[int, int] | None:
    """Rows and columns of our terminal, if there is one."""
    for fd in (1, 0, 2):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        return (size.lines, size.columns) if size.lines and size.columns else None
    return None


@contextlib.contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Our terminal in raw mode: keys go to the process; as it was before at the end."""
    if not wanted or not os.isatty(0):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSANOW)  # what was typed already is not thrown away
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def resizing(resize: Resize, wanted: bool) -> Iterator[Callable[[], None]]:
    """Tell the process our size when called, and whenever it changes."""

    def tell(*_: object) -> None:
        size = window()
        if size is not None:
            with contextlib.suppress(ClientError):  # it has ended, or will be told at its start
                resize(*size)

    if not wanted:
        yield lambda: None
        return
    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield tell
    finally:
        signal.signal(signal.SIGWINCH, before)


FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGALRM")


class Proxy:
    """Signals that we receive go to the process; a third interrupt that changes nothing ends us."""

    def __init__(self, kill: Callable[[str], None]) -> None:
        self._kill = kill
        self._interrupts = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 2:
                raise KeyboardInterrupt
        # a request of its own, beside whatever the main thread waits for
        threading.Thread(target=self._send, args=(number,), daemon=True).start()

    def _send(self, number: int) -> None:
        with contextlib.suppress(ClientError):
            self._kill(str(number))


@contextlib.contextmanager
def proxied(kill: Callable[[str], None], wanted: bool) -> Iterator[None]:
    """Forward signals while inside."""
    if not wanted:
        yield
        return
    proxy, before = Proxy(kill), {}
    for number in (signal.Signals[name] for name in FORWARDED):
        before[number] = signal.signal(number, proxy)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Pump:
    """Moves bytes between us and a process until its output ends.

    `stdin` False sends nothing.  Input is read by this one thread, and only while the process takes it.
    """

    def __init__(self, stream: Hijacked, *, tty: bool, stdin: bool) -> None:
        self._stream = stream
        self._frames = None if tty else Demultiplexer()
        self._stdin = stdin
        self._waiting = b""
        self._tty = tty

    def run(self) -> None:
        """Raises ApiError for the daemon's own words in the stream."""
        poller = select.poll()
        network = self._stream.fileno()
        stdin_here = self._stdin
        while True:
            poller.register(network, select.POLLIN | (select.POLLOUT if self._waiting else 0))
            if stdin_here and not self._waiting:
                poller.register(0, select.POLLIN)
            events = [(network, select.POLLIN)] if self._stream.pending() else poller.poll()
            for fd, what in events:
                if fd == 0:
                    stdin_here = self._input()
                    if self._waiting or not stdin_here:
                        poller.unregister(0)
                elif what & select.POLLOUT:
                    self._push()
                if fd == network and what & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._output():
                    return

    def _input(self) -> bool:
        """Read what is typed or piped; False at its end."""
        try:
            data = os.read(0, 65536)
        except OSError:
            data = b""
        if not data:
            self._stream.end_input()
            return False
        self._waiting = data
        self._push()
        return True

    def _push(self) -> None:
        """Send as much as the process's side takes now."""
        try:
            sent = self._stream.write_some(self._waiting)
        except OSError:  # it reads no more
            sent = len(self._waiting)
        self._waiting = self._waiting[sent:]

    def _output(self) -> bool:
        data = self._stream.read()
        if not data:
            return False
        if self._frames is None:
            write(STDOUT, data)
        else:
            for stream, piece in self._frames.feed(data):
                write(stream, piece)
        return True


def detached_note(ended: bool) -> None:
    """Say that the keys were typed, when the process goes on."""
    if not ended:
        print("\r\n" + DETACHED if os.isatty(0) else DETACHED, file=sys.stderr)
