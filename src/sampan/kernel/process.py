"""Processes and namespaces: clone3, unshare, setns, pidfds, prctl, execveat.

Sources: clone(2), unshare(2), setns(2), pidfd_open(2), pidfd_send_signal(2), prctl(2), execveat(2),
include/uapi/linux/sched.h.
"""

from __future__ import annotations

import ctypes
import os
import signal as _signal
import sys

from sampan.kernel.calls import bind
from sampan.kernel.fds import Fd

_clone3 = bind("clone3", ctypes.c_void_p, ctypes.c_size_t, hold_gil=True)
_unshare = bind("unshare", ctypes.c_int, hold_gil=True)
_setns = bind("setns", ctypes.c_int, ctypes.c_int, hold_gil=True)
_pidfd_open = bind("pidfd_open", ctypes.c_int, ctypes.c_uint)
_pidfd_send_signal = bind("pidfd_send_signal", ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
_prctl = bind("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_execveat = bind(
    "execveat",
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_char_p),
    ctypes.POINTER(ctypes.c_char_p),
    ctypes.c_int,
)
_after_fork_child = ctypes.pythonapi.PyOS_AfterFork_Child
_after_fork_child.argtypes, _after_fork_child.restype = (), None
_before_fork = ctypes.pythonapi.PyOS_BeforeFork
_before_fork.argtypes, _before_fork.restype = (), None
_after_fork_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_parent.argtypes, _after_fork_parent.restype = (), None


class Clone:
    """CLONE_*, include/uapi/linux/sched.h."""

    NONE = 0
    FS = 0x00000200
    PIDFD = 0x00001000
    PARENT = 0x00008000
    NEWTIME = 0x00000080
    NEWNS = 0x00020000
    NEWCGROUP = 0x02000000
    NEWUTS = 0x04000000
    NEWIPC = 0x08000000
    NEWUSER = 0x10000000
    NEWPID = 0x20000000
    NEWNET = 0x40000000
    INTO_CGROUP = 0x200000000


class CloneArguments(ctypes.Structure):
    """struct clone_args; 88 bytes since Linux 5.7."""

    _fields_ = (
        ("flags", ctypes.c_uint64), ("pidfd", ctypes.c_uint64), ("child_tid", ctypes.c_uint64),
        ("parent_tid", ctypes.c_uint64), ("exit_signal", ctypes.c_uint64), ("stack", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64), ("tls", ctypes.c_uint64), ("set_tid", ctypes.c_uint64),
        ("set_tid_size", ctypes.c_uint64), ("cgroup", ctypes.c_uint64),
    )  # fmt: skip


if ctypes.sizeof(CloneArguments) != 88:
    raise ImportError("struct clone_args is not 88 bytes")


def clone(flags: int = Clone.NONE, *, cgroup: int | Fd | None = None) -> tuple[int, Fd | None]:
    """Fork into new namespaces: return (pid, pidfd) in the parent, (0, None) in the child.  Linux 5.3.

    Only for a single-threaded process: the child is a copy of this interpreter.  `cgroup` is a descriptor of a
    cgroup v2 folder that the child starts in (CLONE_INTO_CGROUP, Linux 5.7).  With Clone.PARENT the child's
    parent is the caller's parent, and no exit signal may be asked for.
    """
    pidfd = ctypes.c_int(-1)
    arguments = CloneArguments(
        flags=int(flags | Clone.PIDFD | (Clone.INTO_CGROUP if cgroup is not None else 0)),
        pidfd=ctypes.addressof(pidfd),
        exit_signal=0 if flags & Clone.PARENT else int(_signal.SIGCHLD),
        cgroup=0 if cgroup is None else int(cgroup),
    )
    pid = _forked(ctypes.addressof(arguments), ctypes.sizeof(arguments))
    return (pid, Fd(pidfd.value)) if pid else (0, None)


class PreparedClone:
    """A `clone` into the namespaces of `flags`, its arguments made beforehand: for a process that must write to little memory."""

    def __init__(self, flags: int) -> None:
        self._arguments = CloneArguments(flags=int(flags), exit_signal=int(_signal.SIGCHLD))
        self._at, self._size = ctypes.addressof(self._arguments), ctypes.sizeof(self._arguments)

    def __call__(self) -> int:
        """Fork: return the pid in the parent, 0 in the child."""
        return _forked(self._at, self._size)


