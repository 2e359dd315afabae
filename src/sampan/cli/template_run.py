"""Go's text/template as far as --format needs it: execution over JSON values.

Templates see two kinds of objects: Row (a line of a table: fields and methods) and JSON.  Of JSON, a `Map` is what is a
map in Go (labels, ports: an absent key is "<no value>"), any other object is a struct (an absent key is an error).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sampan.cli import template
from sampan.cli.template import Block, Operand, Pipe
from sampan.cli.template_functions import FUNCTIONS, Broken, Map, Nil, printed, truth
from sampan.cli.template_lex import TemplateError

OUTPUT_LIMIT = 256 * 1024 * 1024
STEPS = 5_000_000


class Row:
    """A line of a table: a field is a value or a function of the template's arguments."""

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.fields = fields

    def plain(self) -> dict[str, Any]:
        return {name: self.fields[name] for name in sorted(self.fields) if not callable(self.fields[name])}


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Template:
    """A template that has been read.  Raises TemplateError."""

    def __init__(self, text: str, extra: dict[str, Callable[..., Any]] | None = None) -> None:
        self._functions = {**FUNCTIONS, **(extra or {})}
        names = frozenset(self._functions) | {"and", "or"}
        self._blocks = template.parse(text, names)

    def execute(self, value: Any) -> str:
        """Return the template's text for `value`.  Raises TemplateError."""
        run = _Run(self._functions, value)
        run.blocks(self._blocks, value)
        return "".join(run.out)


class _Run:
    def __init__(self, functions: dict[str, Callable[..., Any]], value: Any) -> None:
        self._functions = functions
        self._variables: list[tuple[str, Any]] = [("$", value)]
        self._steps = 0
        self.out: list[str] = []

    def blocks(self, blocks: list[Block], dot: Any) -> None:
        for block in blocks:
            self._steps += 1
            if self._steps > STEPS:
                raise TemplateError("template: :1: too many steps", parsing=False)
            if block.kind == "text":
                self.out.append(block.text)
            elif block.kind == "action":
                value = self._pipe(block.pipe, dot)
                if not block.pipe.names:
                    self.out.append(printed(value))
            elif block.kind == "break":
                raise _Break
            elif block.kind == "continue":
                raise _Continue
            else:
                self._scoped(block, dot)

    def _scoped(self, block: Block, dot: Any) -> None:
        mark = len(self._variables)
        try:
            value = self._pipe(block.pipe, dot, loop=block.kind == "range")
            if block.kind == "range":
                self._range(block, value, dot)
            elif truth(value):
                self.blocks(block.body, value if block.kind == "with" else dot)
            else:
                self.blocks(block.otherwise, dot)
        finally:
            del self._variables[mark:]

    def _range(self, block: Block, value: Any, dot: Any) -> None:
        items: list[tuple[Any, Any]]
        if isinstance(value, dict):
            items = sorted(value.items())
        elif isinstance(value, list):
            items = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            items = [(n, n) for n in range(min(value, STEPS))]
        elif value is None or isinstance(value, Nil):
            items = []
        else:
            raise TemplateError(f"template: :1: range can't iterate over {printed(value)}", parsing=False)
        if not items:
            self.blocks(block.otherwise, dot)
        mark = len(self._variables)
        for key, item in items:
            names = block.pipe.names
            if len(names) == 1:
                self._variables.append((names[0], item))
            elif names:
                self._variables += [(names[0], key), (names[1], item)]
            try:
                self.blocks(block.body, item)
            except _Break:
                return
            except _Continue:
                pass
            finally:
                del self._variables[mark:]

    def _pipe(self, pipe: Pipe, dot: Any, *, loop: bool = False) -> Any:
        value = self._commands(pipe.commands, dot, pipe.source)
        if pipe.names and not loop:
            if pipe.declares:
                self._variables.append((pipe.names[0], value))
            else:
                at = max(n for n, (name, _) in enumerate(self._variables) if name == pipe.names[0])
                self._variables[at] = (pipe.names[0], value)
        return value

    def _commands(self, commands: list[list[Operand]], dot: Any, source: str) -> Any:
        value: Any = None
        for number, command in enumerate(commands):
            final = [value] if number else []
            value = self._command(command, dot, final, source)
        return value

    def _command(self, command: list[Operand], dot: Any, final: list[Any], source: str) -> Any:
        first = command[0]
        if first.kind == "function":
            return self._call(str(first.value), command, dot, final, source)
        rest = [self._operand(one, dot, source) for one in command[1:]] + final
        found = self._operand(first, dot, source, called=True)
        if callable(found):
            try:
                return found(*rest)
            except TypeError:
                raise _failed(source, first, "wrong number of args") from None
        if rest:
            raise _failed(source, first, f"{_name(first)} has arguments but cannot be invoked as function")
        return found

    def _call(self, name: str, command: list[Operand], dot: Any, final: list[Any], source: str) -> Any:
        if name in ("and", "or"):
            value: Any = None
            for value in self._lazily(command[1:], dot, final, source):
                if truth(value) == (name == "or"):
                    return value
            return value
        arguments = [self._operand(one, dot, source) for one in command[1:]] + final
        try:
            value = self._functions[name](*arguments)
        except Broken as error:
            raise _failed(source, command[0], f"error calling {name}: {error}") from None
        except TypeError:
            raise _failed(source, command[0], f"wrong number or type of args for {name}") from None
        for key in command[0].fields:
            value = self._field(value, key, source, command[0])
        return value

    def _lazily(self, operands: list[Operand], dot: Any, final: list[Any], source: str) -> Any:
        for one in operands:
            yield self._operand(one, dot, source)
        yield from final

    def _operand(self, one: Operand, dot: Any, source: str, *, called: bool = False) -> Any:
        if one.kind == "function":
            return self._call(str(one.value), [one], dot, [], source)
        value: Any
        if one.kind == "dot":
            value = dot
        elif one.kind == "variable":
            value = next(v for name, v in reversed(self._variables) if name == one.value)
        elif one.kind == "pipe":
            value = self._commands(one.value, dot, source)
        else:
            value = one.value
        for key in one.fields:
            value = self._field(value, key, source, one)
        if callable(value) and not called:
            try:
                return value()
            except TypeError:
                raise _failed(source, one, "wrong number of args") from None
        return value

    def _field(self, value: Any, key: str, source: str, one: Operand) -> Any:
        if isinstance(value, Row):
            if key in value.fields:
                return Nil("<nil>") if value.fields[key] is None else value.fields[key]
            raise _failed(source, one, f"can't evaluate field {key} in type {value.kind}")
        if isinstance(value, dict):
            if key in value:
                return value[key]
            if isinstance(value, Map):
                return None
            raise _failed(source, one, f'map has no entry for key "{key}"')
        if isinstance(value, Nil) and value.text == "map[]":
            return None
        if value is None:
            raise _failed(source, one, f"nil pointer evaluating interface {{}}.{key}")
        raise _failed(source, one, f"can't evaluate field {key} in type {_kind(value)}")


