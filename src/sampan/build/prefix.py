"""What our own client sends before the context: secrets, which have no place in a query that is logged (SECURITY.md row 71).

8 bytes, big-endian: the length of the JSON that follows; {"secrets": {id: base64}, "context": token}; then the tar
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import BinaryIO

import msgspec

from sampan.errors import InvalidRequest

_LIMIT = 16 << 20
_MAX_SECRET = 500 << 10


class _Prefix(msgspec.Struct, frozen=True, kw_only=True):
    secrets: dict[str, str] = {}
    context: str = ""


def read_prefix(upload: BinaryIO) -> tuple[dict[str, bytes], str]:
    """Return the secrets and the token of a kept context, and leave the upload at the tar's begin.  Blocks.

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
    return found, told.context


def _exactly(upload: BinaryIO, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        data = upload.read(size - len(out))
        if not data:
            raise InvalidRequest("the upload ends before the build context")
        out += data
    return bytes(out)
