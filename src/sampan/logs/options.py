"""The options of the json-file driver (docker run --log-opt)."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.errors import InvalidRequest, Unsupported

_IGNORED = frozenset(("labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"))
_UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}  # decimal, as Docker reads it
DRIVERS = ("json-file", "local", "none")


@dataclass(frozen=True)
class Options:
    """max_size: bytes of one file, -1 without limit.  max_file: how many files are kept, the current one included."""

    max_size: int = 20 * 10**6
    max_file: int = 5


def parse(options: dict[str, str]) -> Options:
    """Return the options; a log is capped (20 MB, 5 files) unless max-size says -1.

    Raises InvalidRequest for an unknown option or a bad value, Unsupported for compress=true.
    """
    unknown = set(options) - _IGNORED - {"max-size", "max-file", "compress"}
    if unknown:
        raise InvalidRequest(f"unknown log opt '{sorted(unknown)[0]}' for json-file log driver")
    if options.get("compress", "false").lower() not in ("false", "0", "f"):
        raise Unsupported("log option compress: rotated logs are kept as they are")
    size, count = Options.max_size, Options.max_file
    if "max-size" in options:
        size = _size(options["max-size"])
    if "max-file" in options:
        text = options["max-file"]
        if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 4 and int(text) > 0):
            raise InvalidRequest(f"max-file cannot be less than 1: {text[:40]!r}")
        count = int(text)
    return Options(size, count)


def _size(text: str) -> int:
    if text in ("-1", "0"):
        return -1
    lower = text.strip().lower()
    digits = lower.rstrip("ib").rstrip("kmgt") if lower[-2:] in ("kb", "mb", "gb", "tb", "ib") else lower.rstrip("bkmgt")
    unit = lower[len(digits) :][:1]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15) or unit not in _UNITS:
        raise InvalidRequest(f"invalid max-size {text[:40]!r}")
    return int(digits) * _UNITS[unit] or -1
