"""The patterns of .dockerignore, COPY --exclude and COPY's wildcards (spec: dockerfile.md 5).

A pattern is compiled to a set of states that is carried along the path, so the time is path times pattern whatever stands
in it; patterns with few wildcards become a regular expression, which cannot do worse than the square.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

MAX_PATTERNS = 10_000
MAX_PATTERN = 4096


class PatternError(ValueError):
    """A pattern is malformed."""


class Pattern:
    """One pattern, matched against a whole slash-separated path.  deep: `**` crosses slashes."""

    def __init__(self, text: str, *, deep: bool = True) -> None:
        if len(text) > MAX_PATTERN or "\0" in text:
            raise PatternError(f"pattern {text[:80]!r} is too long or has a NUL")
        self.text = text
        self._tokens = _tokens(text, deep=deep)
        self.literal = all(kind == "=" for kind, _ in self._tokens)
        wide = sum(kind in ("*", "**", "**/") for kind, _ in self._tokens)
        self._regex = re.compile("".join(map(_regex, self._tokens)), re.DOTALL) if wide <= 2 else None
        self._plain = "".join(value for _, value in self._tokens) if self.literal else ""

    def matches(self, path: str) -> bool:
        if self.literal:
            return path == self._plain
        if self._regex is not None:
            return self._regex.fullmatch(path) is not None
        return self._walk(path)

    def _walk(self, path: str) -> bool:
        """Carry the set of states along the path; ~state: inside a `**/`, which only a slash leaves."""
        end = len(self._tokens)
        states = self._spread({0})
        for sign in path:
            after: set[int] = set()
            for state in states:
                if state == end:
                    continue
                kind, value = self._tokens[state if state >= 0 else ~state]
                if kind == "**" or (kind == "*" and sign != "/"):
                    after.add(state)
                elif kind == "**/":
                    after.add(state if state < 0 else ~state)
                    if sign == "/":
                        after.add((state if state >= 0 else ~state) + 1)
                elif (kind == "=" and sign == value) or (kind == "?" and sign != "/") or (kind == "[" and _in(value, sign)):
                    after.add(state + 1)
            states = self._spread(after)
            if not states:
                return False
        return end in states

    def _spread(self, states: set[int]) -> set[int]:
        """Add what is reached without a sign: wildcards may match nothing."""
        waiting, found = list(states), set(states)
        while waiting:
            state = waiting.pop()
            if 0 <= state < len(self._tokens) and self._tokens[state][0] in ("*", "**", "**/") and state + 1 not in found:
                found.add(state + 1)
                waiting.append(state + 1)
        return found


def _tokens(text: str, *, deep: bool) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        sign = text[at]
        at += 1
        if sign == "*":
            if deep and text.startswith("*", at):
                at += 1
                while text.startswith("*", at):
                    at += 1
                if text.startswith("/", at):
                    at += 1
                    found.append(("**/", ""))
                else:
                    found.append(("**", ""))
            elif not found or found[-1][0] != "*":
                found.append(("*", ""))
        elif sign == "?":
            found.append(("?", ""))
        elif sign == "[":
            value, at = _class(text, at)
            found.append(("[", value))
        elif sign == "\\":
            if at == len(text):
                raise PatternError(f"pattern {text[:80]!r} ends with an escape")
            found.append(("=", text[at]))
            at += 1
        else:
            found.append(("=", sign))
    return found


def _class(text: str, at: int) -> tuple[str, int]:
    """Return a character class as `^` or ` ` and pairs of first and last signs."""
    negated = text.startswith("^", at)
    at += negated
    out = ["^" if negated else " "]
    while True:
        if at >= len(text) or (text[at] == "]" and len(out) == 1):
            raise PatternError(f"pattern {text[:80]!r} has a malformed [class]")
        if text[at] == "]":
            return "".join(out), at + 1
        low, at = _class_sign(text, at)
        high = low
        if text.startswith("-", at):
            high, at = _class_sign(text, at + 1)
        out.append(low + high)


def _class_sign(text: str, at: int) -> tuple[str, int]:
    if at >= len(text) or text[at] in "-]":
        raise PatternError(f"pattern {text[:80]!r} has a malformed [class]")
    if text[at] == "\\":
        at += 1
        if at >= len(text):
            raise PatternError(f"pattern {text[:80]!r} has a malformed [class]")
    return text[at], at + 1


def _in(value: str, sign: str) -> bool:
    inside = any(value[n] <= sign <= value[n + 1] for n in range(1, len(value), 2))
    return sign != "/" and inside is (value[0] == " ")


def _regex(token: tuple[str, str]) -> str:
    kind, value = token
    if kind == "=":
        return re.escape(value)
    if kind == "[":
        body = "".join(
            f"{re.escape(value[n])}-{re.escape(value[n + 1])}" for n in range(1, len(value), 2) if value[n] <= value[n + 1]
        )
        if value[0] == "^":
            return f"[^/{body}]"
        return f"(?!/)[{body}]" if body else "(?!)"
    return {"?": "[^/]", "*": "[^/]*", "**": ".*", "**/": "(?:.*/)?"}[kind]


def clean(path: str) -> str:
    """Return the path without `.`, doubled slashes and a leading slash; `..` goes up, never above the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class Ignore:
    """A list of patterns; the last that matches a path or one of its parents decides."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules: list[tuple[Pattern, bool]] = []
        for text in patterns:
            negated = text.startswith("!")
            body = text[1:].strip() if negated else text
            if negated and not body:
                raise PatternError('illegal exclusion pattern: "!"')
            whole = clean(body)
            self._rules.append((Pattern(whole or "**"), negated))
            if len(self._rules) > MAX_PATTERNS:
                raise PatternError(f"more than {MAX_PATTERNS} patterns")
        self.negates = any(negated for _, negated in self._rules)
        self._parent = lru_cache(maxsize=4096)(self._verdicts)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, path: str) -> bool:
        """Return whether `path`, relative to the root, is left out."""
        verdict = False
        for hit, (_, negated) in zip(self._verdicts(path), self._rules, strict=True):
            if hit:
                verdict = not negated
        return verdict

    def _verdicts(self, path: str) -> tuple[bool, ...]:
        """Return for every rule whether it matches the path or one of its parents."""
        parent = path.rpartition("/")[0]
        above = self._parent(parent) if parent else (False,) * len(self._rules)
        return tuple(hit or rule.matches(path) for hit, (rule, _) in zip(above, self._rules, strict=True))


def read_ignore(content: bytes) -> list[str]:
    """Return the patterns of a .dockerignore file.  Raises PatternError."""
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError:
        raise PatternError(".dockerignore is not UTF-8") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
