"""Compressing a layer for a registry: gzip of ISA-L, in pieces, the same bytes for the same layer."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from isal import isal_zlib

from sampan.oci.digest import Digest

LEVEL = 1  # ISA-L's 0 to 3; 1 is within a few percent of zlib's 6 at several times its speed
_GZIP = 31  # wbits: gzip's header (without time and name) and trailer
_READ = 1 << 20


class Packing:
    """A plain stream, taken compressed.  read: plain bytes so far; size: compressed bytes so far."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._compressor = isal_zlib.compressobj(LEVEL, wbits=_GZIP)
        self._hash = hashlib.sha256()
        self._held = bytearray()
        self._ended = False
        self.read = 0
        self.size = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` compressed bytes, fewer only at the end; b"" after it.  Blocks."""
        while len(self._held) < size and not self._ended:
            data = self._source.read(_READ)
            self._held += self._compressor.compress(data) if data else self._compressor.flush()
            self._ended = not data
            self.read += len(data)
        made = bytes(self._held[:size])
        del self._held[:size]
        self._hash.update(made)
        self.size += len(made)
        return made

    @property
    def digest(self) -> Digest:
        """The digest of what was taken."""
        return Digest(f"sha256:{self._hash.hexdigest()}")
