"""Filters' regular expressions: Go's meaning, and an end in bounded time whatever the pattern."""

from __future__ import annotations

import re
import time

import pytest

from sampan.engine.pattern_syntax import BadPattern
from sampan.engine.patterns import Pattern, Patterns
from sampan.errors import InvalidRequest

PATTERNS = (
    "a", "^web$", "web|db", "w(e|x)b+", "[a-c]x", "[^a-c]x", "a{2,3}", "\\bfoo\\b", "(a*)*b", "^/?web_[0-9]+$", "a.c", "\\d\\w",
    "x?y*", "(ab){2}", "^$", "[]a]", "a|", "(?:a|b)+$", "[\\d-]x", "(?i)WeB", "(?i:w)eb", "\\x61", "a\\.b", "(?P<n>a)b", "a{2}",
    "[\\w.]+$", "(?s)a.c", "(?m)^c$", "a+?b", "\\Ba", "[^\\W_]x",
)  # fmt: skip
TEXTS = (
    "", "a", "web", "/web", "db", "wxbbb", "ax", "dx", "aa", "aaa", "WEB", "foo", "a foo b", "xfoox", "aaaaaaab", "web_12",
    "/web_3", "abc", "a\nc", "1a", "abab", "ab", "3x", "-x", "a.b", "_x",
)  # fmt: skip


def test_what_go_and_python_both_know_means_the_same() -> None:
    for pattern in PATTERNS:
        compiled = Pattern(pattern)
        for text in TEXTS:
            assert compiled.search(text) == (re.search(pattern, text, re.ASCII) is not None), (pattern, text)


def test_what_python_spells_otherwise() -> None:
    assert Pattern("[[:digit:]]+z").search("12z") and not Pattern("[[:^digit:]]z").search("2z")
    assert Pattern("a\\z").search("ba") and not Pattern("a\\z").search("ab")
    assert Pattern("\\Qa.b\\E").search("a.b") and not Pattern("\\Qa.b\\E").search("axb")
    assert Pattern("a{,3}").search("a{,3}")


def test_a_broken_pattern_finds_nothing_but_itself() -> None:
    for broken in (
        "(",
        "a)",
        "[",
        "a**",
        "*a",
        "\\p{L}",
        "(?=a)",
        "a{3,2}",
        "a" * 600,
        "(?<n>",
        "\\xzz",
        "(a{1000}){1000}",
        "(" * 100,
    ):
        with pytest.raises(BadPattern):
            Pattern(broken)
        assert Patterns((broken,)).match("x", broken) and not Patterns((broken,)).match("a")


def test_no_pattern_takes_longer_than_a_moment() -> None:
    begin = time.monotonic()
    for pattern in ("(a*)*b", "(a|a)*b", "(a|aa)+$" * 20 + "b", "(x+x+)+y", "(.*)(.*)(.*)(.*)(.*)[^a]"):
        assert not Pattern(pattern).search("a" * 250)
    with pytest.raises(InvalidRequest, match="too expensive"):
        costly = Pattern("(x{0,30}){0,30}$")
        for _ in range(1000):
            costly.search("x" * 200 + "y")

    assert time.monotonic() - begin < 20


def test_many_texts_of_a_plain_pattern_stay_within_the_budget() -> None:
    names = Patterns(("^web-[0-9]+$",))

    assert sum(names.match(f"web-{number}", f"/web-{number}") for number in range(20_000)) == 20_000
