"""Who the calling thread is: raw, per-thread calls (libc's would signal every thread), host name, keyring, limits.

Sources: setresuid(2), setgroups(2), sethostname(2), keyctl(2), getrlimit(2).
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Sequence

from sampan.kernel.calls import bind

_setgroups = bind("setgroups", ctypes.c_size_t, ctypes.c_void_p)
_setresuid = bind("setresuid", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_setresgid = bind("setresgid", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_sethostname = bind("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_setdomainname = bind("setdomainname", ctypes.c_char_p, ctypes.c_size_t)
_keyctl = bind("keyctl", ctypes.c_int, ctypes.c_void_p)
_JOIN_SESSION_KEYRING = 1


def set_groups(groups: Sequence[int]) -> None:
    """Replace the supplementary groups."""
    vector = (ctypes.c_uint * len(groups))(*groups)
    _setgroups(len(groups), vector, subject=f"groups {list(groups)}")


def set_uid(uid: int) -> None:
    """Set real, effective and saved user id."""
    _setresuid(uid, uid, uid, subject=f"uid {uid}")


def set_gid(gid: int) -> None:
    """Set real, effective and saved group id."""
    _setresgid(gid, gid, gid, subject=f"gid {gid}")


def set_hostname(name: str) -> None:
    """Set the UTS namespace's host name."""
    _sethostname(name.encode(), len(name.encode()), subject=name)


def set_domainname(name: str) -> None:
    """Set the UTS namespace's NIS domain name."""
    _setdomainname(name.encode(), len(name.encode()), subject=name)


def join_fresh_session_keyring() -> None:
    """Leave the inherited session keyring for a new, empty one (SECURITY.md row 28)."""
    _keyctl(_JOIN_SESSION_KEYRING, None, subject="session keyring")


def set_rlimit(name: str, soft: int, hard: int) -> None:
    """Set a limit by its name, such as "RLIMIT_NOFILE"; 2**64-1 and -1 mean unlimited.

    Raises ValueError for an unknown name or soft above hard, PermissionError when the hard limit may not be raised.
    """
    number = getattr(resource, name, None)
    if not name.startswith("RLIMIT_") or not isinstance(number, int):
        raise ValueError(f"unknown limit: {name}")
    unlimited = resource.RLIM_INFINITY
    first, second = (unlimited if value in (-1, 2**64 - 1) else value for value in (soft, hard))
    try:
        resource.setrlimit(number, (first, second))
    except ValueError as error:
        if "not allowed" in str(error):
            raise PermissionError(1, f"{name}: the hard limit may not be raised to {hard}") from None
        raise


def get_rlimit(name: str) -> tuple[int, int]:
    """Return (soft, hard) of a limit by its name."""
    return resource.getrlimit(getattr(resource, name))
