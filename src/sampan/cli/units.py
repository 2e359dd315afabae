"""Docker's spellings of sizes, durations and times."""

from __future__ import annotations

import calendar
import time

_BINARY = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DURATION = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
NEVER = "0001-01-01T00:00:00Z"


def _digits(text: str) -> bool:
    return bool(text) and text.isascii() and text.isdigit()


def parse_bytes(text: str) -> int:
    """ "512m", "1.5GiB", "1024"; 1024-based; -1 is allowed.  Raises ValueError."""
    if text == "-1":
        return -1
    if len(text) > 64:
        raise ValueError(f"invalid size: '{text[:64]}...'")
    number = text.strip().lower()
    end = len(number)
    while end and not (number[end - 1].isascii() and (number[end - 1].isdigit() or number[end - 1] == ".")):
        end -= 1
    whole, _, fraction = number[:end].partition(".")
    suffix = number[end:].strip()
    unit = suffix.removesuffix("ib") if len(suffix) == 3 else suffix.removesuffix("b") if len(suffix) == 2 else suffix
    if unit not in _BINARY or not _digits(whole) or (fraction and not _digits(fraction)) or len(number) > 32:
        raise ValueError(f"invalid size: '{text}'")
    size = int(whole) * _BINARY[unit]
    if fraction:
        size += int(fraction) * _BINARY[unit] // 10 ** len(fraction)
    if size >= 2**63:
        raise ValueError(f"invalid size: '{text}'")
    return size


def parse_duration(text: str) -> int:
    """Go's duration, "1h2m3.5s", in nanoseconds.  Raises ValueError."""
    rest, sign, total = text, 1, 0
    if rest[:1] in ("-", "+"):
        sign, rest = (-1 if rest[0] == "-" else 1), rest[1:]
    if rest == "0":
        return 0
    if not rest or len(rest) > 64:
        raise ValueError(f'time: invalid duration "{text}"')
    while rest:
        end = next((n for n, c in enumerate(rest) if not (c.isascii() and (c.isdigit() or c == "."))), len(rest))
        whole, _, fraction = rest[:end].partition(".")
        stop = next((n for n, c in enumerate(rest[end:], end) if c.isascii() and (c.isdigit() or c == ".")), len(rest))
        unit = rest[end:stop]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        if not _digits(whole + fraction):
            raise ValueError(f'time: invalid duration "{text}"')
        total += int(whole or "0") * _DURATION[unit]
        total += int(fraction or "0") * _DURATION[unit] // 10 ** len(fraction)
        rest = rest[stop:]
    return sign * total


def parse_cpus(text: str) -> int:
    """A number of CPUs in billionths, exactly.  Raises ValueError."""
    whole, _, fraction = text.partition(".")
    if len(fraction) > 9:
        raise ValueError("value is too precise")
    return int(whole or "0") * 10**9 + int(fraction.ljust(9, "0") or "0")


def parse_when(text: str, now: float) -> str:
    """--since and --until for the API: seconds since the epoch.  Takes those, durations ago and RFC 3339.  Raises ValueError."""
    if not text:
        return ""
    if _digits(text.replace(".", "", 1)):
        return text
    try:
        ago = parse_duration(text)
        nanoseconds = int(now * 10**9) - ago
    except ValueError:
        nanoseconds = parse_time(text, local=True)
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def parse_time(text: str, *, local: bool = False) -> int:
    """RFC 3339, also shortened to date or minutes, in nanoseconds since the epoch.  Raises ValueError."""
    day, _, clock = text.replace(" ", "T", 1).partition("T")
    offset: int | None = None
    if clock.endswith(("Z", "z")):
        clock, offset = clock[:-1], 0
    else:
        at = max(clock.find("+"), clock.find("-"))
        if at >= 0:
            zone = clock[at + 1 :].replace(":", "")
            if not _digits(zone) or len(zone) != 4:
                raise ValueError(f'failed to parse value as time or duration: "{text}"')
            offset = (int(zone[:2]) * 3600 + int(zone[2:]) * 60) * (-1 if clock[at] == "-" else 1)
            clock = clock[:at]
    clock, _, fraction = clock.partition(".")
    fields = day.split("-") + (clock.split(":") if clock else [])
    if (
        not all(_digits(one) and len(one) <= 4 for one in fields)
        or not 3 <= len(fields) <= 6
        or (fraction and not _digits(fraction))
    ):
        raise ValueError(f'failed to parse value as time or duration: "{text}"')
    numbers = [int(one) for one in fields] + [0] * (6 - len(fields))
    parts = (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], 0, 0, -1)
    seconds = int(time.mktime(parts)) if offset is None and local else calendar.timegm(parts) - (offset or 0)
    return seconds * 10**9 + int(fraction[:9].ljust(9, "0"))


def ago(seconds: float) -> str:
    """go-units' HumanDuration: "Less than a second", "3 seconds", "About a minute", "2 weeks"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, size, word in (
        (48, 1, "hours"),
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // size} {word}"
    return f"{int(seconds / 3600 // 24 // 365)} years"


def size(number: float, precision: int = 3) -> str:
    """go-units' decimal size with `precision` significant digits: "1.99MB"."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    at = 0
    while number >= 1000 and at < len(units) - 1:
        number /= 1000
        at += 1
    return f"{significant(number, precision)}{units[at]}"


def binary(number: float) -> str:
    """go-units' binary size with four significant digits: "1.945GiB"."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    at = 0
    while number >= 1024 and at < len(units) - 1:
        number /= 1024
        at += 1
    return f"{significant(number, 4)}{units[at]}"


def significant(number: float, precision: int) -> str:
    """Go's %.Ng."""
    text = f"{number:.{precision}g}"
    return f"{float(text):.0f}" if "e" in text else text


def stamp(seconds: int) -> str:
    """Go's default print of a local time: "2026-11-24 05:48:14 +0000 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))
