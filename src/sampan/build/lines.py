"""The lexical structure of a Dockerfile: directives, comments, continued lines, here-documents (spec: dockerfile.md 1)."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace

from sampan.build.expand import ExpansionError, split_words
from sampan.build.source import DockerfileError, Place, suggestion
from sampan.errors import InvalidRequest

MAX_LINE = 65535
MAX_FILE = 16 << 20
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S.*)")
_HEREDOC = re.compile(r"([0-9]*)<<(-?)([^<]*)")
DIRECTIVES = ("syntax", "escape", "check")
_WITH_HEREDOCS = frozenset(("ADD", "COPY", "RUN"))


@dataclass(frozen=True)
class Heredoc:
    """A here-document.  expand: its name was not quoted; chomp: leading tabs were taken off."""

    name: str
    content: str
    expand: bool
    chomp: bool = False
    descriptor: int = 0


@dataclass(frozen=True)
class Logical:
    """One instruction: the line with its continuations joined.  offset: where `rest` begins in `text`."""

    keyword: str
    text: str
    offset: int
    first: int
    last: int
    heredocs: tuple[Heredoc, ...] = ()
    comment: str = ""  # the one right above
    _parts: tuple[tuple[int, int, int, str], ...] = field(default=(), repr=False)  # (offset, line, column, source)

    @property
    def rest(self) -> str:
        return self.text[self.offset :]

    def at(self, offset: int = 0) -> Place:
        """Return where a character of `text` stands in the file."""
        if not self._parts:
            return Place(self.first, 1, self.text)
        index = max(0, bisect_right(self._parts, offset, key=lambda part: part[0]) - 1)
        begin, line, column, source = self._parts[index]
        return Place(line, column + offset - begin, source)

    @property
    def place(self) -> Place:
        """Where the keyword stands."""
        return self.at(len(self.text) - len(self.text.lstrip()))

    def error(self, reason: str, offset: int | None = None) -> DockerfileError:
        """Return the error, pointing at the keyword or at a character of `text`."""
        return DockerfileError(self.place if offset is None else self.at(offset), reason)


@dataclass(frozen=True)
class Remark:
    """A build check that fired (spec: section 7)."""

    rule: str
    line: int
    message: str


@dataclass(frozen=True)
class Lexed:
    """A file taken apart.  directives: lower-case names."""

    directives: dict[str, str]
    escape: str
    lines: tuple[Logical, ...]
    remarks: tuple[Remark, ...]


def lex(content: bytes) -> Lexed:
    """Return the file's instructions.  Raises DockerfileError, InvalidRequest."""
    if len(content) > MAX_FILE:
        raise InvalidRequest(f"the Dockerfile is larger than {MAX_FILE} bytes")
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the Dockerfile is not UTF-8: byte {error.start}") from None
    if "\0" in text:
        raise InvalidRequest("the Dockerfile has a NUL byte")
    source = text.split("\n")
    for number, line in enumerate(source, 1):
        if len(line) * 4 > MAX_LINE and len(line.encode()) > MAX_LINE:
            place = Place(number, 1, line[:80])
            raise DockerfileError(place, f"dockerfile line greater than max allowed size of {MAX_LINE}")
    directives = _directives(source)
    escape = directives.get("escape", "\\")
    return _Lexer(source, escape).run(directives)


