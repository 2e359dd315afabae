"""JSON from strangers into typed values: strict where ambiguity is dangerous, lenient where Go's decoder is.

Refused: duplicate keys (also in another case), more than DEPTH levels, integers beyond 64 bits, NaN and Infinity, bytes
that are not UTF-8, lone surrogates, NUL in strings, trailing content.  Accepted as Go does: any case of a field's name,
unknown fields, null for a field's zero value.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect as types

from sampan.errors import InvalidRequest

DEPTH = 64
LIMIT = 4 * 1024 * 1024  # bytes of a document

T = TypeVar("T")
Fold = Callable[[Any, int], Any]


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (value := int(text)) < 2**63:
        raise ValueError("number does not fit 64 bits")
    return value


def _float(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError("number does not fit 64 bits")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"invalid literal {text}")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("duplicate key")
    return made


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_int, parse_float=_float, parse_constant=_constant)


def loads(data: bytes) -> Any:
    """Parse a document.  Raises InvalidRequest."""
    if len(data) > LIMIT:
        raise InvalidRequest("invalid JSON: document too large")
    try:
        text = data.decode("utf-8")
        start = len(text) - len(text.lstrip(" \t\r\n"))
        if start == len(text):
            raise InvalidRequest("invalid JSON: EOF")
        value, end = _decoder.raw_decode(text, start)
    except RecursionError:
        raise InvalidRequest("invalid JSON: nested too deeply") from None
    except UnicodeDecodeError:
        raise InvalidRequest("invalid JSON: not UTF-8") from None
    except ValueError as error:
        raise InvalidRequest(f"invalid JSON: {str(error)[:200]}") from None
    if text[end:].strip(" \t\r\n"):
        raise InvalidRequest("unexpected content after JSON")
    if "\\u" in text:
        _check_text(value)
    elif "\0" in text:  # a raw NUL is refused by the parser already
        raise InvalidRequest("invalid JSON: NUL in a string")
    return value


def _check_text(value: Any) -> None:
    """Lone surrogates cannot be stored or sent again; NUL ends every C string."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise InvalidRequest("invalid JSON: NUL in a string")
            try:
                item.encode()
            except UnicodeEncodeError:
                raise InvalidRequest("invalid JSON: lone surrogate in a string") from None
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def decode(data: bytes, kind: type[T]) -> T:
    """Parse a document into `kind`.  Raises InvalidRequest."""
    value = loads(data)
    if value is None:
        raise InvalidRequest("invalid JSON: got null")
    return convert(value, kind)


def convert(value: Any, kind: type[T]) -> T:
    """Make a `kind` of a parsed document.  Raises InvalidRequest."""
    try:
        return msgspec.convert(_folder(cast(Any, kind))(value, 0), kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise InvalidRequest(f"invalid JSON: {error}") from None


@functools.cache
def _folder(kind: Any) -> Fold:
    return _fold_of(types.type_info(kind))


def _same(value: Any, depth: int) -> Any:
    _deep(value, depth)
    return value


def _deep(value: Any, depth: int) -> None:
    if depth > DEPTH:
        raise InvalidRequest("invalid JSON: nested too deeply")
    if isinstance(value, dict):
        for item in value.values():
            if isinstance(item, dict | list):
                _deep(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict | list):
                _deep(item, depth + 1)


def _fold_of(info: types.Type) -> Fold:
    if isinstance(info, types.UnionType):
        inner = [one for one in info.types if isinstance(one, types.StructType | types.DictType | types.ListType)]
        return _fold_of(inner[0]) if inner else _same
    if isinstance(info, types.StructType):
        return functools.partial(_fold_struct, info.cls)
    if isinstance(info, types.DictType):
        return functools.partial(_fold_dict, _fold_of(info.value_type), _zero(info.value_type))
    if isinstance(info, types.ListType):
        return functools.partial(_fold_list, _fold_of(info.item_type), _zero(info.item_type))
    return _same


def _zero(info: types.Type) -> Callable[[], Any]:
    """What Go leaves where a null stands among a map's or list's values."""
    zeros: tuple[tuple[type[types.Type], Callable[[], Any]], ...] = (
        (types.StrType, str),
        (types.IntType, int),
        (types.BoolType, bool),
        (types.DictType, dict),
        (types.ListType, list),
    )
    return next((make for kind, make in zeros if isinstance(info, kind)), lambda: None)


def _fold_dict(fold: Fold, zero: Callable[[], Any], value: Any, depth: int) -> Any:
    if not isinstance(value, dict):
        return value
    if depth > DEPTH:
        raise InvalidRequest("invalid JSON: nested too deeply")
    return {key: zero() if item is None else fold(item, depth + 1) for key, item in value.items()}


def _fold_list(fold: Fold, zero: Callable[[], Any], value: Any, depth: int) -> Any:
    if not isinstance(value, list):
        return value
    if depth > DEPTH:
        raise InvalidRequest("invalid JSON: nested too deeply")
    return [zero() if item is None else fold(item, depth + 1) for item in value]


@functools.cache
def _names(kind: Any) -> dict[str, tuple[str, Fold]]:
    info = cast(types.StructType, types.type_info(kind))
    return {field.encode_name.lower(): (field.encode_name, _fold_of(field.type)) for field in info.fields}


def _fold_struct(kind: Any, value: Any, depth: int) -> Any:
    if not isinstance(value, dict):
        return value
    if depth > DEPTH:
        raise InvalidRequest("invalid JSON: nested too deeply")
    names = _names(kind)
    made: dict[str, Any] = {}
    seen: set[str] = set()
    for key, item in value.items():
        lower = key.lower()
        if lower in seen:
            raise InvalidRequest(f"invalid JSON: duplicate key {key[:64]!r}")
        seen.add(lower)
        known = names.get(lower)
        if known is None:
            _deep(item, depth + 1)
        elif item is not None:
            made[known[0]] = known[1](item, depth + 1)
    return made
