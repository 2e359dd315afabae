"""The values of instructions that only change the configuration, checked."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sampan.build.instructions import Copy, Healthcheck, Value, Words
from sampan.engine.containers.signals import number_of
from sampan.errors import InvalidRequest
from sampan.oci.digest import parse as parse_digest
from sampan.oci.image import Health

MAX_PORTS = 65536


def listed(words: Iterable[str]) -> str:
    """Return words as the JSON list they could be written as."""
    return json.dumps(list(words), ensure_ascii=False)


def bracketed(words: Iterable[str]) -> str:
    return "[" + " ".join(sorted(words)) + "]"


def health(one: Healthcheck) -> Health:
    return Health(
        test=list(one.test), interval=one.interval, timeout=one.timeout, start_period=one.start_period,
        start_interval=one.start_interval, retries=one.retries,
    )  # fmt: skip


def ports(one: Words, words: list[str]) -> dict[str, dict[str, str]]:
    """Return `8000-8010/tcp` as ports with their protocol.  Raises DockerfileError."""
    found: dict[str, dict[str, str]] = {}
    for word in words:
        numbers, slash, protocol = word.partition("/")
        protocol = protocol.lower() if slash else "tcp"
        numbers = numbers.rpartition(":")[2]
        first, dash, last = numbers.partition("-")
        bounds = (first, last if dash else first)
        if protocol not in ("tcp", "udp", "sctp"):
            raise one.line.error(f"invalid proto: {protocol[:40]}", _at(one, word))
        if not all(bound.isascii() and bound.isdigit() and len(bound) < 6 for bound in bounds):
            raise one.line.error(f"invalid containerPort: {numbers[:40]}", _at(one, word))
        low, high = int(bounds[0]), int(bounds[1])
        if not 0 <= low <= high <= 65535:
            raise one.line.error(f"invalid range specified for the Container Port: {numbers[:40]}", _at(one, word))
        found |= {f"{port}/{protocol}": {} for port in range(low, high + 1)}
    return found


def _at(one: Words, word: str) -> int | None:
    at = one.line.text.find(word, one.line.offset)
    return at if at >= 0 else None


def volumes(one: Words, words: list[str]) -> list[str]:
    """Return the paths.  Raises DockerfileError."""
    for word in words:
        if not word.strip():
            raise one.line.error("VOLUME specified can not be an empty string")
    return words


def user(one: Value, value: str) -> str:
    if not value:
        raise one.line.error("USER requires exactly one argument: it is empty after expansion")
    return value


def stop_signal(one: Value, value: str) -> str:
    """Return the signal as it was written.  Raises DockerfileError."""
    try:
        number_of(value)
    except InvalidRequest:
        raise one.line.error(f"Invalid signal: {value[:40]}", one.line.offset) from None
    return value


def mode(one: Copy, text: str) -> str:
    """Return --chmod checked: octal, or symbolic.  Raises DockerfileError."""
    octal = bool(text) and not text.strip("01234567") and len(text) <= 5 and int(text, 8) <= 0o7777
    if text and not octal and not all(_symbolic(clause) for clause in text.split(",")):
        at = one.line.text.find("--chmod")
        raise one.line.error(
            f'invalid chmod parameter: "{text[:40]}". it should be octal string and between 0 and 07777, '
            "or symbolic like u=rwX,go=rX",
            at if at >= 0 else None,
        )
    return text


def _symbolic(clause: str) -> bool:
    rest = clause.lstrip("ugoa")
    if rest[:1] not in ("+", "-", "=") or not rest[:1]:
        return False
    while rest:
        if rest[0] not in "+-=":
            return False
        rest = rest[1:].lstrip("rwxXst") if rest[1:2] not in ("u", "g", "o") else rest[2:]
    return True


def checksum(one: Copy, text: str) -> str:
    """Return --checksum checked: a digest, or the hexadecimal start of a commit.  Raises DockerfileError."""
    if not text or (len(text) >= 7 and len(text) <= 64 and not text.strip("0123456789abcdef")):
        return text
    try:
        return parse_digest(text)
    except InvalidRequest:
        at = one.line.text.find("--checksum")
        raise one.line.error(f"invalid checksum {text[:80]!r}: expected sha256:HEX", at if at >= 0 else None) from None
