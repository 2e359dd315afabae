"""WWW-Authenticate headers, read by walking once (RFC 9110, 11.6.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sampan.errors import InvalidRequest

MAX_HEADER = 8 << 10
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True)
class Challenge:
    """scheme in lower case: "basic" or "bearer"; parameters by lower-case name."""

    scheme: str
    parameters: dict[str, str]


def parse(headers: Iterable[str]) -> list[Challenge]:
    """Return the challenges of all WWW-Authenticate headers.  Raises InvalidRequest."""
    found: list[Challenge] = []
    for header in headers:
        if len(header) > MAX_HEADER:
            raise InvalidRequest("the registry's WWW-Authenticate header is too long")
        _one(header, found)
    return found


def _one(text: str, found: list[Challenge]) -> None:
    at, end = 0, len(text)
    while at < end:
        if text[at] in " \t,":
            at += 1
            continue
        start = at
        while at < end and text[at] in _TOKEN:
            at += 1
        word = text[start:at]
        if not word:
            raise InvalidRequest(f"the registry's WWW-Authenticate header is malformed: {text[:200]!r}")
        if at < end and text[at] == "=" and found:
            value, at = _value(text, at + 1)
            found[-1].parameters.setdefault(word.lower(), value)
        else:
            found.append(Challenge(word.lower(), {}))


def _value(text: str, at: int) -> tuple[str, int]:
    if at < len(text) and text[at] == '"':
        made: list[str] = []
        at += 1
        while at < len(text) and text[at] != '"':
            at += text[at] == "\\"
            made.append(text[at : at + 1])
            at += 1
        return "".join(made), at + 1
    start = at
    while at < len(text) and text[at] not in " \t,":
        at += 1
    return text[start:at], at
