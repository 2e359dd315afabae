"""Pseudo-terminals.  Sources: pts(4), ioctl_tty(2), TIOCGPTPEER of Linux 4.13."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from sampan.kernel.fds import Fd

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_terminal(multiplexer: Fd) -> tuple[Fd, Fd]:
    """Return (master, slave) of the terminal that an open ptmx stands for.

    The slave comes from the master itself (TIOCGPTPEER), not from a path in somebody's /dev/pts (SECURITY.md row 3).
    """
    master = Fd(fcntl.fcntl(multiplexer.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
    try:
        fcntl.ioctl(master.fileno(), _TIOCSPTLCK, struct.pack("i", 0))
        slave = Fd(fcntl.ioctl(master.fileno(), _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except BaseException:
        master.close()
        raise
    return master, slave


def set_size(terminal: int | Fd, height: int, width: int) -> None:
    """Set a terminal's size in characters; its foreground processes get SIGWINCH."""
    fcntl.ioctl(int(terminal), termios.TIOCSWINSZ, struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))


def make_controlling(terminal: int | Fd) -> None:
    """Make it the calling session leader's controlling terminal."""
    fcntl.ioctl(int(terminal), termios.TIOCSCTTY, 0)