def _kind(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "interface {}")


def _name(one: Operand) -> str:
    if one.kind == "function":
        return str(one.value)
    start = str(one.value) if one.kind == "variable" else ""
    return start + "".join("." + key for key in one.fields) or "."


def _failed(source: str, one: Operand, why: str) -> TemplateError:
    name = _name(one)
    at = source.find(name)
    if at >= 0 and len(one.fields) > (one.kind == "dot"):  # Go names the place of what is taken from the first operand
        at += len(str(one.value)) if one.kind == "variable" else len(one.fields[0]) + 1 if one.kind == "dot" else 0
    return TemplateError(f'template: :1:{max(at, 0) + 2}: executing "" at <{name}>: {why}', parsing=False)


# Which members of what the daemon answers are maps in Go.
_MAPS = frozenset(
    [
        "Labels",
        "ExposedPorts",
        "Volumes",
        "Ports",
        "PortBindings",
        "Networks",
        "Options",
        "Sysctls",
        "Tmpfs",
        "Annotations",
        "StorageOpt",
        "DriverOpts",
        "Containers",
        "Data",
        "Plugins",
        "Runtimes",
        "Details",
        "Attributes",
        "EndpointsConfig",
        "sections",
    ]
)
_POINTERS = frozenset(
    [
        "MemorySwappiness",
        "OomKillDisable",
        "PidsLimit",
        "IPAMConfig",
        "Init",
        "Healthcheck",
        "Health",
        "StopTimeout",
        "RegistryConfig",
        "ExitCode",
        "duration",
    ]
)


def typed(value: Any, key: str = "", parent: str = "") -> Any:
    """Give a JSON value the kinds that its Go original has: maps, nil maps and nil lists."""
    if isinstance(value, dict):
        kind = Map if key in _MAPS or (key == "Config" and parent == "LogConfig") else dict
        return kind((name, typed(item, name, key)) for name, item in value.items())
    if isinstance(value, list):
        return [typed(item, "", key) for item in value]
    if value is None:
        if key in _MAPS:
            return Nil("map[]")
        return Nil("<nil>" if key in _POINTERS else "[]") if key else None
    return value


def load(data: bytes) -> Any:
    """Read JSON for a template."""
    return typed(json.loads(data))
