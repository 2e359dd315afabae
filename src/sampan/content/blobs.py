"""Blobs by digest: what is stored under a name has that name's content, whole, on disk, or is not there.

    <data-root>/content/blobs/sha256/<hex>     0400, complete and verified
    <data-root>/content/ingest/<random>        being written; removed at the next start
    <data-root>/content/partial/...            being downloaded (partials.py); kept

Order: write and hash, fsync, rename, fsync of the folder.  After that the blob survives a power cut; whoever refers to
it writes a record next.  Blobs that no record refers to are found by `Blobs.digests` and deleted by their owner.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType

from sampan.content.growing import Growing, Growth
from sampan.errors import Broken, InvalidRequest, NotFound
from sampan.files.digests import Readable
from sampan.oci.digest import Digest, algorithm, encoded, is_hex

_CHUNK = 1 << 20
_ALGORITHMS = ("sha256", "sha512")


class Ingest:
    """A blob being written.  A context manager: without `commit`, nothing stays.

    size: bytes written so far.
    """

    def __init__(self, store: Blobs, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._hash = hashlib.sha256()
        self._growth = Growth(limit)
        self.path = store.ingest_folder / secrets.token_hex(16)
        self.size = 0
        self._sealed = False
        self._file = open(self.path, "xb", buffering=0, opener=_opener)  # noqa: SIM115  (closed by commit or discard)

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.discard()

    def write(self, data: bytes | memoryview) -> None:
        """Append.  Raises InvalidRequest beyond the limit; OSError when the disk is full."""
        self.size += len(data)
        if self.size > self._limit:
            raise InvalidRequest(f"content is larger than {self._limit} bytes")
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._growth.grew(len(data), self._file.fileno())

    def write_from(self, source: Readable) -> int:
        """Append all that `source` gives; return how much that was."""
        before = self.size
        while data := source.read(_CHUNK):
            self.write(data)
        return self.size - before

    @property
    def digest(self) -> Digest:
        """The sha256 of what has been written so far."""
        return Digest("sha256:" + self._hash.hexdigest())

    def open(self) -> BufferedReader:
        """Return a reader of what has been written so far."""
        return open(self.path, "rb", opener=_opener)

    def growing(self) -> Growing:
        """Return a reader from the start for another thread, which waits for what is not written yet: `limit` bytes in all."""
        return Growing(self._growth, _opener(str(self.path), os.O_RDONLY))

    def commit(self, expected: Digest | None = None, size: int | None = None, *, durable: bool = True) -> Digest:
        """Make the content a blob and return its digest; durable when it returns.

        durable=False: a blob that is there stays, and a new one is safe only when its file system has been flushed.

        Raises InvalidRequest when it is not what `expected` and `size` say; then nothing stays.
        """
        found = self.digest
        if expected is not None and algorithm(expected) != "sha256":
            found = self._rehash(algorithm(expected))
        if (size is not None and size != self.size) or (expected is not None and expected != found):
            raise InvalidRequest(f"content is {found} of {self.size} bytes, expected {expected or found} of {size}")
        target = self._store.path(found)
        if not durable:
            if target.exists():
                self.discard()
                return found
            os.fchmod(self._file.fileno(), 0o400)
            self._file.close()
            self.path.rename(target)
            return found
        self.seal()
        self.path.rename(target)
        _sync_folder(target.parent)
        return found

    def seal(self) -> None:
        """End the writing: the content is on the disk, the descriptor closed.  Called by `commit`; again does nothing."""
        self.finish()
        if not self._sealed:
            number = _opener(str(self.path), os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
            self._sealed = True

    def finish(self) -> None:
        """End the writing and close the descriptor; the disk may lag behind until `seal`."""
        if not self._file.closed:
            os.fchmod(self._file.fileno(), 0o400)
            self._file.close()

    def _rehash(self, name: str) -> Digest:
        with self.open() as reader:
            return Digest(f"{name}:{hashlib.file_digest(reader, name).hexdigest()}")

    def discard(self) -> None:
        """Forget it; after `commit` this does nothing."""
        self._file.close()
        self._growth.end("content was given up")
        self.path.unlink(missing_ok=True)


class Blobs:
    """The blob store of one data root."""

    def __init__(self, data_root: Path) -> None:
        self.folder = data_root / "content" / "blobs"
        self.ingest_folder = data_root / "content" / "ingest"
        for folder in (data_root / "content", self.folder, self.ingest_folder, *(self.folder / a for a in _ALGORITHMS)):
            folder.mkdir(mode=0o700, exist_ok=True)

    def sweep(self) -> int:
        """Remove what a crash left half written; return how many.  Only before the first ingest of this process."""
        left = list(self.ingest_folder.iterdir())
        for path in left:
            path.unlink()
        return len(left)

    def path(self, digest: Digest) -> Path:
        """Return where the blob is, or would be."""
        return self.folder / algorithm(digest) / encoded(digest)

    def ingest(self, *, limit: int = 1 << 62) -> Ingest:
        """Begin a blob of at most `limit` bytes."""
        return Ingest(self, limit)

    def put(self, content: bytes, expected: Digest | None = None) -> Digest:
        """Store a small document; durable when it returns."""
        with self.ingest() as ingest:
            ingest.write(content)
            return ingest.commit(expected)

    def adopt(self, path: Path, digest: Digest) -> None:
        """Make a file that was verified and flushed the blob `digest`; durable when it returns."""
        target = self.path(digest)
        path.rename(target)
        _sync_folder(target.parent)

    def has(self, digest: Digest) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """Return the blob's bytes.  Raises NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise NotFound(f"no such blob: {digest}") from None

    def open(self, digest: Digest) -> BufferedReader:
        """Return a reader of the blob.  Raises NotFound."""
        try:
            return open(self.path(digest), "rb", opener=_opener)
        except FileNotFoundError:
            raise NotFound(f"no such blob: {digest}") from None

    def read(self, digest: Digest, limit: int = 4 << 20) -> bytes:
        """Return a small blob, verified again.  Raises NotFound, or Broken when the disk holds something else."""
        with self.open(digest) as reader:
            content = reader.read(limit + 1)
        if len(content) > limit or hashlib.new(algorithm(digest), content).hexdigest() != encoded(digest):
            raise Broken(f"blob {digest} does not have the content of its name")
        return content

    def delete(self, digest: Digest) -> int:
        """Delete it; return the bytes freed, 0 when it was not there."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def digests(self) -> Iterator[Digest]:
        """Yield every blob's digest."""
        for name, length in (("sha256", 64), ("sha512", 128)):
            for entry in list(os.scandir(self.folder / name)):
                if is_hex(entry.name, length):
                    yield Digest(f"{name}:{entry.name}")


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
