"""Go's text/template as far as --format needs it: reading.  template_run.py does the execution.

A template is read once, left to right; nesting is bounded, so nothing in it costs more than its length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sampan.cli.template_lex import SPACE, Token, pieces, quoted, tokens, wrong

DEPTH = 100


# What a template is made of.  An operand is a tuple: (kind, value, fields).


@dataclass(slots=True)
class Operand:
    """kind: dot, nil, constant, variable, function, pipe; `fields` are taken from it in turn."""

    kind: str
    value: Any = None
    fields: tuple[str, ...] = ()


@dataclass(slots=True)
class Pipe:
    names: tuple[str, ...] = ()
    declares: bool = False
    commands: list[list[Operand]] = field(default_factory=list)
    source: str = ""


@dataclass(slots=True)
class Block:
    """kind: text, action, if, range, with, break, continue."""

    kind: str
    text: str = ""
    pipe: Pipe = field(default_factory=Pipe)
    body: list[Block] = field(default_factory=list)
    otherwise: list[Block] = field(default_factory=list)


KEYWORDS = frozenset({"if", "range", "with", "else", "end", "break", "continue", "define", "template", "block"})


def parse(text: str, functions: frozenset[str]) -> list[Block]:
    """Read a template.  Raises TemplateError."""
    return _Parser(pieces(text), functions).read()


class _Parser:
    """Blocks from pieces, pipelines from tokens."""

    def __init__(self, found: list[tuple[bool, str]], functions: frozenset[str]) -> None:
        self._pieces = found
        self._functions = functions
        self._at = 0
        self._loops = 0
        self._variables = ["$"]

    def read(self) -> list[Block]:
        body, end = self._list(0)
        if end:
            raise wrong(f"unexpected {{{{{end}}}}}")
        return body

    def _list(self, depth: int) -> tuple[list[Block], str]:
        """Blocks up to an {{end}} or {{else}}, and which one it was, "" at the end of the text."""
        if depth > DEPTH:
            raise wrong("nested too deeply")
        made: list[Block] = []
        while self._at < len(self._pieces):
            action, text = self._pieces[self._at]
            self._at += 1
            if not action:
                made.append(Block("text", text))
                continue
            found = tokens(text)
            word = found[0].text if found and found[0].kind == "word" else ""
            if word in ("end", "else"):
                if word == "else" and len(found) > 1:
                    self._pieces[self._at - 1] = (True, text.removeprefix("else").strip(SPACE))
                    self._at -= 1
                    return made, "else chain"
                return made, word
            made.append(self._block(word, text, found, depth))
        return made, ""

    def _block(self, word: str, text: str, found: list[Token], depth: int) -> Block:
        if word in ("if", "range", "with"):
            return self._control(word, text, found[1:], depth)
        if word in ("break", "continue"):
            if not self._loops:
                raise wrong(f"{{{{{word}}}}} outside {{{{range}}}}")
            return Block(word)
        if word in ("define", "template", "block"):
            raise wrong(f"{{{{{word}}}}} is not supported")
        return Block("action", pipe=self._pipe(found, text, "command"))

    def _control(self, word: str, text: str, found: list[Token], depth: int) -> Block:
        scope = len(self._variables)
        pipe = self._pipe(found, text, word)
        self._loops += word == "range"
        body, end = self._list(depth + 1)
        self._loops -= word == "range"
        otherwise: list[Block] = []
        if end == "else":
            otherwise, end = self._list(depth + 1)
            if end in ("else", "else chain"):
                raise wrong("expected end; found {{else}}")
        elif end == "else chain":
            # {{else if X}} is an {{else}}{{if X}} whose {{end}} ends both
            _, inner = self._pieces[self._at]
            self._at += 1
            tail = tokens(inner)
            if not tail or tail[0].text not in ("if", "with"):
                raise wrong(f"unexpected <{inner}> in input")
            otherwise, end = [self._control(tail[0].text, inner, tail[1:], depth + 1)], "end"
        if end != "end":
            raise wrong("unexpected EOF")
        del self._variables[scope:]
        return Block(word, pipe=pipe, body=body, otherwise=otherwise)

    def _pipe(self, found: list[Token], text: str, where: str) -> Pipe:
        while found and found[0].kind == "space":
            found = found[1:]
        pipe = Pipe(source=text)
        names = [token.text for token in found if token.kind != "space"]
        kinds = [token.kind for token in found if token.kind != "space"]
        for width in (1, 3):
            if (
                kinds[:1] == ["variable"]
                and kinds[width : width + 1] in ([":="], ["="])
                and (width == 1 or kinds[1:3] == [",", "variable"])
            ):
                pipe.names = (names[0],) if width == 1 else (names[0], names[2])
                pipe.declares = kinds[width] == ":="
                signs = [n for n, token in enumerate(found) if token.kind in (":=", "=")]
                found = found[signs[0] + 1 :]
                break
        reader = _Commands(found, self._functions, self._variables, where)
        pipe.commands = reader.pipeline(0)
        reader.done()
        if pipe.declares:
            self._variables.extend(pipe.names)
        return pipe


class _Commands:
    """Commands and operands of one pipeline."""

    def __init__(self, found: list[Token], functions: frozenset[str], variables: list[str], where: str) -> None:
        self._found = found
        self._at = 0
        self._functions = functions
        self._variables = variables
        self._where = where

    def _peek(self) -> Token | None:
        return self._found[self._at] if self._at < len(self._found) else None

    def done(self) -> None:
        token = self._peek()
        if token is not None:
            raise wrong(f"unexpected {quoted(token.text)} in {self._where}")

    def pipeline(self, depth: int) -> list[list[Operand]]:
        if depth > DEPTH:
            raise wrong("nested too deeply")
        commands: list[list[Operand]] = []
        while True:
            command = self._command(depth)
            if not command:
                raise wrong(f"missing value for {self._where}")
            if commands and command[0].kind in ("constant", "dot", "nil"):
                raise wrong("non executable command in pipeline stage 2")
            commands.append(command)
            token = self._peek()
            if token is None or token.kind != "|":
                return commands
            self._at += 1

    def _command(self, depth: int) -> list[Operand]:
        made: list[Operand] = []
        while (token := self._peek()) is not None:
            if token.kind == "space":
                self._at += 1
                continue
            if token.kind in ("|", ")"):
                break
            made.append(self._operand(token, depth))
        return made

    def _operand(self, token: Token, depth: int) -> Operand:
        self._at += 1
        fields: list[str] = []
        if token.kind == "field":
            made = Operand("dot")
            fields.append(token.text)
        elif token.kind == ".":
            made = Operand("dot")
        elif token.kind == "variable":
            if token.text not in self._variables:
                raise wrong(f"undefined variable {quoted(token.text)}")
            made = Operand("variable", token.text)
        elif token.kind in ("string", "number"):
            made = Operand("constant", token.value)
        elif token.kind == "word":
            made = self._word(token.text)
        elif token.kind == "(":
            made = Operand("pipe", self.pipeline(depth + 1))
            closing = self._peek()
            if closing is None or closing.kind != ")":
                raise wrong("unclosed left paren")
            self._at += 1
        else:
            raise wrong(f"unexpected {quoted(token.text)} in operand")
        while (following := self._peek()) is not None and following.kind == "field":
            fields.append(following.text)
            self._at += 1
        made.fields = tuple(fields)
        return made

    def _word(self, word: str) -> Operand:
        if word in ("true", "false"):
            return Operand("constant", word == "true")
        if word == "nil":
            return Operand("nil")
        if word not in self._functions:
            raise wrong(f"function {quoted(word)} not defined")
        return Operand("function", word)
