"""Network namespaces: setns(2) of one thread, there and back.

/proc/sys/net and new sockets belong to the namespace of the calling thread; a socket keeps the namespace it was
made in.  So a netlink socket for another namespace is made inside it and used from outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from sampan.kernel.calls import bind
from sampan.kernel.fds import Fd, open_fd

CLONE_NEWNET = 0x40000000
_setns = bind("setns", ctypes.c_int, ctypes.c_int, hold_gil=True)
_unshare = bind("unshare", ctypes.c_int)


def current() -> Fd:
    """Return the calling thread's network namespace."""
    return open_fd("/proc/thread-self/ns/net", os.O_RDONLY)


def enter(namespace: int | Fd) -> None:
    """Move the calling thread into `namespace`.  Needs CAP_SYS_ADMIN in its owning user namespace."""
    _setns(int(namespace), CLONE_NEWNET, subject="network namespace")


def unshare() -> None:
    """Give the calling thread a new network namespace."""
    _unshare(CLONE_NEWNET, subject="network namespace")


@contextlib.contextmanager
def inside(namespace: int | Fd) -> Iterator[None]:
    """Run the block with the calling thread in `namespace`.

    A thread that cannot come back would do the daemon's work in a container's namespace: the process is aborted then.
    """
    with current() as home:
        enter(namespace)
        try:
            yield
        finally:
            try:
                enter(home)
            except OSError:
                os.abort()


def read_sysctl(name: str) -> str:
    """Return /proc/sys/net/`name` (parts separated by slashes) of the calling thread's namespace."""
    with open_fd(f"/proc/sys/net/{name}", os.O_RDONLY) as file:
        return os.read(file.fileno(), 4096).decode().strip()


def write_sysctl(name: str, value: str) -> None:
    """Write /proc/sys/net/`name` of the calling thread's namespace."""
    with open_fd(f"/proc/sys/net/{name}", os.O_WRONLY) as file:
        os.write(file.fileno(), value.encode())
