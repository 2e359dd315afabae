"""RE2's syntax to instructions (github.com/google/re2/wiki/Syntax): (kind, value, next, other next)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Instruction = tuple[str, Any, int, int]
Program = list[Instruction]
Test = Callable[[str], bool]
Ranges = tuple[tuple[int, int], ...]

CHAR, SPLIT, MATCH, WORD, NOT_WORD = "char", "split", "match", "word", "not-word"
BEGIN, END = "begin", "end"
LONGEST, DEEPEST, MOST = 512, 64, 2000  # characters, nested groups, instructions
_MOST_REPEATS = 1000

_DIGIT: Ranges = ((48, 57),)
_WORDS: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = ((9, 10), (12, 13), (32, 32))
_PERL = {"d": _DIGIT, "w": _WORDS, "s": _SPACE}
_POSIX: dict[str, Ranges] = {
    "alnum": ((48, 57), (65, 90), (97, 122)), "alpha": ((65, 90), (97, 122)), "ascii": ((0, 127),), "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)), "digit": _DIGIT, "graph": ((33, 126),), "lower": ((97, 122),), "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)), "space": ((9, 13), (32, 32)), "upper": ((65, 90),), "word": _WORDS,
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}  # fmt: skip
_ESCAPES = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7}


class BadPattern(Exception):
    """Not a regular expression, or one that is too long."""


def parse(text: str) -> Program:
    """Return the program; it begins at instruction 0.  Raises BadPattern."""
    if len(text) > LONGEST:
        raise BadPattern("too long")
    reader = _Reader(text)
    node = reader.alternatives(0)
    if reader.at < len(text):
        raise BadPattern("unexpected )")
    program: Program = []
    _emit(node, program)
    program.append((MATCH, None, 0, 0))
    return program


# A node is its kind and what that needs: char a test, assert a kind and a flag, cat and alt their nodes,
# repeat a node with its least and most count (None: no end).
Node = tuple[Any, ...]


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.fold = self.dot_all = self.multiline = False

    def _take(self) -> str:
        if self.at >= len(self.text):
            raise BadPattern("ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def _next_is(self, word: str) -> bool:
        if self.text.startswith(word, self.at):
            self.at += len(word)
            return True
        return False

    def alternatives(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise BadPattern("nested too deep")
        kept = (self.fold, self.dot_all, self.multiline)
        branches = [self._sequence(depth)]
        while self._next_is("|"):
            branches.append(self._sequence(depth))
        self.fold, self.dot_all, self.multiline = kept
        return branches[0] if len(branches) == 1 else ("alt", branches)

    def _sequence(self, depth: int) -> Node:
        nodes: list[Node] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            node = self._atom(depth)
            if node is not None:
                nodes.append(self._repeated(node))
        return ("cat", nodes)

    def _repeated(self, node: Node) -> Node:
        count = 0
        while self.at < len(self.text):
            least_most = self._count()
            if least_most is None:
                return node
            count += 1
            if count > 1:
                raise BadPattern("nested repetition operator")
            self._next_is("?")  # lazy: the same set of texts
            node = ("repeat", node, *least_most)
        return node

    def _count(self) -> tuple[int, int | None] | None:
        sign = self.text[self.at]
        if sign in "*+?":
            self.at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        if sign != "{":
            return None
        end = self.text.find("}", self.at)
        first, comma, last = self.text[self.at + 1 : end].partition(",") if end > 0 else ("", "", "")
        if not _number(first) or (last and not _number(last)):
            return None  # a brace that is no count is itself
        least, most = int(first), int(last) if last else None if comma else int(first)
        if least > _MOST_REPEATS or (most is not None and (most > _MOST_REPEATS or most < least)):
            raise BadPattern("invalid repeat count")
        self.at = end + 1
        return least, most

    def _atom(self, depth: int) -> Node | None:
        sign = self._take()
        if sign == "(":
            return self._group(depth)
        if sign == "[":
            return ("char", self._class())
        if sign == ".":
            return ("char", (lambda _: True) if self.dot_all else (lambda one: one != "\n"))
        if sign == "^":
            return ("assert", BEGIN, self.multiline)
        if sign == "$":
            return ("assert", END, self.multiline)
        if sign in "*+?":
            raise BadPattern("missing argument to repetition operator")
        if sign == "\\":
            return self._escape()
        return ("char", _among(((ord(sign), ord(sign)),), self.fold))

    def _group(self, depth: int) -> Node | None:
        if self._next_is("?"):
            if self._next_is("P<") or self._next_is("<"):
                end = self.text.find(">", self.at)
                name = self.text[self.at : end] if end >= 0 else ""
                if not name or not (name.isascii() and name.replace("_", "a").isalnum()):
                    raise BadPattern("invalid named capture")
                self.at = end + 1
            elif self._flags():
                return None
        kept = (self.fold, self.dot_all, self.multiline)
        node = self.alternatives(depth + 1)
        self.fold, self.dot_all, self.multiline = self._outer if self._outer is not None else kept
        self._outer = None
        if not self._next_is(")"):
            raise BadPattern("missing closing )")
        return node

    _outer: tuple[bool, bool, bool] | None = None

    def _flags(self) -> bool:
        """Read `i-s:` or `i)`; return whether the group ends here and the flags stay."""
        before, on = (self.fold, self.dot_all, self.multiline), True
        while (sign := self._take()) not in ":)":
            if sign == "-":
                on = False
            elif sign == "i":
                self.fold = on
            elif sign == "s":
                self.dot_all = on
            elif sign == "m":
                self.multiline = on
            elif sign != "U":
                raise BadPattern("invalid group flag")
        if sign == ":":
            self._outer = before
        return sign == ")"

    def _escape(self) -> Node:
        sign = self._take()
        if sign.lower() in _PERL:
            return ("char", _among(_PERL[sign.lower()], False, sign.isupper()))
        if sign in "AzbB":
            kind = {"A": BEGIN, "z": END, "b": WORD, "B": NOT_WORD}[sign]
            return ("assert", kind, False)
        if sign == "Q":
            end = self.text.find("\\E", self.at)
            words = self.text[self.at : end if end >= 0 else len(self.text)]
            self.at = end + 2 if end >= 0 else len(self.text)
            return ("cat", [("char", _among(((ord(one), ord(one)),), self.fold)) for one in words])
        code = self._code(sign)
        return ("char", _among(((code, code),), self.fold))

    def _code(self, sign: str) -> int:
        """The character that an escape names."""
        if sign in _ESCAPES:
            return _ESCAPES[sign]
        if sign == "x":
            digits = self.text[self.at : self.at + 2]
            if self._next_is("{"):
                end = self.text.find("}", self.at)
                digits = self.text[self.at : end] if end >= 0 else ""
                self.at = end + 1
            else:
                self.at += 2
            try:
                return min(int(digits, 16), 0x10FFFF) if digits.isalnum() else -1
            except ValueError:
                raise BadPattern("invalid escape") from None
        if sign.isascii() and not sign.isalnum():
            return ord(sign)
        raise BadPattern("invalid escape sequence")

    def _class(self) -> Test:
        negated = self._next_is("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self._next_is("]"):
            first = False
            ranges += self._class_item()
        return _among(tuple(ranges), self.fold, negated)

    def _class_item(self) -> Ranges:
        if self._next_is("[:"):
            end = self.text.find(":]", self.at)
            name = self.text[self.at : end] if end >= 0 else ""
            self.at = end + 2
            found = _POSIX.get(name.removeprefix("^"))
            if found is None:
                raise BadPattern("invalid character class range")
            return _others(found) if name.startswith("^") else found
        sign = self._take()
        if sign == "\\":
            sign = self._take()
            if sign.lower() in _PERL:
                return _others(_PERL[sign.lower()]) if sign.isupper() else _PERL[sign.lower()]
            low = self._code(sign)
        else:
            low = ord(sign)
        if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
            self.at += 1
            sign = self._take()
            high = self._code(self._take()) if sign == "\\" else ord(sign)
            if high < low:
                raise BadPattern("invalid character class range")
            return ((low, high),)
        return ((low, low),)


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6


def _others(ranges: Ranges) -> Ranges:
    made, low = [], 0
    for first, last in sorted(ranges):
        if first > low:
            made.append((low, first - 1))
        low = last + 1
    return (*made, (low, 0x10FFFF))


def _among(ranges: Ranges, fold: bool, negated: bool = False) -> Test:
    def test(character: str) -> bool:
        codes = {ord(character)}
        if fold:
            codes |= {ord(one) for one in (character.lower(), character.upper()) if len(one) == 1}
        return any(low <= code <= high for low, high in ranges for code in codes) != negated

    return test


def _emit(node: Node, program: Program) -> None:
    """Append the node's instructions; it ends by running on to the next one."""
    if len(program) > MOST:
        raise BadPattern("too large")
    kind = node[0]
    if kind == "char":
        program.append((CHAR, node[1], len(program) + 1, 0))
    elif kind == "assert":
        program.append((node[1], node[2], len(program) + 1, 0))
    elif kind == "cat":
        for one in node[1]:
            _emit(one, program)
    elif kind == "alt":
        _emit_alternatives(node[1], program)
    else:
        _emit_repeat(node[1], node[2], node[3], program)


def _emit_alternatives(branches: list[Node], program: Program) -> None:
    ends = []
    for one in branches[:-1]:
        split = len(program)
        program.append((SPLIT, None, split + 1, 0))
        _emit(one, program)
        ends.append(len(program))
        program.append((SPLIT, None, 0, 0))
        program[split] = (SPLIT, None, split + 1, len(program))
    _emit(branches[-1], program)
    for end in ends:
        program[end] = (SPLIT, None, len(program), len(program))


def _emit_repeat(node: Node, least: int, most: int | None, program: Program) -> None:
    for _ in range(least):
        _emit(node, program)
    if most is None:
        split = len(program)
        program.append((SPLIT, None, split + 1, 0))
        _emit(node, program)
        program.append((SPLIT, None, split, split))
        program[split] = (SPLIT, None, split + 1, len(program))
        return
    splits = []
    for _ in range(most - least):
        splits.append(len(program))
        program.append((SPLIT, None, len(program) + 1, 0))
        _emit(node, program)
    for split in splits:
        program[split] = (SPLIT, None, split + 1, len(program))
