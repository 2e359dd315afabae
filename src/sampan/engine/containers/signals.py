"""Signals by name or number (engine-api 3.2, kill)."""

from __future__ import annotations

import signal

from sampan.errors import InvalidRequest

_RTMIN, _RTMAX = 34, 64  # glibc's and musl's view from outside, as docker counts


def number_of(text: str) -> int:
    """Return the number of "SIGTERM", "term", "15", "RTMIN+3".  Raises InvalidRequest."""
    word = text.upper().removeprefix("SIG")
    if word.isascii() and word.isdigit() and len(word) < 4:
        if 0 < int(word) <= 64:
            return int(word)
    elif word.startswith(("RTMIN", "RTMAX")):
        base, rest = (_RTMIN, word[5:]) if word.startswith("RTMIN") else (_RTMAX, word[5:])
        if not rest:
            return base
        if rest[1:].isascii() and rest[1:].isdigit() and len(rest) < 4 and rest[0] in "+-":
            number = base + int(rest)
            if _RTMIN <= number <= _RTMAX:
                return number
    else:
        found = getattr(signal.Signals, f"SIG{word}", None) if word.isascii() and word.isalnum() else None
        if found is not None:
            return int(found)
    raise InvalidRequest(f"invalid signal: {text[:64]}")
