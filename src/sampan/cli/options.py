"""Reading a command line as docker's does: tables of flags, -it together, --flag=value, `--`.

argparse costs ten milliseconds at every start and has other words; this is a loop over a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class UsageError(Exception):
    """The command line is wrong: `code` is the exit code, 125 for flags, 1 for the number of arguments."""

    def __init__(self, message: str, code: int = 125) -> None:
        super().__init__(message)
        self.code = code


class HelpWanted(Exception):
    """--help was among the flags."""


@dataclass(frozen=True, slots=True)
class Flag:
    """kind: bool, string, int, list (repeatable), bytes, duration, decimal."""

    names: tuple[str, ...]
    kind: str
    help: str
    default: Any = None

    @property
    def key(self) -> str:
        return self.names[-1].lstrip("-").replace("-", "_")


def flag(names: str, kind: str = "bool", help: str = "", default: Any = None) -> Flag:
    """`names` is "-q --quiet": the long one last."""
    return Flag(tuple(names.split()), kind, help, default)


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table: how it is called, what it takes, where it is done.

    arguments: (least, most); most None is any number.  stop: flags end at the first argument.
    run: "module:function" below sampan.cli, called with an Invocation, returns the exit code.
    """

    usage: str
    help: str
    run: str
    flags: tuple[Flag, ...] = ()
    arguments: tuple[int, int | None] = (0, 0)
    stop: bool = False
    examples: tuple[str, ...] = ()


class Options(Mapping[str, Any]):
    """What the flags say; attributes by long name, with "_" for "-"."""

    def __init__(self, values: dict[str, Any], given: frozenset[str]) -> None:
        self._values = values
        self.given = given

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


_EMPTY: dict[str, Any] = {"bool": False, "string": "", "int": None, "bytes": None, "duration": None, "decimal": None}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_WORDS = {"bool": "strconv.ParseBool", "int": "strconv.ParseInt", "decimal": "strconv.ParseFloat"}


def _value(one: Flag, shown: str, text: str) -> Any:
    """Convert a flag's value.  Raises UsageError in docker's words."""
    try:
        return _convert(one.kind, text)
    except ValueError as error:
        why = str(error)
        if one.kind in _WORDS:
            why = f'{_WORDS[one.kind]}: parsing "{text}": invalid syntax'
        raise UsageError(f'invalid argument "{text}" for "{shown}" flag: {why}') from None


def _convert(kind: str, text: str) -> Any:
    if kind == "bool":
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise ValueError
    if kind == "int":
        digits = text[1:] if text[:1] in "+-" else text
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            raise ValueError
        return int(text)
    if kind == "bytes":
        from sampan.cli.units import parse_bytes

        return parse_bytes(text)
    if kind == "duration":
        from sampan.cli.units import parse_duration

        return parse_duration(text)
    if kind == "decimal":
        whole, _, rest = text.partition(".")
        if not (whole + rest).isascii() or not (whole + rest).isdigit() or len(text) > 24:
            raise ValueError
        return text
    return text


class _Reader:
    def __init__(self, flags: Sequence[Flag]) -> None:
        self.by_name = {name: one for one in flags for name in one.names}
        self.values: dict[str, Any] = {}
        self.given: set[str] = set()
        for one in flags:
            empty: Any = [] if one.kind == "list" else _EMPTY[one.kind]
            self.values[one.key] = empty if one.default is None else one.default

    def set(self, one: Flag, text: str) -> None:
        shown = ", ".join(one.names)
        value = _value(one, shown, text)
        if one.kind == "list":
            self.values[one.key].append(value)
        else:
            self.values[one.key] = value
        self.given.add(one.key)

    def long(self, word: str, rest: list[str]) -> None:
        name, equals, text = word.partition("=")
        if name == "--help":
            raise HelpWanted
        one = self.by_name.get(name)
        if one is None or len(name) < 3:
            raise UsageError(f"unknown flag: {name}")
        if not equals:
            if one.kind == "bool":
                text = "true"
            elif rest:
                text = rest.pop()
            else:
                raise UsageError(f"flag needs an argument: {name}")
        self.set(one, text)

    def short(self, word: str, rest: list[str]) -> None:
        at = 1
        while at < len(word):
            letter = word[at]
            one = self.by_name.get("-" + letter)
            at += 1
            if one is None:
                if letter == "h":
                    raise HelpWanted
                raise UsageError(f"unknown shorthand flag: '{letter}' in {word}")
            if word[at : at + 1] == "=":
                self.set(one, word[at + 1 :])
                return
            if one.kind == "bool":
                self.set(one, "true")
                continue
            if at < len(word):
                self.set(one, word[at:])
            elif rest:
                self.set(one, rest.pop())
            else:
                raise UsageError(f"flag needs an argument: '{letter}' in {word}")
            return


def parse(flags: Sequence[Flag], words: Sequence[str], *, stop: bool = False) -> tuple[Options, list[str]]:
    """Return what the flags say and the arguments.  With `stop` the first argument ends the flags.

    Raises UsageError, HelpWanted.
    """
    reader = _Reader(flags)
    rest = list(reversed(words))
    arguments: list[str] = []
    while rest:
        word = rest.pop()
        if word == "--":
            break
        if word.startswith("--"):
            reader.long(word, rest)
        elif word.startswith("-") and word != "-":
            reader.short(word, rest)
        else:
            arguments.append(word)
            if stop:
                break
    arguments.extend(reversed(rest))
    return Options(reader.values, frozenset(reader.given)), arguments


def count(name: str, limits: tuple[int, int | None], given: int) -> None:
    """Check the number of arguments.  Raises UsageError in docker's words."""
    least, most = limits
    if given >= least and (most is None or given <= most):
        return

    def words(number: int) -> str:
        return f"{number} argument" if number == 1 else f"{number} arguments"

    if most == 0:
        wanted = "accepts no arguments"
    elif most == least:
        wanted = f"requires {words(least)}"
    elif most is None:
        wanted = f"requires at least {words(least)}"
    else:
        wanted = f"requires at least {least} and at most {words(most)}" if least else f"requires at most {words(most)}"
    raise UsageError(f"'{name}' {wanted}", 1)
