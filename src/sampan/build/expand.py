"""Variable expansion in the words of instructions (spec: dockerfile.md 2).

One pass, no backtracking: a word is scanned from left to right, and what a modifier holds is scanned by the same scanner.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

MAX_RESULT = 1 << 20
MAX_NESTING = 64
MAX_MATCHED = 1 << 14  # characters of a value that a pattern is applied to
_SPECIAL = frozenset("@*#?-$!0")
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NAME = _NAME_START | frozenset("0123456789")


class ExpansionError(ValueError):
    """The word is malformed.  offset: where in the word."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


@dataclass(frozen=True)
class Expanded:
    """A word after expansion.  used: the names it asked for; missing: those that were not set and had no default."""

    text: str
    words: tuple[str, ...]
    used: Set[str] = field(default_factory=frozenset)
    missing: Set[str] = field(default_factory=frozenset)


def expand(word: str, variables: Mapping[str, str], escape: str = "\\", *, quotes: bool = True) -> Expanded:
    """Return the word with variables replaced and quotes removed; quotes=False: quotes are signs like others.

    Raises ExpansionError.
    """
    scanner = _Scanner(word, variables, escape, quotes=quotes)
    text = scanner.word("")
    return Expanded(text, tuple(scanner.split), frozenset(scanner.used), frozenset(scanner.missing))