def _directives(source: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    start = 1 if source and source[0].startswith("#!") else 0
    for number, line in enumerate(source[start:], start + 1):
        match = _DIRECTIVE.fullmatch(line.rstrip())
        name = match[1].lower() if match else ""
        if match is None or name not in DIRECTIVES:
            break
        place = Place(number, 1, line)
        if name in found:
            raise DockerfileError(place, f"only one {name} parser directive can be used")
        found[name] = match[2].rstrip()
        if name == "escape" and found[name] not in ("\\", "`"):
            raise DockerfileError(place, f"invalid escape token '{found[name][:40]}' does not match ` or \\")
    if "syntax" not in found and source:
        found |= _other_syntax(source[start:])
    return found


def _other_syntax(source: list[str]) -> dict[str, str]:
    """`// syntax=X`, and the JSON form."""
    first = source[0].strip() if source else ""
    if first.startswith("//"):
        name, equals, value = first[2:].partition("=")
        return {"syntax": value.strip()} if equals and name.strip().lower() == "syntax" else {}
    if first.startswith("{"):
        try:
            value = json.loads("\n".join(source)[:65536])
        except (ValueError, RecursionError):
            return {}
        return {"syntax": str(value["syntax"])} if isinstance(value, dict) and "syntax" in value else {}
    return {}


class _Lexer:
    def __init__(self, source: list[str], escape: str) -> None:
        self._source = source
        self._escape = escape
        self._next = 0
        self._lines: list[Logical] = []
        self._comment = ""
        self._remarks: list[Remark] = []

    def run(self, directives: dict[str, str]) -> Lexed:
        while self._next < len(self._source):
            line = self._source[self._next].strip()
            if not line or line.startswith("#"):
                self._next += 1
                self._comment = line[1:].strip()
                continue
            self._instruction()
            self._comment = ""
        if not self._lines:
            raise InvalidRequest("file with no instructions")
        return Lexed(directives, self._escape, tuple(self._lines), tuple(self._remarks))

    def _joined(self) -> Logical:
        """Join a line with its continuations."""
        first = self._next + 1
        pieces: list[str] = []
        parts: list[tuple[int, int, int, str]] = []
        length, empty = 0, False
        while self._next < len(self._source):
            line = self._source[self._next].rstrip("\r")
            self._next += 1
            if parts and line.lstrip().startswith("#"):
                continue
            if parts and not line.strip():
                empty = True
                continue
            body, more = self._continued(line)
            parts.append((length, self._next, 1, line))
            pieces.append(body)
            length += len(body)
            if not more:
                break
        if empty:
            self._remarks.append(Remark("NoEmptyContinuation", self._next, "Empty continuation line"))
        text = "".join(pieces)
        if length > MAX_LINE * 16:
            raise DockerfileError(Place(first, 1, text[:80]), "instruction is too long")
        stripped = text.lstrip()
        lead = len(text) - len(stripped)
        keyword = re.split(r"\s", stripped, maxsplit=1)[0]
        after = text[lead + len(keyword) :]
        offset = lead + len(keyword) + len(after) - len(after.lstrip())
        return Logical(
            keyword, text.rstrip(), min(offset, len(text.rstrip())), first, self._next, (), self._comment, tuple(parts)
        )  # fmt: skip

    def _continued(self, line: str) -> tuple[str, bool]:
        bare = line.rstrip(" \t")
        if bare.endswith(self._escape) and not bare[:-1].endswith(self._escape):
            return bare[:-1], True
        return line, False

    def _instruction(self) -> None:
        line = self._joined()
        if not line.text.strip():
            return
        keyword, rest = line.keyword.upper(), line.rest
        while keyword == "ONBUILD" and rest:
            keyword, _, rest = rest.partition(" ")
            keyword, rest = keyword.upper(), rest.strip()
        if keyword in _WITH_HEREDOCS and "<<" in rest and not is_json(rest):
            heredocs = tuple(self._heredoc(line, word) for word in self._heredoc_words(line, rest))
            line = replace(line, last=self._next, heredocs=heredocs)
        self._lines.append(line)

    def _heredoc_words(self, line: Logical, rest: str) -> list[tuple[str, str, str, bool]]:
        """Return (descriptor, chomp, name, expand) of each here-document that the words of a line announce."""
        try:
            words = split_words(rest, self._escape)
        except ExpansionError:
            return []  # the shell may understand it
        found = []
        for word in words:
            match = _HEREDOC.fullmatch(word)
            if match is None or not match[3]:
                continue
            name = match[3]
            bare = name.replace('"', "").replace("'", "")
            if not bare or name.count('"') % 2 or name.count("'") % 2:
                continue
            found.append((match[1], match[2], bare, bare == name))
        return found

    def _heredoc(self, line: Logical, word: tuple[str, str, str, bool]) -> Heredoc:
        descriptor, chomp, name, expand = word
        body: list[str] = []
        while self._next < len(self._source):
            text = self._source[self._next]
            self._next += 1
            bare = text.rstrip("\r")
            if chomp:
                bare, text = bare.lstrip("\t"), text.lstrip("\t")
            if bare == name:
                return Heredoc(name, "".join(f"{one}\n" for one in body), expand, bool(chomp), int(descriptor or "0"))
            body.append(text)
        offset = line.text.find("<<")
        hint = next((suggestion(name, [one.strip()]) for one in body if suggestion(name, [one.strip()])), "")
        raise line.error(f"unterminated heredoc: no line is exactly {name}{hint}", offset)


def is_json(text: str) -> bool:
    return strings(text) is not None


def strings(text: str) -> list[str] | None:
    """Return the JSON array of strings that `text` is, or None: then it is in shell form."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else None
