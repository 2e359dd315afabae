"""Descriptors with one owner, and the calls that only move descriptors about.

An `Fd` is closed once, by its owner; there is no finaliser (SECURITY.md P10, P19): a forgotten Fd is a leak
that tests count, never a second close of somebody else's number.  Functions of this room take a borrowed
int (`Fd` counts as one) and return a new `Fd`; every new descriptor is close-on-exec.
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import socket
from collections.abc import Iterable
from types import TracebackType

from sampan.kernel.calls import Subject, bind

_close_range = bind("close_range", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_memfd_create = bind("memfd_create", ctypes.c_char_p, ctypes.c_uint)

CLOSE_RANGE_CLOEXEC = 4
MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_EXEC = 0x01, 0x02, 0x10
# Plain numbers: what is an enum in `socket` costs a keeper a dozen pages.
_MSG_CMSG_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
MAX_FDS_PER_MESSAGE = 253  # SCM_MAX_FD, net/scm.h


class Fd:
    """A descriptor with one owner.  A context manager; `take()` gives the ownership away."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """Return the number; ValueError once closed or taken."""
        if self._number < 0:
            raise ValueError("descriptor is closed")
        return self._number

    def __index__(self) -> int:
        return self.fileno()

    def __int__(self) -> int:
        return self.fileno()

    def take(self) -> int:
        """Return the number and forget it: the caller owns it from here on."""
        number, self._number = self.fileno(), -1
        return number

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._number >= 0:
            number, self._number = self._number, -1
            os.close(number)

    @property
    def closed(self) -> bool:
        return self._number < 0

    @property
    def path(self) -> str:
        """The /proc name by which path-taking calls reach this very object."""
        return f"/proc/self/fd/{self.fileno()}"

    def __enter__(self) -> Fd:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Fd({self._number})"


def open_fd(path: str | bytes | os.PathLike[str], flags: int, mode: int = 0o600, *, at: int | Fd | None = None) -> Fd:
    """open(2), close-on-exec, relative to the directory `at`."""
    return Fd(os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=None if at is None else int(at)))


def pipe() -> tuple[Fd, Fd]:
    """Return (reading end, writing end), both close-on-exec."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    return Fd(reading), Fd(writing)


def memfd(name: str, content: bytes = b"", *, executable: bool = False) -> Fd:
    """memfd_create(2) holding `content`, its offset at the start.  Linux 3.17.  executable: it can be sealed and executed."""
    flags = (MFD_CLOEXEC, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC)[executable]
    try:
        made = Fd(_memfd_create(name.encode(), flags, subject=name))
    except OSError as error:
        if not executable or error.errno != errno.EINVAL:
            raise
        made = Fd(_memfd_create(name.encode(), flags & ~MFD_EXEC, subject=name))  # before Linux 6.3 every memfd is executable
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(made.fileno(), view) :]
        os.lseek(made.fileno(), 0, os.SEEK_SET)
    except BaseException:
        made.close()
        raise
    return made


def close_from(first: int, *, only_mark: bool = False) -> None:
    """Close (or with `only_mark` set close-on-exec on) every descriptor from `first` up.  Linux 5.9 / 5.11."""
    _close_range(first, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC if only_mark else 0, subject=f"fds from {first}")


def keep_only(numbers: Iterable[int]) -> None:
    """Close every descriptor but these.  For a fresh child only: it does not ask the objects that own them."""
    first = 0
    for number in sorted(set(numbers)):
        if number > first:
            _close_range(first, number - 1, 0, subject=f"fds {first}-{number - 1}")
        first = number + 1
    _close_range(first, 0xFFFFFFFF, 0, subject=f"fds from {first}")


def send_with_fds(connection: socket.socket, data: bytes, fds: Iterable[int | Fd] = (), flags: int = 0) -> None:
    """Send one packet on a SEQPACKET socket with copies of `fds` (SCM_RIGHTS, unix(7))."""
    numbers = array.array("i", [int(fd) for fd in fds])
    if len(numbers) > MAX_FDS_PER_MESSAGE:
        raise ValueError(f"{len(numbers)} descriptors in one message, at most {MAX_FDS_PER_MESSAGE}")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers.tobytes())] if numbers else []
    connection.sendmsg([data], ancillary, flags)


def receive_with_fds(connection: socket.socket, limit: int = 65536, flags: int = 0) -> tuple[bytes, list[Fd]]:
    """Receive one packet and the descriptors that came with it (close-on-exec).  b"" means the peer is gone.

    Raises OSError(EMSGSIZE) when the packet or its descriptors were cut; nothing received is kept open then.
    """
    space = socket.CMSG_SPACE(MAX_FDS_PER_MESSAGE * 4)
    data, ancillary, seen, _ = connection.recvmsg(limit, space, flags | _MSG_CMSG_CLOEXEC)
    fds: list[Fd] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
            fds += [Fd(number) for number in numbers]
    if seen & _CUT:
        for fd in fds:
            fd.close()
        raise OSError(90, "packet or its descriptors were cut")
    return data, fds


def identity(fd: int | Fd, subject: Subject = None) -> tuple[int, int]:
    """Return (device, inode): which object the descriptor holds."""
    found = os.fstat(int(fd))
    return found.st_dev, found.st_ino
