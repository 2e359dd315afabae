"""Scalars of a query string: strict where a wrong guess would do harm, Go's rules elsewhere (engine-api 1.7, 1.8)."""

from __future__ import annotations

import re
import signal
from typing import Any

from sampan.api import phrases
from sampan.errors import InvalidRequest
from sampan.wire import strict

PARAMETER_LIMIT = 1000
NAME_LIMIT = 255  # a name becomes part of paths and host names

_ESCAPE = re.compile(rb"%(.{0,2})", re.DOTALL)
_HEX = re.compile(rb"[0-9A-Fa-f]{2}")
_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_FALSE = frozenset({"", "0", "no", "false", "none"})


def unescape(text: str) -> str:
    """Decode %XX.  Raises InvalidRequest for a broken escape, bytes that are not UTF-8, and control characters."""
    if "%" in text:

        def one(match: re.Match[bytes]) -> bytes:
            if not _HEX.fullmatch(match[1]):
                raise InvalidRequest("invalid URL escape")
            return bytes.fromhex(match[1].decode())

        try:
            text = _ESCAPE.sub(one, text.encode("latin-1")).decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest("invalid URL escape: not UTF-8") from None
    return text


class Query:
    """The parameters of one request."""

    __slots__ = ("_values",)

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        if not text:
            return
        pairs = text.split("&", PARAMETER_LIMIT)
        if len(pairs) > PARAMETER_LIMIT:
            raise InvalidRequest("too many query parameters")
        for pair in pairs:
            if pair:
                name, _, value = pair.replace("+", " ").partition("=")
                made = unescape(value)
                if "\0" in made:
                    raise InvalidRequest(f"NUL in query parameter {name[:32]}")
                self._values.setdefault(unescape(name), []).append(made)

    def items(self) -> list[tuple[str, str]]:
        return [(name, values[0]) for name, values in self._values.items()]

    def text(self, name: str, default: str = "") -> str:
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        return list(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """False when empty, 0, no, false or none; `default` when absent; else true."""
        values = self._values.get(name)
        return values[0].strip().lower() not in _FALSE if values else default

    def strict_flag(self, name: str) -> bool:
        """Go's ParseBool; false when absent.  Raises InvalidRequest."""
        return boolean(self.text(name, "false") or "false")

    def number(self, name: str, default: int | None = None) -> int | None:
        """Go's Atoi; `default` when absent or empty.  Raises InvalidRequest."""
        value = self.text(name)
        return integer(value) if value else default

    def uint32(self, name: str) -> int:
        """A number that must be there.  Raises InvalidRequest."""
        value = integer(self.text(name))
        if not 0 <= value < 2**32:
            raise InvalidRequest(f'strconv.ParseUint: parsing "{value}": value out of range')
        return value

    def time(self, name: str) -> int:
        return timestamp(self.text(name))

    def filters(self, endpoint: str) -> dict[str, tuple[str, ...]]:
        return filters(self.text("filters"), endpoint)


def boolean(value: str) -> bool:
    if value in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if value in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise InvalidRequest(f'strconv.ParseBool: parsing "{value[:64]}": invalid syntax')


def integer(value: str) -> int:
    """ASCII digits with an optional sign, 64 bits.  Raises InvalidRequest."""
    digits = value[1:] if value[:1] in ("-", "+") else value
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidRequest(f'strconv.Atoi: parsing "{value[:64]}": invalid syntax')
    if len(digits) > 19 or not -(2**63) <= (number := int(value)) < 2**63:
        raise InvalidRequest(f'strconv.Atoi: parsing "{value[:64]}": value out of range')
    return number


def timestamp(value: str) -> int:
    """`seconds[.fraction]` since the epoch as nanoseconds; 0 when empty.  Raises InvalidRequest."""
    if not value:
        return 0
    whole, dot, fraction = value.partition(".")
    digits = whole[1:] if whole.startswith("-") else whole
    if (
        len(value) > 40
        or not (digits.isascii() and digits.isdigit() and len(digits) <= 12)
        or (fraction and not (fraction.isascii() and fraction.isdigit()))
        or (dot and not fraction)
    ):
        raise InvalidRequest(f"invalid timestamp {value[:64]!r}")
    nanoseconds = int(digits) * 10**9 + int(fraction[:9].ljust(9, "0"))
    return -nanoseconds if whole.startswith("-") else nanoseconds


def signal_name(value: str) -> str:
    """Check a signal: a number, a name with or without SIG, RTMIN+n, RTMAX-n; "" stays "".  Raises InvalidRequest."""
    if not value:
        return ""
    if value.isascii() and value.isdigit():
        if len(value) <= 2 and 1 <= int(value) <= 64:
            return value
    else:
        name = value.upper().removeprefix("SIG")
        if "SIG" + name in signal.Signals.__members__:
            return value
        base, sign, offset = name[:5], name[5:6], name[6:]
        if (base, sign) in (("RTMIN", "+"), ("RTMAX", "-")) and offset.isascii() and offset.isdigit() and len(offset) < 3:
            room = signal.SIGRTMAX - signal.SIGRTMIN
            if int(offset) <= room:
                return value
    raise InvalidRequest(f"invalid signal: {value[:64]}")


def container_name(value: str) -> str:
    """Check a new container's name; "" stays "".  Raises InvalidRequest."""
    if value and (len(value) > NAME_LIMIT or not _NAME.fullmatch(value)):
        raise InvalidRequest(phrases.container_name(value[:NAME_LIMIT]))
    return value


# Which filters an endpoint takes (engine-api 1.8).
FILTERS: dict[str, frozenset[str]] = {
    "containers": frozenset(
        {
            "ancestor",
            "before",
            "since",
            "exited",
            "expose",
            "publish",
            "health",
            "id",
            "is-task",
            "isolation",
            "label",
        }
        | {"name", "network", "status", "volume"}
    ),
    "containers/prune": frozenset({"label", "label!", "until"}),
    "images": frozenset({"before", "since", "dangling", "label", "label!", "reference", "until"}),
    "images/prune": frozenset({"dangling", "keep", "label", "label!", "unused-for", "until"}),
    "images/search": frozenset({"is-automated", "is-official", "stars"}),
    "networks": frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"}),
    "networks/prune": frozenset({"label", "label!", "until"}),
    "events": frozenset(
        {"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret"}
        | {"service", "type", "volume"}
    ),
    "build/prune": frozenset(
        {"until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private", "internal"}
    ),
    "volumes": frozenset({"dangling", "driver", "label", "name"}),
    "volumes/prune": frozenset({"all", "label", "label!"}),
    "plugins": frozenset({"enabled", "capability"}),
}
_BOOLEAN = frozenset({"all", "dangling", "is-task", "enabled"})
_NUMBER = frozenset({"exited"})
_CHOICES = {
    "status": frozenset({"created", "running", "paused", "restarting", "removing", "exited", "dead"}),
    "health": frozenset({"none", "starting", "healthy", "unhealthy"}),
}


def filters(text: str, endpoint: str) -> dict[str, tuple[str, ...]]:
    """Decode either encoding of `filters` and check keys and values.  Raises InvalidRequest."""
    if not text:
        return {}
    try:
        document = strict.loads(text.encode("utf-8"))
    except InvalidRequest:
        raise InvalidRequest("invalid filter") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidRequest("invalid filter")
    made: dict[str, tuple[str, ...]] = {}
    for key, values in document.items():
        made[key] = _values(values)
        if key not in FILTERS[endpoint]:
            raise InvalidRequest(f"invalid filter '{key[:64]}'")
        _check(key, made[key])
    return {key: values for key, values in made.items() if values}


def _values(values: Any) -> tuple[str, ...]:
    if isinstance(values, dict) and all(isinstance(on, bool) for on in values.values()):
        return tuple(values)
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return tuple(values)
    raise InvalidRequest("invalid filter")


def _check(key: str, values: tuple[str, ...]) -> None:
    for value in values:
        if key in _BOOLEAN:
            right = value.lower() in ("true", "false", "1", "0")
        elif key in _NUMBER:
            integer(value)
            right = True
        elif key in _CHOICES:
            right = value in _CHOICES[key]
        else:
            right = True
        if not right:
            raise InvalidRequest(f"invalid filter '{key}=[{value[:64]}]'")


def detach_keys(value: str, default: bytes = b"\x10\x11") -> bytes:
    """The bytes that end an attach: a comma list of single characters and ctrl-X.  Raises InvalidRequest."""
    if not value:
        return default
    keys = bytearray()
    for key in value.split(","):
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif len(key) == 6 and key.startswith("ctrl-") and key[5] in "abcdefghijklmnopqrstuvwxyz@[\\]^_":
            keys.append(ord(key[5].upper()) & 0x1F)
        else:
            raise InvalidRequest(phrases.detach_keys(value[:64]))
    return bytes(keys)
