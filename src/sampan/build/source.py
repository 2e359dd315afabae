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


class DockerfileError(InvalidRequest):
    """The Dockerfile is wrong.

    The message begins with Docker's words (`dockerfile parse error on line 3: ...`) and shows the line and the column.
    reason: the words without the position; name: of the file, or of what else the line stands in.
    """

    def __init__(self, place: Place, reason: str, *, name: str = "Dockerfile") -> None:
        self.place = place
        self.reason = reason
        self.name = name
        begin = max(0, place.column - 1 - _SHOWN // 2)
        shown = place.text[begin : begin + _SHOWN]
        pointer = "".join("\t" if sign == "\t" else " " for sign in shown[: place.column - 1 - begin]) + "^"
        number = str(place.line)
        super().__init__(
            f"dockerfile parse error on line {place.line}: {reason}\n"
            f"{name}:{place.line}:{place.column}\n  {number} | {shown}\n  {' ' * len(number)} | {pointer}"
        )

    def named(self, name: str) -> DockerfileError:
        """Return the same error of a file of another name, unless it was told already where the line stands."""
        return DockerfileError(self.place, self.reason, name=name) if self.name == "Dockerfile" else self


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the nearest known word, or nothing."""
    if len(word) > 64:
        return ""
    by_folded = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), by_folded, n=1, cutoff=0.6)
    return f" (did you mean {by_folded[found[0]]}?)" if found else ""
