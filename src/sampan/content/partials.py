"""Blobs on their way: what has come of a download stays on disk, whatever happens to the daemon, and is continued.

    <data-root>/content/partial/<where from>-<sha256>-<hex>     0600, the beginning of a blob, not verified yet

A partial belongs to one registry's copy of a blob, so that what one registry sends never spoils a download from another.
Readers follow it while it grows: the file is the buffer between the network and the unpacking, memory holds none of it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from sampan.content.blobs import Blobs
from sampan.content.growing import Growing, Growth
from sampan.errors import Conflict, InvalidRequest
from sampan.oci.digest import Digest, algorithm, encoded

_CHUNK = 1 << 20
LIFETIME = 7 * 86400  # seconds that an unfinished download is kept


class Partials:
    """The unfinished downloads of one data root."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.folder = blobs.folder.parent / "partial"
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._busy: set[str] = set()
        self._mutex = threading.Lock()

    def open(self, digest: Digest, size: int, origin: str) -> Partial:
        """Go on with the blob as `origin` (a registry's name) has it, or begin it.  Blocks: what is there is read once.

        Raises Conflict when it is being downloaded already.
        """
        where = hashlib.sha256(origin.encode()).hexdigest()[:16]
        name = f"{where}-{algorithm(digest)}-{encoded(digest)}"
        with self._mutex:
            if name in self._busy:
                raise Conflict(f"blob {digest} is being downloaded already")
            self._busy.add(name)
        try:
            return Partial(self._blobs, self.folder / name, digest, size, lambda: self._busy.discard(name))
        except BaseException:
            self._busy.discard(name)
            raise

    def sweep(self, *, older_than: float = LIFETIME) -> int:
        """Remove downloads that nobody went on with for `older_than` seconds; return how many."""
        limit = time.time() - older_than
        count = 0
        with self._mutex:
            for path in list(self.folder.iterdir()):
                if path.name not in self._busy and path.stat().st_mtime <= limit:
                    path.unlink()
                    count += 1
        return count


class Partial:
    """A download under way.  A context manager: what has come stays, unless it was committed or discarded.

    size: bytes so far; resumed: how many of them were there before.
    """

    def __init__(self, blobs: Blobs, path: Path, digest: Digest, size: int, let_go: Callable[[], None]) -> None:
        self._blobs = blobs
        self._path = path
        self.digest = digest
        self.expected = size
        self._let_go = let_go
        self._hash = hashlib.new(algorithm(digest))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = open(path, "r+b", buffering=0, opener=lambda name, _: os.open(name, flags, 0o600))  # noqa: SIM115
        try:
            self._growth = Growth(size, self._take_up())
        except BaseException:
            self._file.close()
            raise
        self.resumed = self.size

    @property
    def size(self) -> int:
        return self._growth.size

    def _take_up(self) -> int:
        if os.fstat(self._file.fileno()).st_size > self.expected:
            self._file.truncate(0)
        size = 0
        while data := self._file.read(_CHUNK):
            self._hash.update(data)
            size += len(data)
        return size

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(error)

    def write(self, data: bytes) -> None:
        """Append.  Raises InvalidRequest beyond the expected size; OSError when the disk is full."""
        if self.size + len(data) > self.expected:
            raise InvalidRequest(f"blob {self.digest} is longer than the {self.expected} bytes announced")
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._growth.grew(len(data), self._file.fileno())

    def commit(self) -> None:
        """Verify, and make it a blob; durable when it returns.  Raises InvalidRequest when it is another content."""
        found = f"{algorithm(self.digest)}:{self._hash.hexdigest()}"
        if found != self.digest or self.size != self.expected:
            error = InvalidRequest(
                f"filesystem layer verification failed for digest {self.digest}: content is {found} of {self.size} bytes, "
                f"expected {self.expected}"
            )
            self.discard(error)
            raise error
        os.fchmod(self._file.fileno(), 0o400)
        os.fsync(self._file.fileno())
        self._blobs.adopt(self._path, self.digest)
        self.close()

    def discard(self, error: BaseException | None = None) -> None:
        """Forget what has come."""
        self._path.unlink(missing_ok=True)
        self.close(error or InvalidRequest(f"blob {self.digest} was given up"))

    def close(self, error: BaseException | None = None) -> None:
        """End it; readers that want more than has come get `error`.  What has come stays."""
        if not self._file.closed:
            self._file.close()
            self._growth.end(str(error or f"blob {self.digest} ended early"))
            self._let_go()

    def reader(self) -> Growing:
        """Return a reader from the start, for another thread."""
        return Growing(self._growth, os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC))
