"""An uploaded archive, taken apart: every file kept where it can be read again, hashed on the way, nothing unpacked.

The order of an archive's files is free, and its table of contents comes last in practice; so files are spooled first and
read by name afterwards.  Small ones stay in memory, large ones become blobs in the making (content/blobs.py).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import BinaryIO

from sampan.content.blobs import Blobs, Ingest
from sampan.errors import InvalidRequest
from sampan.files.compression import open_decompressed
from sampan.files.digests import Readable
from sampan.files.tar_entry import Kind
from sampan.files.tar_reader import TarReader
from sampan.oci.digest import Digest, algorithm
from sampan.oci.image import MAX_DOCUMENT

MAX_ENTRIES = 100_000
MAX_SMALL = 64 << 20  # bytes of small files together
MAX_TOTAL = 1 << 40  # bytes of everything
_SMALL = 256 << 10
_CHUNK = 1 << 20
_MAX_LINKS = 16
Begun = Callable[[str, Ingest, int], None]


@dataclass(frozen=True, eq=False)
class Part:
    """A file of the archive.  digest: sha256; size: bytes."""

    name: str
    digest: Digest
    size: int
    content: bytes = field(default=b"", repr=False)
    ingest: Ingest | None = field(default=None, repr=False)

    def open(self) -> BinaryIO:
        """Return a reader from the start."""
        return self.ingest.open() if self.ingest is not None else io.BytesIO(self.content)

    def document(self) -> bytes:
        """Return the whole content of what should be a small document.  Raises InvalidRequest when it is large."""
        if self.size > MAX_DOCUMENT:
            raise InvalidRequest(f"{self.name[:200]!r} is larger than {MAX_DOCUMENT} bytes")
        with self.open() as reader:
            return reader.read()

    def digest_as(self, like: Digest) -> Digest:
        """Return the content's digest by the algorithm of `like`."""
        name = algorithm(like)
        if name == "sha256":
            return self.digest
        hashing = hashlib.new(name)
        with self.open() as reader:
            while data := reader.read(_CHUNK):
                hashing.update(data)
        return Digest(f"{name}:{hashing.hexdigest()}")

    def keep(self, blobs: Blobs) -> Digest:
        """Make it a blob, durable when this returns; once it is one, nothing happens."""
        if blobs.has(self.digest):
            return self.digest
        if self.ingest is not None:
            return self.ingest.commit(self.digest, self.size)
        return blobs.put(self.content, self.digest)


def clean(name: str) -> str | None:
    """Return a member's name without `./` and doubled slashes; None for the root.  Raises InvalidRequest on `..`."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise InvalidRequest(f"invalid archive: name {name[:200]!r}")
    return "/".join(parts) or None


def spool(blobs: Blobs, tar: Readable, held: ExitStack, begun: Begun = lambda *_: None) -> dict[str, Part]:
    """Return the archive's files by name; `held` gives up what was spooled when it closes.

    begun: told (name, ingest, bytes) of each large file before it arrives.

    Links to other files of the archive are followed (docker save of old wrote them).  Raises InvalidRequest for what is no
    archive or breaks a budget.
    """
    files: dict[str, Part] = {}
    links: dict[str, str] = {}
    small = total = 0
    reader = TarReader(open_decompressed(tar)[1])
    for count, entry in enumerate(reader):
        name = clean(entry.name)
        if count >= MAX_ENTRIES:
            raise InvalidRequest(f"archive has more than {MAX_ENTRIES} files")
        if name is None or entry.kind is Kind.DIRECTORY:
            continue
        if entry.kind in (Kind.SYMLINK, Kind.HARD_LINK):
            links[name] = _target(name, entry.linkname, relative=entry.kind is Kind.SYMLINK)
            continue
        if entry.kind is not Kind.FILE or entry.segments is not None:
            raise InvalidRequest(f"invalid archive: {name[:200]!r} is neither a plain file, a folder nor a link")
        total += entry.size
        small += entry.size if entry.size <= _SMALL else 0
        if total > MAX_TOTAL or small > MAX_SMALL:
            raise InvalidRequest("archive is too large")
        if name in files:
            raise InvalidRequest(f"invalid archive: {name[:200]!r} is there twice")
        files[name] = _part(blobs, reader, name, entry.size, held, begun)
    for name in links:
        target = name
        for _ in range(_MAX_LINKS):
            target = links.get(target, target)
        if target in files:
            files.setdefault(name, files[target])
    return files


def _part(blobs: Blobs, reader: TarReader, name: str, size: int, held: ExitStack, begun: Begun) -> Part:
    if size <= _SMALL:
        content = b"".join(iter(reader.read, b""))
        return Part(name, Digest("sha256:" + hashlib.sha256(content).hexdigest()), size, content)
    ingest = held.enter_context(blobs.ingest(limit=size))
    begun(name, ingest, size)
    while data := reader.read(_CHUNK):
        ingest.write(data)
    ingest.finish()
    return Part(name, ingest.digest, size, b"", ingest)


def _target(name: str, link: str, *, relative: bool) -> str:
    """Return the member a link means: a symbolic one is relative to its folder, and stays in the archive."""
    parts = name.split("/")[:-1] if relative and not link.startswith("/") else []
    for part in link.split("/"):
        if part == "..":
            if not parts:
                raise InvalidRequest(f"invalid archive: {name[:200]!r} points out of the archive")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
