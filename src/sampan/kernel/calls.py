"""How every raw system call of Sampan is made: bound once, EINTR retried, failure is OSError with a subject.

`syscall(2)` is used rather than libc's wrappers, so that the numbers, not the age of libc, decide what can
be called.  `ctypes.PyDLL` keeps the GIL for calls that must not let another thread in (clone3, setns).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable

Subject = str | bytes | os.PathLike[str] | None

_libc = ctypes.CDLL(None, use_errno=True)
_libc_holding_gil = ctypes.PyDLL(None, use_errno=True)

# x86-64 and arm64 agree on every number from 424 up; below that they have their own tables.
_LEGACY = {
    "x86_64": {
        "prctl": 157, "capget": 125, "capset": 126, "pivot_root": 155, "mount": 165, "umount2": 166,
        "keyctl": 250, "setns": 308, "unshare": 272, "seccomp": 317, "bpf": 321, "mknodat": 259,
        "memfd_create": 319, "setfsuid": 122, "setfsgid": 123, "sethostname": 170, "setdomainname": 171,
        "setgroups": 116, "setresuid": 117, "setresgid": 119, "execveat": 322, "renameat2": 316, "statx": 332,
        "name_to_handle_at": 303, "syncfs": 306, "sync_file_range": 277, "fchownat": 260, "utimensat": 280, "personality": 135,
        "inotify_init1": 294, "inotify_add_watch": 254, "kcmp": 312, "fchmodat": 268,
    },
    "aarch64": {
        "prctl": 167, "capget": 90, "capset": 91, "pivot_root": 41, "mount": 40, "umount2": 39,
        "keyctl": 219, "setns": 268, "unshare": 97, "seccomp": 277, "bpf": 280, "mknodat": 33,
        "memfd_create": 279, "setfsuid": 151, "setfsgid": 152, "sethostname": 161, "setdomainname": 162,
        "setgroups": 159, "setresuid": 147, "setresgid": 149, "execveat": 281, "renameat2": 276, "statx": 291,
        "name_to_handle_at": 264, "syncfs": 267, "sync_file_range": 84, "fchownat": 54, "utimensat": 88, "personality": 92,
        "inotify_init1": 26, "inotify_add_watch": 27, "kcmp": 272, "fchmodat": 53,
    },
}  # fmt: skip
_COMMON = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438,
    "mount_setattr": 442, "fchmodat2": 452, "statmount": 457, "listmount": 458,
}  # fmt: skip

MACHINE = platform.machine()
NUMBERS: dict[str, int] = {**_LEGACY.get(MACHINE, {}), **_COMMON}


def bind(name: str, *argtypes: type, hold_gil: bool = False) -> Callable[..., int]:
    """Return a Python function for the raw system call `name`; the subject keyword names what it works on.

    The function returns the call's non-negative result and raises OSError(errno, text, subject).
    """
    number = NUMBERS.get(name, -1)
    # Indexing (unlike attribute access) returns a new function object, so each call has its own prototype.
    function = (_libc_holding_gil if hold_gil else _libc)["syscall"]
    function.argtypes, function.restype = (ctypes.c_long, *argtypes), ctypes.c_long

    def call(*arguments: object, subject: Subject = None) -> int:
        while (result := function(number, *arguments)) < 0:
            code = ctypes.get_errno()
            if code != errno.EINTR:
                raise OSError(code, f"{name}: {os.strerror(code)}", subject)
        return result  # type: ignore[no-any-return]  # an int: c_long above

    def missing(*arguments: object, subject: Subject = None) -> int:
        raise OSError(errno.ENOSYS, f"{name}: no number for {MACHINE}", subject)

    return call if number >= 0 else missing


def kernel_version() -> tuple[int, int]:
    """Return the running kernel's version, such as (6, 18)."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)
