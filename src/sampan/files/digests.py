"""Hashing what passes by: a reader and a writer that know the digest and the length of all that went through them."""

from __future__ import annotations

import hashlib
from typing import Protocol


class Readable(Protocol):
    """A source of bytes: `read(n)` gives 1 to n bytes, or b"" at the end."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """A sink of bytes that takes all it is given."""

    def write(self, data: bytes, /) -> object: ...


class CountingReader:
    """Reads from `stream`.

    count: bytes read so far.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.count = 0

    def read(self, size: int = 1 << 20) -> bytes:
        """Return up to `size` bytes; b"" at the end."""
        data = self._stream.read(size)
        self.count += len(data)
        return data


class HashingReader:
    """Reads from `stream`, hashing.

    count: bytes read so far.
    """

    def __init__(self, stream: Readable, algorithm: str = "sha256") -> None:
        self._stream = stream
        self._hash = hashlib.new(algorithm)
        self.algorithm = algorithm
        self.count = 0

    def read(self, size: int = 1 << 20) -> bytes:
        """Return up to `size` bytes; b"" at the end."""
        data = self._stream.read(size)
        self._hash.update(data)
        self.count += len(data)
        return data

    def drain(self) -> None:
        """Read to the end, so that the digest is the whole stream's."""
        while self.read(1 << 20):
            pass

    def hexdigest(self) -> str:
        """Return the digest of what was read so far, in hex."""
        return self._hash.hexdigest()

    @property
    def digest(self) -> str:
        """The digest of what was read so far, as "sha256:hex"."""
        return f"{self.algorithm}:{self._hash.hexdigest()}"


class HashingWriter:
    """Writes to `stream` (or nowhere), hashing.

    count: bytes written so far.
    """

    def __init__(self, stream: Writable | None = None, algorithm: str = "sha256") -> None:
        self._stream = stream
        self._hash = hashlib.new(algorithm)
        self.algorithm = algorithm
        self.count = 0

    def write(self, data: bytes) -> int:
        """Pass `data` on and return its length."""
        if self._stream is not None:
            self._stream.write(data)
        self._hash.update(data)
        self.count += len(data)
        return len(data)

    def hexdigest(self) -> str:
        """Return the digest of what was written so far, in hex."""
        return self._hash.hexdigest()

    @property
    def digest(self) -> str:
        """The digest of what was written so far, as "sha256:hex"."""
        return f"{self.algorithm}:{self._hash.hexdigest()}"
