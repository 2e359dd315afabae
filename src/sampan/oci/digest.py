"""Digests: `sha256:` and 64 lower-case hex digits, or `sha512:` and 128 (image-spec, descriptor.md).

A Digest is checked text: whoever holds one may use its hex part as a file name (SECURITY.md row 48).
"""

from __future__ import annotations

import hashlib
from typing import NewType

from sampan.errors import InvalidRequest

Digest = NewType("Digest", str)

_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


def is_hex(text: str, length: int) -> bool:
    """Return whether `text` is exactly `length` lower-case hex digits."""
    return len(text) == length and _HEX.issuperset(text)


def parse(text: str) -> Digest:
    """Return `text` as a digest.  Raises InvalidRequest unless it is one of the known algorithms, well formed."""
    algorithm, _, encoded = text.partition(":")
    length = _LENGTHS.get(algorithm)
    if length is None or not is_hex(encoded, length):
        raise InvalidRequest(f"invalid digest format: {text[:160]!r}")
    return Digest(text)


def of(content: bytes) -> Digest:
    """Return the sha256 digest of `content`."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def algorithm(digest: Digest) -> str:
    """Return "sha256" or "sha512"."""
    return digest.partition(":")[0]


def encoded(digest: Digest) -> str:
    """Return the hex digits, fit for a file name."""
    return digest.partition(":")[2]


def chain_id(parent: Digest | None, diff_id: Digest) -> Digest:
    """Return the identity of the layer `diff_id` on top of the chain `parent` (image-spec, config.md)."""
    return diff_id if parent is None else of(f"{parent} {diff_id}".encode())


def chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """Return the chain identities of a whole stack of layers, base first."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1] if chain else None, diff_id))
    return tuple(chain)
