"""Where in a Dockerfile something stands, and errors that point there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from sampan.errors import InvalidRequest

_SHOWN = 200  # signs of a long line


@dataclass(frozen=True)
class Place:
    """A position.  line and column count from 1; text: the source line."""

    line: int
    column: int = 1
    text: str = ""

    def shown(self, name: str) -> str:
        """Return the place in a file of that name, the line and a mark below the column."""
        begin = max(0, self.column - 1 - _SHOWN // 2)
        text = self.text[begin : begin + _SHOWN]
        pointer = "".join("\t" if sign == "\t" else " " for sign in text[: self.column - 1 - begin]) + "^"
        number = str(self.line)
        return f"{name}:{self.line}:{self.column}\n  {number} | {text}\n  {' ' * len(number)} | {pointer}"


class DockerfileError(InvalidRequest):
    """The Dockerfile is wrong.

    The message begins with Docker's words (`dockerfile parse error on line 3: ...`) and shows the line and the column.
    reason: the words without the position; name: of the file, or of what else the line stands in.
    """

    def __init__(self, place: Place, reason: str, *, name: str = "Dockerfile") -> None:
        self.place = place
        self.reason = reason
        self.name = name
        super().__init__(f"{self.words()}\n{place.shown(name)}")

    def words(self) -> str:
        return f"dockerfile parse error on line {self.place.line}: {self.reason}"

    def named(self, name: str) -> DockerfileError:
        """Return the same error of a file of another name, unless it was told already where the line stands."""
        return type(self)(self.place, self.reason, name=name) if self.name == "Dockerfile" else self


class StepError(DockerfileError):
    """A step cannot be done: the words are those of what went wrong."""

    def words(self) -> str:
        return self.reason


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the nearest known word, or nothing."""
    if len(word) > 64:
        return ""
    by_folded = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=0.6)
    return f" (did you mean {by_folded[found[0]]}?)" if found else ""