def _forked(arguments: int, size: int) -> int:
    """Call clone3, the interpreter prepared on both sides as os.fork does it."""
    _before_fork()
    try:
        pid = _clone3(arguments, size, subject="container process")
    except OSError:
        _after_fork_parent()
        raise
    if pid == 0:
        _after_fork_child()
    else:
        _after_fork_parent()
    return pid


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (unshare(2))."""
    _unshare(int(flags), subject=f"namespaces {flags:#x}")


def setns(fd: int | Fd, flags: int = Clone.NONE) -> None:
    """Join the namespace behind `fd`; with a pidfd, all those of `flags` at once (setns(2), Linux 5.8)."""
    _setns(int(fd), int(flags), subject=f"namespace fd {int(fd)}")


def pidfd_open(pid: int) -> Fd:
    """Return a descriptor that means this process and no later one with its number.  Linux 5.3."""
    return Fd(_pidfd_open(pid, 0, subject=f"pid {pid}"))


def pid_of(pidfd: int | Fd) -> int:
    """Return the number of a pidfd's process in the caller's /proc, -1 once it is reaped (Linux 5.4, fdinfo)."""
    fd = os.open(f"/proc/self/fdinfo/{int(pidfd)}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, 4096)
    finally:
        os.close(fd)
    return int(next(line for line in lines.splitlines() if line.startswith(b"Pid:")).split()[1])


def parent_of(pid: int) -> int:
    """Return the parent's pid, -1 when the process has gone (proc_pid_stat(5))."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        return int(os.read(fd, 4096).rpartition(b")")[2].split()[1])
    except ProcessLookupError:
        return -1
    finally:
        os.close(fd)


def pidfd_signal(pidfd: int | Fd, number: int) -> None:
    """Send a signal through a pidfd; ProcessLookupError when the process has been reaped.  Linux 5.1."""
    _pidfd_send_signal(int(pidfd), number, None, 0, subject=f"pidfd {int(pidfd)}")


class PR:
    """PR_*, include/uapi/linux/prctl.h."""

    SET_PDEATHSIG = 1
    GET_DUMPABLE = 3
    SET_DUMPABLE = 4
    SET_KEEPCAPS = 8
    SET_NAME = 15
    CAPBSET_READ = 23
    CAPBSET_DROP = 24
    SET_CHILD_SUBREAPER = 36
    SET_NO_NEW_PRIVS = 38
    GET_NO_NEW_PRIVS = 39
    CAP_AMBIENT = 47


_OPTIONS = {number: name for name, number in vars(PR).items() if isinstance(number, int)}


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2) for the options whose arguments are numbers."""
    return _prctl(int(option), a, b, c, d, subject=_OPTIONS.get(option))


def set_name(name: str) -> None:
    """Set the thread's name (at most 15 bytes) as `ps` shows it."""
    content = ctypes.create_string_buffer(name.encode()[:15], 16)
    _prctl(int(PR.SET_NAME), ctypes.addressof(content), 0, 0, 0, subject=name)


def write_name(name: str) -> None:
    """Do the same by the file (proc(5), comm), on the host only: a tenth of the memory that a call by ctypes touches."""
    fd = os.open("/proc/thread-self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, name.encode()[:15])
    finally:
        os.close(fd)


def default_signal(number: int) -> None:
    """Give a signal its default action, by the C function: signal.signal's enums would be copied into every keeper."""
    sys.modules["_signal"].signal(number, 0)  # SIG_DFL


def _vector(items: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(items) + 1))(*items, None)


def execveat(fd: int | Fd, path: str, arguments: list[bytes], environment: list[bytes]) -> None:
    """Replace the process by the program behind `fd` (`path` empty) or at `path` relative to it.  Returns only by raising.

    A close-on-exec `fd` cannot run a `#!` script (execveat(2), BUGS): ENOENT.  Linux 3.19.
    """
    flags = 0x1000 if not path else 0  # AT_EMPTY_PATH
    _execveat(int(fd), os.fsencode(path), _vector(arguments), _vector(environment), flags, subject=path or f"fd {int(fd)}")
