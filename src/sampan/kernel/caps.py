"""Capabilities of the calling thread, and file-system ids with capabilities kept.

Sources: capabilities(7), capget(2), prctl(2), setfsuid(2), include/uapi/linux/capability.h.  All calls act on one thread only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator

from sampan.kernel.calls import bind
from sampan.kernel.process import PR, prctl

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES: dict[str, int] = {f"CAP_{name}": bit for bit, name in enumerate(_NAMES.split())}

_VERSION_3 = 0x20080522
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


# Two struct __user_cap_data_struct: effective, permitted, inheritable, of capabilities 0-31 and of 32-63.
_Data = ctypes.c_uint32 * 6

if ctypes.sizeof(_Header) != 8 or ctypes.sizeof(_Data) != 24:
    raise ImportError("struct __user_cap_header_struct is not 8 bytes, or two __user_cap_data_struct not 24")

_capget = bind("capget", ctypes.c_void_p, ctypes.c_void_p)
_capset = bind("capset", ctypes.c_void_p, ctypes.c_void_p)
_setfsuid = bind("setfsuid", ctypes.c_uint)
_setfsgid = bind("setfsgid", ctypes.c_uint)


def mask(names: Iterable[str]) -> int:
    """Return the bits of capability names such as "CAP_CHOWN".  Raises ValueError on an unknown name."""
    bits = 0
    for name in names:
        if name not in NAMES:
            raise ValueError(f"unknown capability: {name!r}")
        bits |= 1 << NAMES[name]
    return bits


def get() -> tuple[int, int, int]:
    """Return (effective, permitted, inheritable) of the calling thread."""
    header, data = _Header(_VERSION_3, 0), _Data()
    _capget(ctypes.byref(header), data, subject="capabilities")
    effective, permitted, inheritable, effective_high, permitted_high, inheritable_high = data
    return effective | effective_high << 32, permitted | permitted_high << 32, inheritable | inheritable_high << 32


def set_(effective: int, permitted: int, inheritable: int = 0) -> None:
    """Set the three sets of the calling thread."""
    sets = (effective, permitted, inheritable)
    header, data = _Header(_VERSION_3, 0), _Data(*(one & 0xFFFFFFFF for one in sets), *(one >> 32 for one in sets))
    _capset(ctypes.byref(header), data, subject="capabilities")


def last_cap() -> int:
    """Return the highest capability the kernel knows (/proc/sys/kernel/cap_last_cap)."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def drop_bounding(keep: int, last: int) -> None:
    """Drop every capability up to number `last` that is not in `keep` from the bounding set.  Needs CAP_SETPCAP."""
    for bit in range(last + 1):
        if not keep >> bit & 1:
            prctl(PR.CAPBSET_DROP, bit)


def clear_ambient() -> None:
    """Empty the ambient set.  Linux 4.3."""
    prctl(PR.CAP_AMBIENT, _AMBIENT_CLEAR_ALL)


def raise_ambient(bits: int) -> None:
    """Raise `bits` in the ambient set; each must be permitted and inheritable."""
    for bit in range(64):
        if bits >> bit & 1:
            prctl(PR.CAP_AMBIENT, _AMBIENT_RAISE, bit)


def status(pid: int | str = "self") -> dict[str, int]:
    """Return CapInh, CapPrm, CapEff, CapBnd and CapAmb of a process, from its /proc status."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return {line.split(":")[0]: int(line.split()[1], 16) for line in file if line.startswith("Cap") and ":" in line}


@contextlib.contextmanager
def set_fs_ids(uid: int, gid: int) -> Iterator[None]:
    """Work on file systems as `uid`:`gid` with the same effective capabilities, on this thread only.

    Leaving fsuid 0 takes the file-system capabilities out of the effective set (capabilities(7)); they are put back.
    An overlay whose upper layer is idmapped needs this: it works with its mounter's ids, which must be mapped.
    """
    effective, permitted, inheritable = get()
    old_uid, old_gid = os.geteuid(), os.getegid()
    try:
        _setfsgid(gid)
        _setfsuid(uid)
        set_(effective, permitted, inheritable)
        yield
    finally:
        _setfsuid(old_uid)
        _setfsgid(old_gid)
        set_(effective, permitted, inheritable)
