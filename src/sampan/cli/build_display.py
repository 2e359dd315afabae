"""The progress of a build: as it comes off a terminal; on one, a line for each step and the last lines of the one at work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.wire.images import Progress

if TYPE_CHECKING:
    from rich.text import Text

_TAIL = 6


@dataclass
class Result:
    """What came of a build.  steps: for each cache that the client keeps, the keys of its steps."""

    image: str = ""
    failure: Progress | None = None
    steps: list[list[str]] = field(default_factory=list)

    def take(self, one: Progress) -> bool:
        """Note what a message says; return whether it was the last."""
        if one.error:
            self.image, self.failure = "", one
        elif one.aux:
            self.image = str(one.aux.get("ID", self.image))
            if "CacheSteps" in one.aux:
                self.steps.append(list(one.aux["CacheSteps"]))
        return self.failure is not None


def follow(messages: Iterable[Progress], style: str) -> Result:
    """Show the messages to their end, or to a failure."""
    terminal = style == "tty" or (style == "auto" and sys.stdout.isatty())
    if terminal:
        return _on_terminal(messages)
    result = Result()
    for one in messages:
        if result.take(one):
            break
        if one.stream and style != "quiet":
            print(one.stream, end="", flush=True)
    return result


class _Board:
    """The steps so far, as text that is drawn again and again."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.title = ""
        self.tail: list[str] = []
        self.cached = False
        self.notes: list[str] = []
        self._partial = ""
        self._since = time.monotonic()

    def take(self, text: str) -> None:
        self._partial += text
        *lines, self._partial = self._partial.split("\n")
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        if line.startswith("Step ") and " : " in line:
            self.finish()
            self.title, self._since = line.removeprefix("Step "), time.monotonic()
        elif line.startswith(" ---> Using cache"):
            self.cached = True
        elif line.startswith(" ---> Not cached"):
            self.notes.append(line.removeprefix(" ---> "))
        elif line.startswith(("Successfully ", "[Warning]")):
            self.finish()
            self.done.append(line)
        elif not line.startswith((" ---> ", "\x1b[0m ---> ")) and line.strip():
            self.tail = [*self.tail[1 - _TAIL :], line]

    def finish(self) -> None:
        """The step at work has ended."""
        if self.title:
            took = "cached" if self.cached else f"{time.monotonic() - self._since:.1f}s"
            self.done.append(f"✓ {self.title[:100]}  {took}")
            self.done += [f"  {note}" for note in self.notes]
        self.title, self.tail, self.notes, self.cached = "", [], [], False

    def text(self, rows: int) -> Text:
        from rich.text import Text

        now = [f"· {self.title[:100]}  {time.monotonic() - self._since:.1f}s"] if self.title else []
        lines = [*self.done, *now, *(f"    {line[:120]}" for line in self.tail)]
        return Text.from_ansi("\n".join(lines[-max(rows, 4) :]))


def _on_terminal(messages: Iterable[Progress]) -> Result:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    board, result = _Board(), Result()
    with Live(board.text(24), console=console, refresh_per_second=8, transient=False) as live:
        for one in messages:
            if result.take(one):
                for line in board.tail:
                    live.console.print(line)
                break
            board.take(one.stream)
            live.update(board.text(console.size.height - 2))
    return result
