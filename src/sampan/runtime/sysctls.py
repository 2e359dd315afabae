"""Sysctls of a container: only those that its own namespaces hold (SECURITY.md rows 4, 11)."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping

from sampan.errors import InvalidRequest, StepFailed
from sampan.kernel.fds import Fd
from sampan.kernel.paths import Resolve, open_in

_IPC = frozenset(
    f"kernel/{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_STAY = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS | Resolve.NO_XDEV


def file_of(key: str, namespaces: Collection[str]) -> str:
    """Return the file below /proc/sys of a sysctl that is the container's own.  Raises InvalidRequest for any other."""
    if not key.isascii() or any(ord(c) <= 32 or c in "+\x7f" for c in key):
        raise InvalidRequest(f"invalid sysctl {key!r}")
    # sysctl(8): with a slash first, slashes separate and dots belong to names; otherwise the other way round.
    slash, dot = key.find("/"), key.find(".")
    path = key if slash >= 0 and (dot < 0 or slash < dot) else key.translate({46: "/", 47: "."})
    parts = path.split("/")
    if len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        raise InvalidRequest(f"invalid sysctl {key!r}")
    owner = (
        "ipc" if path in _IPC or path.startswith("fs/mqueue/")
        else "network" if parts[0] == "net"
        else "uts" if path == "kernel/domainname"
        else "user" if parts[0] == "user"
        else None
    )  # fmt: skip
    if owner is None:
        raise InvalidRequest(f'sysctl "{key}" is not in a separate kernel namespace')
    if owner not in namespaces:
        where = "host network" if owner == "network" else f"host's {owner}"
        raise InvalidRequest(f'sysctl "{key}" is not allowed in the {where} namespace')
    return path


def set_sysctls(proc: Fd, wanted: Mapping[str, str], namespaces: Collection[str]) -> None:
    """Write each sysctl with one open and one write, through the private procfs.  Raises StepFailed."""
    for key, value in wanted.items():
        try:
            path = file_of(key, namespaces)
            if any(ord(c) < 32 and c != "\t" for c in value):
                raise InvalidRequest(f"sysctl {key}: control characters in the value")
            with open_in(proc, f"sys/{path}", os.O_WRONLY, resolve=_STAY) as file:
                os.write(file.fileno(), value.encode())
        except InvalidRequest as error:
            raise StepFailed("sysctl", errno.EINVAL, str(error)) from None
        except OSError as error:
            raise StepFailed("sysctl", error.errno or 0, f"{key}: {error.strerror}") from None
