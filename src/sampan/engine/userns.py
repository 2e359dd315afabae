"""Ranges of ids for containers, and a user namespace for each range that mounts can be mapped through."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from sampan.errors import Unavailable
from sampan.kernel.fds import Fd

SIZE = 65536
KEPT = 8
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
        self._mutex = threading.Lock()

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

    def namespace(self, base: int, make: Callable[[int, int], Fd]) -> Fd:
        """Return a user namespace that maps 0..65535 to the range, the caller's to close; the last few are kept.

        Callable from any thread.
        """
        with self._mutex:
            found = self._namespaces.get(base)
            if found is None:
                found = make(base, SIZE)
                while len(self._namespaces) >= KEPT:
                    self._namespaces.pop(next(iter(self._namespaces))).close()
                self._namespaces[base] = found
            return Fd(fcntl.fcntl(found.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))

    def close(self) -> None:
        for fd in self._namespaces.values():
            fd.close()
        self._namespaces.clear()