class _Scanner:
    def __init__(self, text: str, variables: Mapping[str, str], escape: str, *, quotes: bool) -> None:
        self._quotes = quotes
        self._text = text
        self._variables = variables
        self._escape = escape
        self._at = 0
        self._depth = 0
        self.used: set[str] = set()
        self.missing: set[str] = set()
        self.split: list[str] = []
        self._open = False  # whether the last of `split` may still grow

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _take(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def _fail(self, reason: str) -> ExpansionError:
        return ExpansionError(reason, self._at)

    def _grow(self, text: str, *, raw: bool) -> None:
        """Add to the list of words: unquoted expansions are split at blanks, everything else is not."""
        if self._depth:
            return
        pieces = [text] if raw else text.split()
        if not raw and text[:1].isspace():
            self._open = False
        for number, piece in enumerate(pieces):
            if self._open and number == 0:
                self.split[-1] += piece
            else:
                self.split.append(piece)
            self._open = True
        if not raw and text[-1:].isspace():
            self._open = False

    def word(self, stop: str) -> str:
        """Scan up to an unquoted `stop` sign, which is not taken, or to the end."""
        out: list[str] = []
        size = 0
        while (sign := self._peek()) and not (stop and sign in stop):
            if sign == "'" and self._quotes:
                piece, raw = self._single(), True
            elif sign == '"' and self._quotes:
                piece, raw = self._double(), True
            elif sign == "$":
                piece, raw = self._dollar(), False
            elif sign == self._escape:
                self._at += 1
                if not self._peek():
                    break
                piece, raw = self._take(), True
            else:
                piece, raw = self._take(), not sign.isspace()
            self._grow(piece, raw=raw)
            out.append(piece)
            size += len(piece)
            if size > MAX_RESULT:
                raise self._fail(f"the expanded word is longer than {MAX_RESULT} characters")
        return "".join(out)

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise self._fail("unexpected end of statement while looking for matching single-quote")
        piece = self._text[self._at + 1 : end]
        self._at = end + 1
        return piece

    def _double(self) -> str:
        begin = self._at
        self._at += 1
        out: list[str] = []
        while sign := self._peek():
            if sign == '"':
                self._at += 1
                return "".join(out)
            if sign == "$":
                out.append(self._dollar())
                continue
            self._at += 1
            if sign == self._escape and self._peek() and self._peek() in ('"', "$", self._escape):
                sign = self._take()
            out.append(sign)
        self._at = begin
        raise self._fail("unexpected end of statement while looking for matching double-quote")

    def _name(self) -> str:
        begin = self._at
        sign = self._peek()
        if sign in _NAME_START and sign:
            while self._peek() and self._peek() in _NAME:
                self._at += 1
        elif sign.isdigit() and sign.isascii():
            while self._peek().isdigit() and self._peek().isascii():
                self._at += 1
        elif sign and sign in _SPECIAL:
            self._at += 1
        return self._text[begin : self._at]

    def _lookup(self, name: str, *, tolerant: bool = False) -> str | None:
        self.used.add(name)
        value = self._variables.get(name)
        if value is None and not tolerant:
            self.missing.add(name)
        return value

    def _dollar(self) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            return (self._lookup(name) or "") if name else "$"
        begin = self._at - 1
        self._at += 1
        if self._peek() in ("}", ":", ""):
            raise self._fail("syntax error: bad substitution")
        name = self._name()
        if not name:
            raise self._fail("syntax error: bad substitution")
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self._fail(f"substitutions are nested deeper than {MAX_NESTING}")
        try:
            return self._braced(name, begin)
        finally:
            self._depth -= 1

    def _close(self, begin: int) -> None:
        if self._peek() != "}":
            self._at = begin
            raise self._fail("syntax error: missing '}'")
        self._at += 1

    def _braced(self, name: str, begin: int) -> str:
        sign = self._peek()
        if sign == "}":
            self._at += 1
            return self._lookup(name) or ""
        if not sign:
            self._close(begin)
        self._at += 1
        colon = sign == ":"
        if colon:
            sign = self._peek()
            if not sign or sign == "}":
                raise self._fail("unsupported modifier () in substitution" if sign else "syntax error: missing '}'")
            self._at += 1
        if sign in "+-?":
            return self._default(name, sign, begin, colon=colon)
        if colon or sign not in "#%/":
            raise ExpansionError(f"unsupported modifier ({':' if colon else ''}{sign}) in substitution", self._at - 1)
        return self._replace(name, begin) if sign == "/" else self._cut(name, sign, begin)

    def _default(self, name: str, sign: str, begin: int, *, colon: bool) -> str:
        word = self.word("}")
        self._close(begin)
        value = self._lookup(name, tolerant=True)
        there = bool(value) if colon else value is not None
        if sign == "+":
            return word if there else ""
        if sign == "-":
            return (value or "") if there else word
        if not there:
            reason = word or f"is not allowed to be {'empty' if value is not None else 'unset'}"
            raise ExpansionError(f"{name}: {reason}", begin)
        return value or ""

    def _matched(self, name: str) -> str:
        value = self._lookup(name) or ""
        if len(value) > MAX_MATCHED:
            raise self._fail(f"{name} is longer than the {MAX_MATCHED} characters that a pattern is applied to")
        return value

    def _cut(self, name: str, sign: str, begin: int) -> str:
        longest = self._peek() == sign
        if longest:
            self._at += 1
        pattern = self._pattern("}")
        self._close(begin)
        value = self._matched(name)
        if sign == "#":
            ends = _prefixes(pattern, value)
            return value[(max(ends) if longest else min(ends)) :] if ends else value
        mirrored = _prefixes(pattern[::-1], value[::-1])
        return value[: len(value) - (max(mirrored) if longest else min(mirrored))] if mirrored else value

    def _replace(self, name: str, begin: int) -> str:
        every = self._peek() == "/"
        if every:
            self._at += 1
        pattern = self._pattern("/}")
        replacement = ""
        if self._peek() == "/":
            self._at += 1
            replacement = self.word("}")
        self._close(begin)
        value = self._matched(name)
        out: list[str] = []
        at = 0
        while at < len(value):
            ends = _prefixes(pattern, value[at:])
            if ends and max(ends) > 0:
                out.append(replacement)
                at += max(ends)
                if not every:
                    break
            else:
                out.append(value[at])
                at += 1
        return "".join(out) + value[at:]

    def _pattern(self, stop: str) -> list[str]:
        """Scan a glob; a wildcard is the sign itself, everything literal carries a leading NUL."""
        out: list[str] = []
        while (sign := self._peek()) and sign not in stop:
            if sign == "$":
                out += [piece if piece in "*?" else "\0" + piece for piece in self._dollar()]
                continue
            self._at += 1
            if sign == self._escape and self._peek():
                sign = "\0" + self._take()
            elif sign in "*?":
                out.append(sign)
                continue
            else:
                sign = "\0" + sign
            out.append(sign)
        if len(out) > 256:
            raise self._fail("the pattern is longer than 256 characters")
        return out


def _prefixes(pattern: list[str], text: str) -> list[int]:
    """Return every length of a prefix of `text` that the glob matches; the time is pattern times text, never more."""
    reach = {0}
    for piece in pattern:
        if piece == "*":
            reach = set(range(min(reach), len(text) + 1))
        elif piece == "?":
            reach = {at + 1 for at in reach if at < len(text)}
        else:
            reach = {at + 1 for at in reach if at < len(text) and text[at] == piece[1]}
        if not reach:
            return []
    return sorted(reach)


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Split at blanks outside quotes; quotes and escapes stay as they are.  Raises ExpansionError for an open quote."""
    return [word for word, _ in placed_words(text, escape)]


def placed_words(text: str, escape: str = "\\") -> list[tuple[str, int]]:
    """The same, each with its offset."""
    found: list[tuple[str, int]] = []
    quote, begin = "", -1
    at = 0
    while at < len(text):
        sign = text[at]
        if begin < 0:
            if sign.isspace():
                at += 1
                continue
            begin = at
        if sign == escape and quote != "'":
            at += 2
            continue
        if quote:
            if sign == quote:
                quote = ""
        elif sign in "'\"":
            quote = sign
        elif sign.isspace():
            found.append((text[begin:at], begin))
            begin = -1
        at += 1
    if quote:
        kind = "single" if quote == "'" else "double"
        raise ExpansionError(f"unexpected end of statement while looking for matching {kind}-quote", begin)
    if begin >= 0:
        found.append((text[begin:], begin))
    return found
