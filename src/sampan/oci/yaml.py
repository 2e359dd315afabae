"""Reading YAML as far as people write settings in it: block mappings and lists, plain and quoted words, `[a, b]`, comments.

What can hide something is refused: anchors, aliases, tags, directives, block scalars, several documents, keys given twice
(SECURITY.md P14).  Plain words are typed as YAML 1.2's core schema has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sampan.errors import InvalidRequest

MAX_DEPTH = 32
_NO_KEY = frozenset("[]{}#&*!|>%@`,")  # what a plain key cannot begin with
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True)
class _Line:
    number: int
    indent: int
    text: str


def loads(content: bytes, subject: str) -> object:
    """Return the document's value.  Raises InvalidRequest naming the subject and the line."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{subject}: not UTF-8") from None
    reader = _Reader(list(_lines(text, subject)), subject)
    return reader.document()


def _lines(text: str, subject: str) -> list[_Line]:
    found: list[_Line] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip()
        bare = line.lstrip(" ")
        if not bare or bare.startswith("#") or (not found and bare == "---"):
            continue
        if bare.startswith("\t"):
            raise InvalidRequest(f"{subject}, line {number}: a tab cannot indent")
        if line in ("---", "...") or line.startswith("%"):
            raise InvalidRequest(f"{subject}, line {number}: one document without directives is expected")
        found.append(_Line(number, len(line) - len(bare), bare))
    return found


class _Reader:
    def __init__(self, lines: list[_Line], subject: str) -> None:
        self._lines = lines
        self._subject = subject
        self._at = 0
        self._depth = 0

    def document(self) -> object:
        if not self._lines:
            return None
        value = self._block(self._lines[0].indent)
        if self._at < len(self._lines):
            raise self._fail(self._lines[self._at], "this is indented otherwise than what stands before it")
        return value

    def _fail(self, line: _Line, reason: str) -> InvalidRequest:
        return InvalidRequest(f"{self._subject}, line {line.number}: {reason}: {line.text[:80]}")

    def _block(self, indent: int) -> object:
        """Read the mapping, list or word that begins at the current line."""
        line = self._lines[self._at]
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._fail(line, f"nested deeper than {MAX_DEPTH}")
        try:
            if line.text == "-" or line.text.startswith("- "):
                return self._list(indent)
            if _keyed(line.text) is not None:
                return self._mapping(indent)
            self._at += 1
            return self._word(line, line.text)
        finally:
            self._depth -= 1

    def _list(self, indent: int) -> list[object]:
        made: list[object] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.indent != indent or not (line.text == "-" or line.text.startswith("- ")):
                break
            rest = line.text[1:].lstrip(" ")
            if not rest or rest.startswith("#"):
                self._at += 1
                made.append(self._below(indent))
            else:  # what follows the dash is a block of its own, as far in as it stands
                inner = indent + len(line.text) - len(rest)
                self._lines[self._at] = _Line(line.number, inner, rest)
                made.append(self._block(inner))
        return made

    def _mapping(self, indent: int) -> dict[str, object]:
        made: dict[str, object] = {}
        while self._at < len(self._lines):
            line = self._lines[self._at]
            pair = _keyed(line.text) if line.indent == indent else None
            if pair is None:
                break
            key, rest = self._word(line, pair[0]), pair[1]
            if isinstance(key, list | dict) or key is None:
                raise self._fail(line, "this is no key")
            if str(key) in made:
                raise self._fail(line, "the key is given twice")
            self._at += 1
            if rest and not rest.startswith("#"):
                made[str(key)] = self._word(line, rest)
            else:
                made[str(key)] = self._below(indent, lists=True)
        return made

    def _below(self, indent: int, *, lists: bool = False) -> object:
        """Read what is further in; a list below a key may stand as far out as the key."""
        if self._at == len(self._lines):
            return None
        line = self._lines[self._at]
        if line.indent > indent:
            return self._block(line.indent)
        if lists and line.indent == indent and (line.text == "-" or line.text.startswith("- ")):
            return self._block(indent)
        return None

    def _word(self, line: _Line, text: str) -> object:
        """Read a word, or a list or mapping in one line."""
        if text[0] in "\"'":
            value, rest = self._quoted(line, text)
            if rest and not rest.startswith("#"):
                raise self._fail(line, "something follows the closing quote")
            return value
        text = text.split(" #")[0].rstrip()
        if text[0] in "[{":
            return self._flow(line, text)
        if text[0] in "&*!|>%@`":
            raise self._fail(line, f"{text[0]} is not understood here")
        if ": " in text or text.endswith(":"):
            raise self._fail(line, "a mapping in a mapping's line")
        return _typed(text)

    def _quoted(self, line: _Line, text: str) -> tuple[str, str]:
        """Return a quoted word and what follows it."""
        end = _closing(text)
        try:
            value = text[1 : end - 1].replace("''", "'") if text[0] == "'" else str(json.loads(text[:end]))
        except ValueError:
            end = 0
        if not end:
            raise self._fail(line, "the quotes do not fit")
        return value, text[end:].strip()

    def _flow(self, line: _Line, text: str) -> object:
        """Read `[a, b]`; whatever else is in braces has to be JSON."""
        try:
            return json.loads(text, object_pairs_hook=self._unique(line))
        except (ValueError, RecursionError):
            pass
        inner = text[1:-1].strip()
        if text[0] != "[" or text[-1] != "]" or any(sign in inner for sign in "[]{}:"):
            raise self._fail(line, "only [a, b] is understood, or JSON")
        return [self._word(line, part.strip() or "~") for part in inner.split(",")] if inner else []

    def _unique(self, line: _Line) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
        def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(pairs)
            if len(found) != len(pairs):
                raise self._fail(line, "a key is given twice")
            return found

        return made


def _closing(text: str) -> int:
    """Return the offset behind a quoted word, 0 when it does not end."""
    at = 1
    while at < len(text):
        if text[0] == '"' and text[at] == "\\":
            at += 2
        elif text[at] == text[0]:
            if text[0] != "'" or text[at + 1 : at + 2] != "'":
                return at + 1
            at += 2
        else:
            at += 1
    return 0


def _keyed(text: str) -> tuple[str, str] | None:
    """Return `key: rest` taken apart, None when it is something else."""
    if text[0] in "\"'":
        end = _closing(text)
        rest = text[end:].lstrip(" ") if end else ""
        return (text[:end], rest[1:].strip()) if rest[:1] == ":" and rest[1:2] in ("", " ") else None
    plain = text.split(" #")[0].rstrip()
    at = plain.find(": ") if ": " in plain else len(plain) - 1
    if text[0] in _NO_KEY or plain[at] != ":" or not at:
        return None
    return plain[:at].rstrip(), text[at + 1 :].strip()


def _typed(text: str) -> object:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _NUMBER.fullmatch(text) and len(text) < 30:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return text
