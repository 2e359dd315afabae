"""The functions of templates, docker's and Go's, and how Go prints values."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

WIDTH_LIMIT = 10_000


class Broken(Exception):
    """A function was called with what it cannot use."""


class Map(dict[str, Any]):
    """An object that is a map in Go."""


class Nil:
    """Go's nil map or nil list: empty, and null in JSON."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


def truth(value: Any) -> bool:
    """Go's truth: the zero value of every kind is false."""
    return bool(value)


def printed(value: Any, *, top: bool = True) -> str:
    """Go's %v."""
    if value is None:
        return "<no value>" if top else "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e21 else repr(value)
    if isinstance(value, Nil):
        return value.text
    if isinstance(value, list):
        return "[" + " ".join(printed(item, top=False) for item in value) + "]"
    if isinstance(value, Map):
        return "map[" + " ".join(f"{key}:{printed(value[key], top=False)}" for key in sorted(value)) + "]"
    if isinstance(value, dict):
        return "{" + " ".join(printed(item, top=False) for item in value.values()) + "}"
    if callable(value):
        return printed(value())
    plain = getattr(value, "plain", None)
    return printed(plain()) if plain is not None else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Nil):
        return None
    plain = getattr(value, "plain", None)
    if plain is None:
        raise TypeError
    return plain()


def to_json(value: Any) -> str:
    """Return JSON; of a table's row with Go's escapes for HTML, which its rows' own encoder makes and `json` does not."""
    if hasattr(value, "plain"):
        text = json.dumps(value.plain(), ensure_ascii=False, separators=(",", ":"))
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Map):
            value = value.get(key, "")
        elif isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | str):
            if not isinstance(key, int) or isinstance(key, bool):
                raise Broken(f"cannot index slice/array with type {type(key).__name__}")
            if not 0 <= key < len(value):
                raise Broken(f"index out of range: {key}")
            value = value[key] if isinstance(value, list) else value.encode()[key]
        elif isinstance(value, Nil) and value.text == "map[]":
            value = ""
        elif value is None:
            raise Broken("index of untyped nil")
        else:
            raise Broken(f"can't index item of type {type(value).__name__}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if (
        not isinstance(value, list | str)
        or len(bounds) > 2
        or any(not isinstance(b, int) or not 0 <= b <= len(value) for b in bounds)
    ):
        raise Broken("index out of range")
    low, high = (*bounds, 0, len(value))[:2] if len(bounds) == 2 else (bounds[0] if bounds else 0, len(value))
    return value[low:high]


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | dict | Nil):
        return len(value)
    raise Broken(f"len of type {printed(value, top=False)}")


def _same_kind(left: Any, right: Any) -> bool:
    return isinstance(left, str) == isinstance(right, str) and isinstance(left, bool) == isinstance(right, bool)


def _eq(left: Any, *others: Any) -> bool:
    if not others:
        raise Broken("missing argument for comparison")
    for other in others:
        if left is not None and other is not None and not _same_kind(left, other):
            raise Broken("incompatible types for comparison")
        if left == other:
            return True
    return False


def _lt(left: Any, right: Any) -> bool:
    if not _same_kind(left, right) or not isinstance(left, str | int | float) or not isinstance(right, str | int | float):
        raise Broken("incompatible types for comparison")
    return bool(left < right)  # type: ignore[operator]  # both strings or both numbers, just checked


def _join(values: Any, separator: str = "") -> str:
    if isinstance(values, Nil):
        return ""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Broken("join takes a list of strings")
    return separator.join(values)


def _pad(text: str, before: int, after: int) -> str:
    if not text:
        return ""
    return " " * min(before, WIDTH_LIMIT) + text + " " * min(after, WIDTH_LIMIT)


def _text(change: Callable[[str], str]) -> Callable[[Any], str]:
    def function(value: Any) -> str:
        if not isinstance(value, str):
            raise Broken("wrong type; expected string")
        return change(value)

    return function


