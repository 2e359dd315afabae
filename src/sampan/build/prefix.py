"""What our own client sends before the context: secrets, which have no place in a query that is logged (SECURITY.md row 71),
and what else a build is made from.

    8 bytes, big-endian: the length of the JSON that follows
    {"secrets": {id: base64}, "context": token, "session": token, "uploads": [{"kind", "name"}]}
    for each upload its bytes, in pieces: 4 bytes, big-endian, then so many bytes; a piece of none is its end
    the tar of the context
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import msgspec

from sampan.errors import InvalidRequest

_LIMIT = 16 << 20
_MAX_SECRET = 500 << 10
_MAX_UPLOADS = 100


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """Something that comes before the context: the files of a named context, an image for it, or steps that are cached."""

    kind: Literal["context", "image", "cache"]
    name: str


class _Prefix(msgspec.Struct, frozen=True, kw_only=True):
    secrets: dict[str, str] = {}
    context: str = ""
    session: str = ""
    uploads: list[Upload] = []


@dataclass(frozen=True)
class Before:
    """What was told.  context: the token of a kept one; session: that of the client's agents."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    context: str = ""
    session: str = ""
    uploads: tuple[Upload, ...] = ()


def read_prefix(upload: BinaryIO) -> Before:
    """Return what comes before the context, and leave the upload at the first of its `uploads`.  Blocks.

    Raises InvalidRequest.
    """
    length = int.from_bytes(_exactly(upload, 8), "big")
    if length > _LIMIT:
        raise InvalidRequest("the part before the build context is too long")
    try:
        told = msgspec.json.decode(_exactly(upload, length), type=_Prefix)
        found = {name: b64decode(value, validate=True) for name, value in told.secrets.items()}
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        raise InvalidRequest("the part before the build context is malformed") from None
    for name, value in found.items():
        if len(value) > _MAX_SECRET:
            raise InvalidRequest(f"secret {name[:80]} is larger than {_MAX_SECRET} bytes")
    if len(told.uploads) > _MAX_UPLOADS:
        raise InvalidRequest(f"{len(told.uploads)} uploads before the build context; at most {_MAX_UPLOADS}")
    return Before(found, told.context, told.session, tuple(told.uploads))


class Pieces:
    """One of the uploads, as a reader; `drain` it before the next."""

    def __init__(self, upload: BinaryIO) -> None:
        self._upload = upload
        self._left = 0
        self._ended = False

    def read(self, size: int = 1 << 18, /) -> bytes:
        """Return 1 to `size` bytes; b"" at the end.  Raises InvalidRequest when the upload breaks off."""
        if self._ended:
            return b""
        if not self._left:
            self._left = int.from_bytes(_exactly(self._upload, 4), "big")
            self._ended = not self._left
            return self.read(size)
        data = self._upload.read(min(size, self._left))
        if not data:
            raise InvalidRequest("the upload ends before the build context")
        self._left -= len(data)
        return data

    def drain(self) -> None:
        while self.read():
            pass


def _exactly(upload: BinaryIO, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        data = upload.read(size - len(out))
        if not data:
            raise InvalidRequest("the upload ends before the build context")
        out += data
    return bytes(out)
