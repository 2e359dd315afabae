"""Go's text/template as far as --format needs it: pieces of text, and the tokens of an action."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SPACE = " \t\r\n"
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}


class TemplateError(Exception):
    """A template that cannot be read (`parsing`) or cannot be executed."""

    def __init__(self, message: str, *, parsing: bool = True) -> None:
        super().__init__(message)
        self.parsing = parsing


def wrong(why: str) -> TemplateError:
    return TemplateError(f"template: :1: {why}")


@dataclass(frozen=True, slots=True)
class Token:
    """kind: field, variable, word, string, number, char, or the sign itself: ( ) | , := = ."""

    kind: str
    text: str
    value: Any = None


def pieces(text: str) -> list[tuple[bool, str]]:
    """Split into (is action, text), with {{- and -}} done and comments left out."""
    made: list[tuple[bool, str]] = []
    at, trim = 0, False
    while True:
        start = text.find("{{", at)
        plain = text[at:] if start < 0 else text[at:start]
        if trim:
            plain = plain.lstrip(SPACE)
        if start < 0:
            if plain:
                made.append((False, plain))
            return made
        start += 2
        if text[start : start + 1] == "-" and text[start + 1 : start + 2] in ("", *SPACE):
            plain = plain.rstrip(SPACE)
            start += 1
        if plain:
            made.append((False, plain))
        end = _action_end(text, start)
        inner = text[start:end]
        at = end + 2
        trim = len(inner) > 1 and inner.endswith("-") and inner[-2] in SPACE
        inner = (inner[:-1] if trim else inner).strip(SPACE)
        if not (inner.startswith("/*") and inner.endswith("*/")):
            made.append((True, inner))


def _action_end(text: str, start: int) -> int:
    """Where the action that begins at `start` ends: the next }} outside of strings and comments."""
    at = start
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    if text.startswith("/*", at):
        close = text.find("*/", at)
        if close < 0:
            raise wrong("unclosed comment")
        at = close + 2
    while at < len(text):
        sign = text[at]
        if sign == "}" and text.startswith("}}", at):
            return at
        if sign in "\"'":
            at += 1
            while at < len(text) and text[at] != sign:
                at += 2 if text[at] == "\\" else 1
            if at >= len(text):
                raise wrong("unterminated quoted string" if sign == '"' else "unterminated character constant")
        elif sign == "`":
            at = text.find("`", at + 1)
            if at < 0:
                raise wrong("unterminated raw quoted string")
        at += 1
    raise wrong("unclosed action")


def _name_end(text: str, at: int) -> int:
    while at < len(text) and (text[at].isalnum() or text[at] == "_"):
        at += 1
    return at


def tokens(text: str) -> list[Token]:
    """Read the inside of an action.  Raises TemplateError.  A space before a field matters: it is a token too."""
    made: list[Token] = []
    at = 0
    while at < len(text):
        sign = text[at]
        if sign in SPACE:
            while at < len(text) and text[at] in SPACE:
                at += 1
            made.append(Token("space", " "))
            continue
        token, at = _token(text, at, sign)
        made.append(token)
    return made


def _token(text: str, at: int, sign: str) -> tuple[Token, int]:
    if sign in "\"'`":
        return _string(text, at, sign)
    if sign == ".":
        end = _name_end(text, at + 1)
        if text[at + 1 : at + 2].isdigit():
            return _number(text, at)
        return (Token("field", text[at + 1 : end]) if end > at + 1 else Token(".", ".")), end
    if sign == "$":
        end = _name_end(text, at + 1)
        return Token("variable", text[at:end]), end
    if text.startswith(":=", at):
        return Token(":=", ":="), at + 2
    if sign in "()|,=":
        return Token(sign, sign), at + 1
    if sign.isdigit() or sign in "+-":
        return _number(text, at)
    if sign.isalpha() or sign == "_":
        end = _name_end(text, at)
        return Token("word", text[at:end]), end
    raise wrong(
        f"unexpected {quoted(sign)} in command" if sign in "{}" else f"unrecognized character in action: U+{ord(sign):04X} '{sign}'"
    )


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(text: str, at: int) -> tuple[Token, int]:
    end = at + 1
    while end < len(text) and (text[end].isalnum() or text[end] in "._"):
        end += 1
    word = text[at:end]
    value: int | float
    try:
        if len(word) > 40 or not word.isascii():
            raise ValueError
        value = float(word) if "." in word or ("e" in word.lower() and "x" not in word.lower()) else int(word, 0)
    except ValueError:
        raise wrong(f"bad number syntax: {quoted(word)}") from None
    return Token("number", word, value), end


def _string(text: str, at: int, sign: str) -> tuple[Token, int]:
    if sign == "`":
        end = text.index("`", at + 1)
        return Token("string", text[at : end + 1], text[at + 1 : end]), end + 1
    made: list[str] = []
    end = at + 1
    while text[end] != sign:
        if text[end] == "\\":
            made_one, end = _escape(text, end + 1)
            made.append(made_one)
        else:
            made.append(text[end])
            end += 1
    whole = "".join(made)
    if sign == "'":
        if len(whole) != 1:
            raise wrong(f"malformed character constant: {text[at : end + 1]}")
        return Token("number", text[at : end + 1], ord(whole)), end + 1
    return Token("string", text[at : end + 1], whole), end + 1


def _escape(text: str, at: int) -> tuple[str, int]:
    sign = text[at]
    if sign in _ESCAPES:
        return _ESCAPES[sign], at + 1
    width = {"x": 2, "u": 4, "U": 8}.get(sign)
    digits = text[at + 1 : at + 1 + width] if width else ""
    if width and len(digits) == width and all(d in "0123456789abcdefABCDEF" for d in digits) and int(digits, 16) < 0x110000:
        return chr(int(digits, 16)), at + 1 + width
    raise wrong("invalid syntax")
