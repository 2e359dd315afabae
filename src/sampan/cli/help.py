"""What --help prints."""

from __future__ import annotations

from sampan.cli import commands
from sampan.cli.options import Command, Flag

_KINDS = {
    "bool": "",
    "string": "string",
    "int": "int",
    "list": "list",
    "bytes": "bytes",
    "duration": "duration",
    "decimal": "decimal",
}
MAIN = ("run", "exec", "ps", "logs", "images", "stop", "rm", "explain", "version", "info")


def _flags(flags: tuple[Flag, ...]) -> str:
    rows = []
    for one in sorted(flags, key=lambda f: f.names[-1].lstrip("-")):
        short = next((name for name in one.names if len(name) == 2), "")
        long = one.names[-1] if len(one.names) < 3 else one.names[1]
        left = f"  {short + ', ' if short else '    '}{long} {_KINDS[one.kind]}".rstrip()
        default = f" (default {one.default})" if one.default not in (None, False, "") else ""
        rows.append((left, one.help + default))
    width = max((len(left) for left, _ in rows), default=0)
    return "".join(f"{left:<{width}}   {text}\n" for left, text in rows)


def describe_command(name: str, command: Command) -> str:
    text = f"Usage:  sampan {name} {command.usage}\n\n{command.help}\n"
    same = sorted({alias for alias, target in commands.ALIASES.items() if target == commands.ALIASES.get(name, name)} - {name})
    if same:
        text += "\nAliases:\n  " + ", ".join(f"sampan {one}" for one in [name, *same]) + "\n"
    if command.flags:
        text += "\nOptions:\n" + _flags(command.flags)
    if command.examples:
        text += "\nExamples:\n" + "".join(f"  {line}\n" for line in command.examples)
    return text


def _rows(found: dict[str, str]) -> str:
    width = max(map(len, found))
    return "".join(f"  {name:<{width}}   {text}\n" for name, text in found.items())


def group(name: str) -> str:
    every = commands.names()
    own = {one.removeprefix(name + " "): text for one, text in every.items() if one.startswith(name + " ")}
    for alias, target in commands.ALIASES.items():
        if alias.startswith(name + " ") and target in every:
            own[alias.removeprefix(name + " ")] = every[target]
    rows = _rows(dict(sorted(own.items())))
    return f"Usage:  sampan {name} COMMAND\n\nCommands:\n{rows}\nRun 'sampan {name} COMMAND --help' for more.\n"


def overview() -> str:
    every = commands.names()
    plain = {name: text for name, text in every.items() if " " not in name}
    main = {name: plain[name] for name in MAIN}
    rest = {name: plain[name] for name in sorted(plain) if name not in MAIN}
    groups = {one: f"Manage {one}s" if one != "system" else "Manage Sampan" for one in commands.GROUPS}
    return (
        "Usage:  sampan [OPTIONS] COMMAND\n\nA container engine in Python\n\n"
        f"Common Commands:\n{_rows(main)}\nManagement Commands:\n{_rows(groups)}\nCommands:\n{_rows(rest)}\n"
        f"Global Options:\n{_flags(commands.GLOBAL)}\n"
        "Examples:\n  sampan run --rm busybox echo hello\n  sampan -H tcp://127.0.0.1:2375 ps\n\n"
        "Run 'sampan COMMAND --help' for more information on a command.\n"
    )