def _title(text: str) -> str:
    out, start = [], True
    for letter in text:
        out.append(letter.upper() if start else letter)
        start = not (letter.isalnum() or letter in "_'")
    return "".join(out)


def _print(*values: Any) -> str:
    out = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            out += " "
        out += printed(value, top=False)
    return out


def printf(form: str, *values: Any) -> str:
    """Go's Sprintf: flags - + # 0 space, width, precision; s d v q t x X o b c f e g U T."""
    if not isinstance(form, str):
        raise Broken("wrong type for format; expected string")
    out: list[str] = []
    at = used = 0
    while (start := form.find("%", at)) >= 0:
        out.append(form[at:start])
        at = start + 1
        while at < len(form) and form[at] in "-+# 0":
            at += 1
        flags = form[start + 1 : at]
        digits = at
        while at < len(form) and form[at] in "0123456789.":
            at += 1
        width, _, precision = form[digits:at].partition(".")
        verb = form[at : at + 1]
        at += 1
        if verb == "%":
            out.append("%")
        elif not verb:
            out.append("%!(NOVERB)")
        elif used >= len(values):
            out.append(f"%!{verb}(MISSING)")
        else:
            has_precision = "." in form[digits : at - 1]
            text = _verb(verb, values[used], flags, int(precision or "0") if has_precision else None)
            out.append(_padded(text, flags, min(int(width or "0"), WIDTH_LIMIT)))
            used += 1
    out.append(form[at:])
    if used < len(values):
        out.append("%!(EXTRA " + ", ".join(f"{_go_type(v)}={printed(v, top=False)}" for v in values[used:]) + ")")
    return "".join(out)


def _padded(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and text[:1] in "-+0123456789":
        return text.zfill(width)
    return text.rjust(width)


def _go_type(value: Any) -> str:
    if value is None:
        return "<nil>"
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}")


def _verb(verb: str, value: Any, flags: str, precision: int | None) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if verb == "T":
        return _go_type(value)
    if verb == "v" or (verb == "t" and isinstance(value, bool)):
        return printed(value, top=False)
    if verb == "s" and not number and not isinstance(value, bool):
        text = printed(value, top=False)
        return text if precision is None else text[:precision]
    if verb == "q" and isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if verb == "q" and isinstance(value, list):
        return "[" + " ".join(json.dumps(printed(item), ensure_ascii=False) for item in value) + "]"
    if verb in "xX" and isinstance(value, str):
        text = value.encode().hex()
        return text.upper() if verb == "X" else text
    if isinstance(value, int) and number and verb in "dxXobcU":
        if verb == "c":
            return chr(value) if 0 <= value < 0x110000 else "�"
        if verb == "U":
            return f"U+{value:04X}"
        return f"{'+' if '+' in flags and value >= 0 else ''}{format(value, verb)}"
    if isinstance(value, float) and verb in "fFeEgG":
        return (
            format(value, f".{min(6 if precision is None else precision, 100)}{verb}")
            if verb not in "gG" or precision is not None
            else repr(value)
        )
    return f"%!{verb}({_go_type(value)}={printed(value, top=False)})"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "join": _join,
    "title": _text(_title),
    "lower": _text(str.lower),
    "upper": _text(str.upper),
    "pad": _pad,
    "truncate": lambda text, limit: text[: max(limit, 0)],
    "print": _print,
    "println": lambda *values: " ".join(printed(value, top=False) for value in values) + "\n",
    "printf": printf,
    "index": _index,
    "slice": _slice,
    "len": _len,
    "not": lambda value: not truth(value),
    "eq": _eq,
    "ne": lambda left, right: not _eq(left, right),
    "lt": _lt,
    "le": lambda left, right: _lt(left, right) or left == right,
    "gt": lambda left, right: _lt(right, left),
    "ge": lambda left, right: _lt(right, left) or left == right,
}
