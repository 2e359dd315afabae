"""The progress of a build: as it comes off a terminal; on one, a line for each step and the last lines of the one at work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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


def on_terminal(style: str) -> bool:
    """Whether steps are drawn, and not only printed."""
    return style == "tty" or (style == "auto" and sys.stdout.isatty())


def follow(messages: Iterable[Progress], style: str) -> Result:
    """Show the messages to their end, or to a failure."""
    if on_terminal(style):
        return _on_terminal(messages)
    result = Result()
    for one in messages:
        if result.take(one):
            break
        if one.stream and style != "quiet":
            print(one.stream, end="", flush=True)
    return result


@dataclass
class _Step:
    """A step that has begun.  took: "" while it is at work."""

    title: str
    since: float = field(default_factory=time.monotonic)
    took: str = ""
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        mark, took = ("✓", self.took) if self.took else ("·", f"{time.monotonic() - self.since:.1f}s")
        return [f"{mark} {self.title[:100]}  {took}", *(f"  {note}" for note in self.notes)]


class _Board:
    """The steps so far, as text that is drawn again and again: those that have ended, those at work, and what the front one says.

    Our own daemon tells of every step when it begins and ends; of another's the stream has to do, which shows one at a time.
    """

    def __init__(self) -> None:
        self.tail: list[str] = []
        self._ended: list[str] = []
        self._steps: dict[str, _Step] = {}  # at work, in the order of their begin
        self._front = ""
        self._told = self._cached = False
        self._partial = ""

    def tell(self, step: Mapping[str, Any]) -> None:
        """Take what the daemon tells of a step: Number, and Text or Took."""
        self._told = True
        number = str(step.get("Number"))
        if "Text" in step:
            self._steps[number] = _Step(f"{number}/{step.get('Total')} : {step['Text']}")
        elif number in self._steps:
            self._end(number, str(step.get("Took")))

    def take(self, text: str) -> None:
        """Take a piece of the stream."""
        self._partial += text
        *lines, self._partial = self._partial.split("\n")
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        if line.startswith("Step ") and " : " in line:
            self._finish()
            self._front = line.removeprefix("Step ").partition("/")[0]
            if not self._told:
                self._steps[self._front] = _Step(line.removeprefix("Step "))
        elif line.startswith(" ---> Using cache"):
            self._cached = True
        elif line.startswith(" ---> Not cached") and self._front in self._steps:
            self._steps[self._front].notes.append(line.removeprefix(" ---> "))
        elif line.startswith(("Successfully ", "[Warning]")):
            self._finish()
            self._ended.append(line)
        elif not line.startswith((" ---> ", "\x1b[0m ---> ")) and line.strip():
            self.tail = [*self.tail[1 - _TAIL :], line]

    def _finish(self) -> None:
        """Another step is in front now."""
        if not self._told and self._front in self._steps:
            step = self._steps[self._front]
            self._end(self._front, "cached" if self._cached else f"{time.monotonic() - step.since:.1f}s")
        self._front, self.tail, self._cached = "", [], False

    def _end(self, number: str, took: str) -> None:
        step = self._steps.pop(number)
        step.took = took
        self._ended += step.lines()

    def text(self, rows: int) -> Text:
        from rich.text import Text

        tail = [f"    {line[:120]}" for line in self.tail]
        lines = list(self._ended)
        for number, step in list(self._steps.items()):
            lines += step.lines() + (tail if number == self._front else [])
        if self._front not in self._steps:
            lines += tail
        return Text.from_ansi("\n".join(lines[-max(rows, 4) :]))


def _on_terminal(messages: Iterable[Progress]) -> Result:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    board, result = _Board(), Result()

    def drawn() -> Text:
        return board.text(console.size.height - 2)

    with Live(get_renderable=drawn, console=console, refresh_per_second=8, transient=False) as live:  # the clock goes on in silence
        for one in messages:
            if result.take(one):
                for line in board.tail:
                    live.console.print(line)
                break
            if one.aux and "Step" in one.aux:
                board.tell(one.aux["Step"])
            board.take(one.stream)
    return result
