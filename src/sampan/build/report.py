"""The messages of a build, as docker's classic builder sends them (spec: dockerfile.md 8).

Stages run side by side, but a reader follows one step at a time: one step is in front and is shown as it goes, what the others
say waits until it is their turn.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from sampan.build.options import BuildFailed
from sampan.wire.images import ErrorDetail, Progress

MAX_WAITING = 4 << 20  # bytes of output that wait for their turn; more is cut
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"


async def _at_once() -> None:
    return


class Console:
    """All steps of one build.

    emit: sends a message to the client; room: waits while too many are on their way; live: tell also, out of turn, when a step
    begins and ends, for a client that shows all at once.
    """

    def __init__(
        self, emit: Callable[[Progress], None], total: int, room: Callable[[], Awaitable[None]] = _at_once, *, live: bool = False
    ) -> None:
        self._emit = emit
        self.room = room
        self._live = live
        self._total = total
        self._number = 0
        self._front: Lines | None = None
        self._waiting: list[Lines] = []
        self.steps: list[Lines] = []

    def step(self, text: str) -> Lines:
        """Announce the next step."""
        self._number += 1
        self._total = max(self._total, self._number)
        lines = Lines(self, f"Step {self._number}/{self._total} : {text}")
        lines.text, lines.number = text, self._number
        self.tell(Number=self._number, Total=self._total, Text=text[:200])
        self._waiting.append(lines)
        self.steps.append(lines)
        self.advance()
        return lines

    def say(self, text: str) -> None:
        """A line of the build itself."""
        self._emit(Progress(stream=text))

    def tell(self, **step: object) -> None:
        """Tell a client that wants it of a step."""
        if self._live:
            self._emit(Progress(aux={"Step": step}))

    def advance(self) -> None:
        """Bring the next step to the front once the one there has ended."""
        while self._front is None or self._front.ended:
            if not self._waiting:
                self._front = None
                return
            self._front = self._waiting.pop(0)
            self._front.show(self._emit)

    def flush(self) -> None:
        """Show what is left of steps that did not end: the build has failed."""
        for lines in [self._front, *self._waiting]:
            if lines is not None:
                lines.ended = True
        self.advance()


class Lines:
    """What one step says.  text: the step; started, finished: nanoseconds; outcome, why: see history.py."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._kept: list[Progress] = [Progress(stream=title), Progress(stream="\n")]
        self._size = 0
        self._emit: Callable[[Progress], None] | None = None
        self.ended = False
        self.text = ""
        self.number = 0
        self.started, self.finished = time.time_ns(), 0
        self.outcome = self.why = ""

    def show(self, emit: Callable[[Progress], None]) -> None:
        """(Console) From now on what is said goes out at once."""
        self._emit = emit
        for message in self._kept:
            emit(message)
        self._kept.clear()

    def say(self, text: str) -> None:
        message = Progress(stream=text)
        if self._emit is not None:
            self._emit(message)
        elif self._size <= MAX_WAITING:
            self._size += len(text)
            cut = self._size > MAX_WAITING
            self._kept.append(Progress(stream="[output cut]\n") if cut else message)

    def note(self, text: str) -> None:
        self.say(f" ---> {text}\n")

    def cached(self, where: str) -> None:
        """The step's result was there.  where: whose, when it is not this daemon's own."""
        self.note("Using cache" + (f" of {where}" if where else ""))
        self.outcome = "cached"

    def missed(self, why: str) -> None:
        """Why it was not, when that is wanted."""
        self.note(f"Not cached: {why}")
        self.why = why

    async def output(self, stream: int, data: bytes) -> None:
        """What the step's program wrote; errors in red, as docker shows them.  Returns when there is room for more."""
        text = data.decode(errors="replace")
        self.say(f"{_RED}{text}{_PLAIN}" if stream == 2 else text)
        await self._console.room()

    def end(self, result: str) -> None:
        """The step is done; result: its id."""
        self.outcome = self.outcome or "done"
        self.finished = time.time_ns()
        took = "cached" if self.outcome == "cached" else f"{(self.finished - self.started) / 1e9:.1f}s"
        self._console.tell(Number=self.number, Took=took)
        self.note(result)
        self.ended = True
        self._console.advance()


def failure(error: BuildFailed) -> Progress:
    """Return the last message of a build whose command failed."""
    return Progress(error=str(error), error_detail=ErrorDetail(code=error.code, message=str(error)))
