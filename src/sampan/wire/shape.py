"""The base of every JSON object of the Docker Engine API."""

from __future__ import annotations

import msgspec

Empty = dict[str, str]  # Go's struct{}: always {}

Strings = list[str] | None
StringMap = dict[str, str] | None

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


class Shape(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """A JSON object with PascalCase keys.  Fields that must be absent when unset have the type `X | UnsetType`."""
