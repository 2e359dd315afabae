"""Go's regular expressions, as filters use them, in time bounded by pattern and text: nothing backtracks (RE2's syntax).

A pattern becomes a list of instructions; all the places where a match may stand are followed at once, and every set of
places met is remembered with what each character leads to.
"""

from __future__ import annotations

from sampan.engine.pattern_syntax import BEGIN, CHAR, MATCH, NOT_WORD, SPLIT, WORD, BadPattern, Program, parse
from sampan.errors import InvalidRequest

MOST = 100_000  # instructions visited for one text, and for all texts of a request: far more than names need
MOST_IN_ALL = 4_000_000


class Pattern:
    """One compiled pattern.  Raises BadPattern."""

    def __init__(self, text: str) -> None:
        self._program: Program = parse(text)
        self._left, self._limit = MOST_IN_ALL, 0
        self._known: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def search(self, text: str) -> bool:
        """Return whether the pattern is found anywhere in `text`.  Raises InvalidRequest when that would take too long."""
        self._limit = max(0, self._left - MOST)
        places: frozenset[int] = frozenset()
        for at in range(len(text) + 1):
            before, here = text[at - 1] if at else "", text[at] if at < len(text) else ""
            follow, matched = self._closure(places, before, here, first=at == 0)
            if matched:
                return True
            if not here:
                return False
            places = self._step(follow, here)
        return False

    def _closure(self, places: frozenset[int], before: str, here: str, *, first: bool) -> tuple[frozenset[int], bool]:
        """Return the characters' instructions that can be reached without reading, and whether a match is among them."""
        seen: set[int] = set()
        stack = [*places, 0]
        found: set[int] = set()
        program = self._program
        while stack:
            place = stack.pop()
            if place in seen:
                continue
            seen.add(place)
            self._left -= 1
            if self._left <= self._limit:
                raise InvalidRequest("a filter's pattern is too expensive to be tried")
            kind, value, one, two = program[place]
            if kind == MATCH:
                return frozenset(), True
            if kind == CHAR:
                found.add(place)
            elif kind == SPLIT:
                stack += (two, one)
            elif _holds(kind, value, before, here, first=first):
                stack.append(one)
        return frozenset(found), False

    def _step(self, places: frozenset[int], character: str) -> frozenset[int]:
        known = self._known.get((places, character))
        if known is None:
            self._left -= len(places)
            program = self._program
            known = frozenset(program[place][2] for place in places if program[place][1](character))
            if len(self._known) < 4096:
                self._known[places, character] = known
        return known


def _holds(kind: str, value: object, before: str, here: str, *, first: bool) -> bool:
    if kind in (WORD, NOT_WORD):
        border = _word(before) != _word(here)
        return border == (kind == WORD)
    multiline = bool(value)
    if kind == BEGIN:
        return first or (multiline and before == "\n")
    return not here or (multiline and here == "\n")


def _word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())


class Patterns:
    """The patterns of one filter: a text passes that is one of them, or in which one is found; a broken one is found nowhere."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._plain = frozenset(patterns)
        self._compiled = []
        for pattern in patterns:
            try:
                self._compiled.append(Pattern(pattern))
            except BadPattern:
                continue

    def match(self, *texts: str) -> bool:
        return any(text in self._plain for text in texts) or any(one.search(text) for one in self._compiled for text in texts)
