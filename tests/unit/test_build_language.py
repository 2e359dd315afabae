"""What the golden cases do not show of the builder's language: patterns, positions, hostile input."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from sampan.build.evaluate import Base, evaluate
from sampan.build.parse import parse
from sampan.build.plan import plan
from sampan.build.scope import Request
from sampan.errors import InvalidRequest
from sampan.files.ignore import Ignore, Pattern, PatternError, read_ignore

IGNORE = [
    # patterns, left out, kept
    (["a"], ["a", "a/b", "a/b/c"], ["b", "aa", "b/a"]),
    (["*.o"], ["x.o", "x.o/y"], ["d/x.o", "x.c"]),
    (["**/*.o"], ["x.o", "d/x.o", "d/e/x.o"], ["x.c"]),
    (["a/**"], ["a/b", "a/b/c"], ["a", "b"]),
    (["a/**/c"], ["a/c", "a/b/c", "a/b/b/c", "a/b/c/d"], ["a/b", "c"]),
    (["**"], ["a", "a/b"], []),
    (["*"], ["a", "a/b"], []),
    (["."], ["a", "a/b"], []),
    (["*", "!a"], ["b", "b/a"], ["a", "a/b"]),
    (["*", "!a/b"], ["a", "a/c", "b"], ["a/b", "a/b/c"]),
    (["a", "!a/b", "a/b/c"], ["a/x", "a/b/c"], ["a/b", "a/b/d"]),
    (["!a", "a"], ["a"], ["b"]),
    (["/a/", "./b//c"], ["a", "b/c"], ["b"]),
    (["a/../b"], ["b"], ["a"]),
    (["a?c"], ["abc", "a.c"], ["ac", "a/c", "abbc"]),
    (["[a-c]x"], ["ax", "cx"], ["dx", "x"]),
    (["[^a]x"], ["bx"], ["ax", "/x"]),
    (["\\*"], ["*"], ["a"]),
    (["a*b*c*d*e"], ["abcde", "aXbXcXdXe"], ["abcd", "a/bcde"]),
    (["**/a*b*c*d"], ["abcd", "x/y/aXbcd"], ["x/ya/bcd", "xabcd"]),
]


@pytest.mark.parametrize(("patterns", "out", "kept"), IGNORE, ids=lambda value: ",".join(value)[:30])
def test_ignore_patterns(patterns: list[str], out: list[str], kept: list[str]) -> None:
    ignore = Ignore(patterns)

    assert [path for path in out if not ignore.excludes(path)] == []
    assert [path for path in kept if ignore.excludes(path)] == []


def test_an_ignore_file_has_comments_blanks_and_a_byte_order_mark() -> None:
    content = b"\xef\xbb\xbf# comment\n\n  a  \n#b\n !c\r\n"

    assert read_ignore(content) == ["a", "!c"]


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "[a-", "\\", "[-a]"])
def test_malformed_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Pattern(pattern)


def test_the_two_matchers_agree() -> None:
    """Few wildcards are matched by a regular expression, many by states: both must mean the same."""
    chosen = random.Random(6)
    for _ in range(3000):
        pattern = "".join(chosen.choice(["a", "b", "/", "*", "**/", "?", "**", "[ab]"]) for _ in range(chosen.randrange(1, 6)))
        path = "/".join("".join(chosen.choice("ab") for _ in range(chosen.randrange(1, 3))) for _ in range(chosen.randrange(1, 4)))
        one = Pattern(pattern)
        if one._regex is not None and not one.literal:
            assert one._walk(path) == (one._regex.fullmatch(path) is not None), (pattern, path)


def test_a_pattern_of_many_stars_is_no_bomb() -> None:
    pattern = Pattern("*a" * 200 + "b")
    start = time.process_time()

    assert not pattern.matches("a" * 2000)
    assert time.process_time() - start < 5


def test_row_64_hostile_dockerfiles_are_refused_and_nothing_else_happens() -> None:
    """Mutated files raise InvalidRequest or evaluate; never anything else."""
    chosen = random.Random(64)
    corpus = [path.read_bytes() for path in sorted((Path(__file__).parent.parent / "golden/dockerfile").glob("*/Dockerfile"))]
    corpus = [content for content in corpus if len(content) < 5000]
    pieces = [
        b"<<EOF",
        b"$",
        b"${",
        b"}",
        b'"',
        b"'",
        b"\\",
        b"\n",
        b"--mount=",
        b"=",
        b",",
        b"[",
        b"]",
        b"\0",
        b"\xff",
        b"ONBUILD ",
    ]
    for _ in range(4000):
        content = bytearray(chosen.choice(corpus))
        for _ in range(chosen.randrange(1, 4)):
            at = chosen.randrange(len(content) + 1)
            content[at : at + chosen.randrange(3)] = chosen.choice(pieces)
        try:
            made = plan(parse(bytes(content)), Request())
            for stage in made.stages:
                evaluate(stage.stage, Base(), made.outer, Request())
            made.describe()
        except InvalidRequest as error:
            assert str(error)


def test_an_error_is_shown_with_its_line() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(b"FROM a\nCOPY --chwon=1 a b\n")

    assert str(caught.value).split("\n")[1:] == ["Dockerfile:2:6", "  2 | COPY --chwon=1 a b", "    |      ^"]


def test_a_plan_can_be_printed() -> None:
    made = plan(parse(b"FROM a AS x\nRUN a\nFROM b AS y\nFROM scratch\nCOPY --from=x /a /\nCOPY --from=img /a /\n"), Request())

    assert made.describe() == (
        "x: from a\n  RUN a\n2: from scratch after x copying from img (target)\n  COPY --from=x /a /\n  COPY --from=img /a /\n"
        "y: not needed\n"
    )
