"""The log drivers and their options (docker run --log-driver, --log-opt)."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.errors import InvalidRequest

DRIVERS = ("json-file", "local", "none", "syslog")
_COMMON = frozenset(("mode", "max-buffer-size"))
_ATTRIBUTES = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
_FILE = frozenset(("max-size", "max-file", "compress"))
_CACHE = frozenset(("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"))
_SYSLOG = frozenset(
    ("syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key",
     "syslog-tls-skip-verify")
)  # fmt: skip
KNOWN = {
    "json-file": _COMMON | _ATTRIBUTES | _FILE,
    "local": _COMMON | _ATTRIBUTES | _FILE,
    "none": _COMMON,
    "syslog": _COMMON | _ATTRIBUTES | _CACHE | _SYSLOG,
}
_UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}  # decimal, as Docker reads it
_BINARY = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MOST_BUFFER = 1 << 30


@dataclass(frozen=True)
class Options:
    """max_size: bytes of one file, -1 without limit.  max_file: how many files are kept, the current one included.

    buffer: 0 when output waits for the log (mode=blocking), else how many bytes may wait before lines are dropped.
    """

    max_size: int = 20 * 10**6
    max_file: int = 5
    compress: bool = False
    buffer: int = 0


def parse(options: dict[str, str], driver: str = "json-file") -> Options:
    """Return the options; a log is capped (20 MB, 5 files) unless max-size says -1.

    Raises InvalidRequest for an unknown driver or option, and for a bad value.
    """
    if driver not in KNOWN:
        raise InvalidRequest(f"logger: no log driver named '{driver[:32]}' is registered")
    unknown = set(options) - KNOWN[driver]
    if unknown:
        raise InvalidRequest(f"unknown log opt '{sorted(unknown)[0][:64]}' for {driver} log driver")
    prefix = "cache-" if driver == "syslog" else ""
    size, count = Options.max_size, Options.max_file
    if f"{prefix}max-size" in options:
        size = _size(options[f"{prefix}max-size"], _UNITS, f"{prefix}max-size")
    if f"{prefix}max-file" in options:
        text = options[f"{prefix}max-file"]
        if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 4 and int(text) > 0):
            raise InvalidRequest(f"{prefix}max-file cannot be less than 1: {text[:40]!r}")
        count = int(text)
    name = f"{prefix}compress"
    compress = boolean(options.get(name, "false" if driver == "json-file" else "true"), name)
    if compress and driver == "json-file" and (count == 1 or size < 0):
        raise InvalidRequest("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Options(size, count, compress, _buffer(options))


def _buffer(options: dict[str, str]) -> int:
    mode = options.get("mode", "blocking")
    if mode not in ("blocking", "non-blocking"):
        raise InvalidRequest(f"logger: logging mode '{mode[:32]}' is not supported, use blocking or non-blocking")
    if "max-buffer-size" not in options:
        return 1 << 20 if mode == "non-blocking" else 0
    if mode != "non-blocking":
        raise InvalidRequest("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    size = _size(options["max-buffer-size"], _BINARY, "max-buffer-size")
    if not 0 < size <= _MOST_BUFFER:
        raise InvalidRequest(f"invalid max-buffer-size {options['max-buffer-size'][:40]!r}: more than nothing, at most 1g")
    return size


def boolean(text: str, name: str) -> bool:
    """Return an option's truth value.  Raises InvalidRequest."""
    if text.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise InvalidRequest(f"invalid value for {name}: {text[:32]!r} is neither true nor false")
    return text.lower() in ("true", "1", "t")


def byte_count(text: str, name: str) -> int:
    """Return "64m" or "65536" in bytes, 1024-based; -1 for "0" and "-1".  Raises InvalidRequest."""
    return _size(text, _BINARY, name)


def _size(text: str, units: dict[str, int], name: str) -> int:
    if text in ("-1", "0"):
        return -1
    lower = text.strip().lower()
    digits = lower.rstrip("ib").rstrip("kmgt") if lower[-2:] in ("kb", "mb", "gb", "tb", "ib") else lower.rstrip("bkmgt")
    unit = lower[len(digits) :][:1]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15) or unit not in units:
        raise InvalidRequest(f"invalid {name} {text[:40]!r}")
    return int(digits) * units[unit] or -1
