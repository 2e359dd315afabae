"""The filters of image lists and prunes (engine-api 1.8)."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Mapping, Sequence

from sampan.engine.images.image import nanoseconds
from sampan.errors import InvalidRequest
from sampan.oci.reference import Reference

Filters = Mapping[str, tuple[str, ...]]
Test = Callable[[dict[str, str]], bool]

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def check_keys(filters: Filters, known: Sequence[str]) -> None:
    """Raise InvalidRequest for a key that is not `known`."""
    for key in filters:
        if key not in known:
            raise InvalidRequest(f"invalid filter '{key}'")


def boolean(filters: Filters, key: str) -> bool | None:
    """Return the filter's truth, or None when it is not given."""
    values = filters.get(key)
    if not values:
        return None
    truths = {value.lower() in ("1", "true") for value in values}
    if len(truths) != 1 or any(value.lower() not in ("0", "1", "true", "false") for value in values):
        raise InvalidRequest(f"invalid filter '{key}=[{' '.join(values)}]'")
    return truths.pop()


def labels_match(filters: Filters, labels: Mapping[str, str]) -> bool:
    """All of `label`, and none of `label!`."""

    def has(wanted: str) -> bool:
        key, equals, value = wanted.partition("=")
        return key in labels and (not equals or labels[key] == value)

    return all(map(has, filters.get("label", ()))) and not any(map(has, filters.get("label!", ())))


def until(filters: Filters, now: int | None = None) -> int | None:
    """Return the moment (nanoseconds) before which things pass `until`, or None."""
    values = filters.get("until", ())
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequest("more than one until filter specified")
    return moment(values[0], time.time_ns() if now is None else now)


def moment(text: str, now: int) -> int:
    """Return a time given as seconds since the epoch, RFC 3339 (or a part of it), or as a Go duration before `now`."""
    seconds, dot, fraction = text.partition(".")
    if text.isascii() and seconds.isdigit() and (not dot or fraction.isdigit()) and len(text) < 32:
        return int(seconds) * 10**9 + int((fraction + "0" * 9)[:9])
    ago = duration(text)
    if ago is not None:
        return now - ago
    found = nanoseconds(text)
    if not found:
        raise InvalidRequest(f'failed to parse value as time or duration: "{text[:80]}"')
    return found


def duration(text: str) -> int | None:
    """Return a Go duration ("1h30m", "300ms") in nanoseconds, or None."""
    total, number = 0, ""
    unit = ""
    for character in text + "0":
        if character in "0123456789.":
            if unit:
                if unit not in _UNITS or not number:
                    return None
                try:
                    total += int(float(number) * _UNITS[unit])
                except ValueError:
                    return None
                number = unit = ""
            number += character
        else:
            unit += character
    return total if number == "0" and text and len(text) < 64 and not text[-1].isdigit() else None


def reference_matches(patterns: Sequence[str], reference: Reference) -> bool:
    """Return whether a pattern fits the reference as people write it, with or without its tag, or in full."""
    texts = (reference.familiar, reference.familiar_name, str(reference), reference.name)
    return not patterns or any(_glob(pattern, text) for pattern in patterns for text in texts)


def _glob(pattern: str, text: str) -> bool:
    """Go's path.Match: `*` and `?` do not cross a slash."""
    parts, pieces = pattern.split("/"), text.split("/")
    return len(parts) == len(pieces) and all(map(fnmatch.fnmatchcase, pieces, parts))
