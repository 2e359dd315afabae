"""The flags between an instruction's keyword and its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sampan.build.lines import Logical
from sampan.build.source import suggestion


@dataclass(frozen=True)
class Flag:
    """A flag as it was written.  value: None when it had none; offset: where in the line's text."""

    name: str
    value: str | None
    offset: int


class Flags:
    """The flags of one instruction, checked against those it has.

    known: name to kind: "one" (a value, once), "many", or "bool".
    """

    def __init__(self, line: Logical, known: Mapping[str, str]) -> None:
        self._line = line
        self.written, self.offset = _scan(line)
        self._values: dict[str, list[Flag]] = {}
        for flag in self.written:
            kind = known.get(flag.name)
            if kind is None:
                hint = suggestion(flag.name, known).replace("mean ", "mean --", 1) if known else ""
                raise line.error(f"unknown flag: --{flag.name[:64]}{hint}", flag.offset)
            if kind != "many" and flag.name in self._values:
                raise line.error(f"flag --{flag.name} specified more than once: duplicate flag specified: {flag.name}", flag.offset)
            if kind != "bool" and not flag.value:
                raise line.error(f"missing a value on flag: {flag.name}", flag.offset)
            if kind == "bool" and flag.value not in (None, "true", "false"):
                raise line.error(f"expecting boolean value for flag {flag.name}, not: {(flag.value or '')[:40]}", flag.offset)
            self._values.setdefault(flag.name, []).append(flag)

    @property
    def rest(self) -> str:
        """The arguments after the flags."""
        return self._line.text[self.offset :]

    def one(self, name: str) -> str:
        return self._values[name][0].value or "" if name in self._values else ""

    def many(self, name: str) -> list[Flag]:
        return self._values.get(name, [])

    def true(self, name: str) -> bool:
        return name in self._values and self._values[name][0].value != "false"

    def given(self, name: str) -> bool:
        return name in self._values

    def place(self, name: str) -> int:
        """Return the offset of a flag."""
        return self._values[name][0].offset


def _scan(line: Logical) -> tuple[list[Flag], int]:
    """Return the words that begin with `--`, unquoted, and the offset of what follows."""
    text, at = line.text, line.offset
    found: list[Flag] = []
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return found, at
        begin, quote = at, ""
        word: list[str] = []
        while at < len(text):
            sign = text[at]
            if quote:
                if sign == quote:
                    quote = ""
                    at += 1
                    continue
            elif sign.isspace():
                break
            elif sign in "'\"":
                quote = sign
                at += 1
                continue
            if sign == "\\" and at + 1 < len(text) and quote != "'":
                at += 1
                sign = text[at]
            word.append(sign)
            at += 1
        whole = "".join(word)
        if whole == "--":
            while at < len(text) and text[at].isspace():
                at += 1
            return found, at
        name, equals, value = whole[2:].partition("=")
        found.append(Flag(name, value if equals else None, begin))
