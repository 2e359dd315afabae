"""From the lines of a Dockerfile to typed instructions (spec: dockerfile.md 3).  Pure: nothing is looked up, nothing read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from sampan.build.expand import ExpansionError, placed_words
from sampan.build.flags import Flags
from sampan.build.instructions import (
    Arg,
    Command,
    Dockerfile,
    From,
    Healthcheck,
    Instruction,
    Onbuild,
    Pairs,
    Shell,
    Stage,
    Value,
    Words,
)
from sampan.build.lines import Logical, lex, strings
from sampan.build.parse_files import add, copy
from sampan.build.parse_run import run
from sampan.build.source import suggestion
from sampan.engine.images.filters import duration
from sampan.errors import InvalidRequest

_STAGE = re.compile(r"[a-z][a-z0-9_.-]*")
MAX_INSTRUCTIONS = 10_000
MAX_STAGES = 1000


def parse(content: bytes) -> Dockerfile:
    """Return the parsed file.  Raises DockerfileError with the place, InvalidRequest."""
    lexed = lex(content)
    if len(lexed.lines) > MAX_INSTRUCTIONS:
        raise InvalidRequest(f"the Dockerfile has more than {MAX_INSTRUCTIONS} instructions")
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in lexed.lines:
        found = instruction(line, lexed.escape)
        if isinstance(found, From):
            stages.append((found, []))
        elif stages:
            stages[-1][1].append(found)
        elif isinstance(found, Arg):
            arguments.append(found)
        else:
            raise line.error("no build stage in current context: the first instruction must be FROM")
    if not stages:
        raise lexed.lines[-1].error("no build stage in current context: there is no FROM")
    if len(stages) > MAX_STAGES:
        raise InvalidRequest(f"the Dockerfile has more than {MAX_STAGES} stages")
    named = tuple(Stage(number, start, tuple(steps)) for number, (start, steps) in enumerate(stages))
    return Dockerfile(lexed.directives, lexed.escape, tuple(arguments), named, lexed.lines, lexed.remarks)


def trigger(text: str, escape: str = "\\") -> Instruction:
    """Return the instruction that an ONBUILD trigger holds.  Raises DockerfileError, InvalidRequest."""
    del escape  # a stored trigger is written with the default one
    lexed = lex(text.encode())
    if len(lexed.lines) != 1:
        raise InvalidRequest(f"ONBUILD trigger {text[:80]!r} is not one instruction")
    found = instruction(lexed.lines[0], "\\")
    if isinstance(found, From | Onbuild):
        raise InvalidRequest(f"{found.keyword} isn't allowed as an ONBUILD trigger")
    return found


def instruction(line: Logical, escape: str) -> Instruction:
    """Return the instruction of a line.  Raises DockerfileError."""
    build = _INSTRUCTIONS.get(line.keyword.upper())
    if build is None:
        raise line.error(f"unknown instruction: {line.keyword[:64]}{suggestion(line.keyword, _INSTRUCTIONS)}")
    try:
        return build(line, escape)
    except ExpansionError as error:
        raise line.error(error.reason, line.offset + error.offset) from None


def _arguments(line: Logical, known: dict[str, str] | None = None) -> Flags:
    flags = Flags(line, known or {})
    if not flags.rest.strip():
        raise line.error(f"{line.keyword.upper()} requires at least one argument")
    return flags


def _from(line: Logical, escape: str) -> From:
    flags = Flags(line, {"platform": "one"})
    words = flags.rest.split()
    if len(words) not in (1, 3):
        raise line.error("FROM requires either one or three arguments")
    name = ""
    if len(words) == 3:
        at = flags.offset + flags.rest.rindex(words[2])
        if words[1].lower() != "as":
            raise line.error("FROM requires either one or three arguments", flags.offset + len(words[0]) + 1)
        name = words[2].lower()
        if not _STAGE.fullmatch(name):
            raise line.error(
                f"invalid name for build stage: {words[2][:64]!r}, name can't start with a number or contain symbols", at
            )
    return From(line, words[0], flags.one("platform"), name)


def _arg(line: Logical, escape: str) -> Arg:
    flags = _arguments(line)
    pairs: list[tuple[str, str | None]] = []
    for word, at in placed_words(flags.rest, escape):
        name, equals, value = word.partition("=")
        if not name.strip("\"'"):
            raise line.error("ARG names can not be blank", flags.offset + at)
        pairs.append((name, value if equals else None))
    return Arg(line, tuple(pairs))


def _pairs(line: Logical, escape: str) -> Pairs:
    flags = _arguments(line)
    keyword, rest = line.keyword.upper(), flags.rest
    words = placed_words(rest, escape)
    if "=" not in words[0][0]:
        both = re.split(r"\s+", rest, maxsplit=1)
        if len(both) < 2 or not both[1]:
            raise line.error(f"{keyword} must have two arguments", flags.offset)
        return Pairs(line, ((both[0], both[1].rstrip()),), legacy=True)
    pairs: list[tuple[str, str]] = []
    for word, at in words:
        name, equals, value = word.partition("=")
        if not equals:
            reason = f'Syntax error - can\'t find = in "{word[:64]}". Must be of the form: name=value'
            raise line.error(reason, flags.offset + at)
        if not name:
            raise line.error(f"{keyword} names can not be blank", flags.offset + at)
        pairs.append((name, value))
    return Pairs(line, tuple(pairs))


def _command(line: Logical, escape: str) -> Command:
    flags = Flags(line, {})
    exact = strings(flags.rest)
    if exact is not None:
        return Command(line, tuple(exact), shell=False)
    if not flags.rest.strip() and line.keyword.upper() == "ENTRYPOINT":
        raise line.error("ENTRYPOINT requires at least one argument")
    return Command(line, (flags.rest,) if flags.rest.strip() else (), shell=bool(flags.rest.strip()))


def _words(line: Logical, escape: str) -> Words:
    flags = _arguments(line)
    exact = strings(flags.rest) if line.keyword.upper() == "VOLUME" else None
    words = tuple(exact) if exact is not None else tuple(flags.rest.split())
    if not words:
        raise line.error(f"{line.keyword.upper()} requires at least one argument")
    if any(not word.strip() for word in words):
        raise line.error("VOLUME specified can not be an empty string", flags.offset)
    return Words(line, words, exact=exact is not None)


def _value(line: Logical, escape: str) -> Value:
    flags = Flags(line, {})
    if not flags.rest.strip():
        raise line.error(f"{line.keyword.upper()} requires exactly one argument")
    return Value(line, flags.rest.strip())


def _shell(line: Logical, escape: str) -> Shell:
    flags = Flags(line, {})
    exact = strings(flags.rest)
    if exact is None:
        raise line.error("SHELL requires the arguments to be in JSON form", flags.offset)
    if not exact:
        raise line.error("SHELL requires at least one argument")
    return Shell(line, tuple(exact))


_TIMES = {"interval": "interval", "timeout": "timeout", "start-period": "start_period", "start-interval": "start_interval"}


def _healthcheck(line: Logical, escape: str) -> Healthcheck:
    flags = Flags(line, {**dict.fromkeys(_TIMES, "one"), "retries": "one"})
    kind, _, rest = (flags.rest.strip() + " ").partition(" ")
    rest = rest.strip()
    if not kind:
        raise line.error("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if rest or flags.written:
            raise line.error("HEALTHCHECK NONE takes no arguments", flags.offset)
        return Healthcheck(line, ("NONE",))
    if kind.upper() != "CMD":
        raise line.error(f'Unknown type "{kind[:64]}" in HEALTHCHECK (try CMD)', flags.offset)
    exact = strings(rest)
    if not rest or exact == []:
        raise line.error("Missing command after HEALTHCHECK CMD", flags.offset)
    times = {field: _time(line, flags, name) for name, field in _TIMES.items() if flags.given(name)}
    retries = flags.one("retries") or "0"
    if not (retries.isascii() and retries.isdigit() and len(retries) < 10):
        raise line.error(f"--retries must be at least 0 (not {retries[:40]})", flags.place("retries"))
    test = ("CMD", *exact) if exact is not None else ("CMD-SHELL", rest)
    return Healthcheck(line, test, retries=int(retries), **times)


def _time(line: Logical, flags: Flags, name: str) -> int:
    text = flags.one(name)
    found = 0 if text == "0" else duration(text)
    if found is None:
        raise line.error(f'time: invalid duration "{text[:40]}"', flags.place(name))
    if 0 < found < 1_000_000:
        raise line.error(f'Interval "{name}" cannot be less than 1ms', flags.place(name))
    return found


def _onbuild(line: Logical, escape: str) -> Onbuild:
    flags = _arguments(line)
    word = flags.rest.split()[0]
    if word.upper() == "ONBUILD":
        raise line.error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", flags.offset)
    if word.upper() in ("FROM", "MAINTAINER"):
        raise line.error(f"{word.upper()} isn't allowed as an ONBUILD trigger", flags.offset)
    after = flags.rest[len(word) :]
    offset = flags.offset + len(word) + len(after) - len(after.lstrip())
    inner = replace(line, keyword=word, offset=offset)
    if inner.keyword.upper() not in _INSTRUCTIONS:
        known = suggestion(word, _INSTRUCTIONS)
        raise line.error(f"unknown instruction: {word[:64]}{known}", flags.offset)
    instruction(inner, escape)
    documents = "".join(f"\n{one.content}{one.name}" for one in line.heredocs)
    return Onbuild(line, flags.rest.strip() + documents)


_INSTRUCTIONS: dict[str, Callable[[Logical, str], Instruction]] = {
    "ADD": add, "ARG": _arg, "CMD": _command, "COPY": copy, "ENTRYPOINT": _command, "ENV": _pairs, "EXPOSE": _words,
    "FROM": _from, "HEALTHCHECK": _healthcheck, "LABEL": _pairs, "MAINTAINER": _value, "ONBUILD": _onbuild, "RUN": run,
    "SHELL": _shell, "STOPSIGNAL": _value, "USER": _value, "VOLUME": _words, "WORKDIR": _value,
}  # fmt: skip
