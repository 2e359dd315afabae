"""Ranges of ids for containers, and a user namespace for each range that mounts can be mapped through."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from sampan.errors import Unavailable
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.process import Clone, clone

SIZE = 65536
_FIRST = 1 << 20
_SPARE = 8  # namespaces kept for ranges that no container has: the lowest are taken again first
_SLOTS = (1 << 31) // SIZE - 32


class Ranges:
    """Hands out ranges that no other container of this daemon has; the start depends on the data root."""

    def __init__(self, data_root: Path) -> None:
        digest = hashlib.sha256(os.fsencode(data_root)).digest()
        self._offset = int.from_bytes(digest[:4], "big") % (_SLOTS - 4096)
        self._taken: set[int] = set()
        self._namespaces: dict[int, Fd] = {}

    def note(self, bases: Iterable[int | None]) -> None:
        """Mark ranges that containers have already."""
        self._taken |= {base for base in bases if base is not None}

    def take(self) -> int:
        """Return a free range's first id.  Raises Unavailable."""
        for number in range(_SLOTS):
            base = _FIRST + (self._offset + number) % _SLOTS * SIZE
            if base not in self._taken:
                self._taken.add(base)
                return base
        raise Unavailable("every range of user ids is in use")

    def give_back(self, base: int | None) -> None:
        if base is not None:
            self._taken.discard(base)
            if len(self._namespaces) > _SPARE and base in self._namespaces:
                self._namespaces.pop(base).close()

    def namespace(self, base: int) -> Fd:
        """Return a user namespace that maps 0..65535 to the range; kept, so that the next container is faster."""
        found = self._namespaces.get(base)
        if found is None:
            if len(self._namespaces) >= 128:
                self._namespaces.pop(next(iter(self._namespaces))).close()
            found = self._namespaces[base] = make_namespace(base)
        return found

    def close(self) -> None:
        for fd in self._namespaces.values():
            fd.close()
        self._namespaces.clear()


def make_namespace(base: int) -> Fd:
    """Return a fresh user namespace with the map written; its process is gone when this returns."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = clone(Clone.NEWUSER)
        if pid == 0:
            try:
                os.close(writing)
                os.read(reading, 1)  # the child only waits: no lock of another thread is touched
            finally:
                os._exit(0)
        try:
            for name in ("uid_map", "gid_map"):
                with open_fd(f"/proc/{pid}/{name}", os.O_WRONLY) as file:
                    os.write(file.fileno(), f"0 {base} {SIZE}\n".encode())
            return open_fd(f"/proc/{pid}/ns/user", os.O_RDONLY)
        finally:
            os.close(writing)
            writing = -1
            os.waitpid(pid, 0)
            if pidfd is not None:
                pidfd.close()
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
