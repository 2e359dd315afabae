"""A build on a terminal: steps side by side, those that have ended above, what the front one says below it."""

from __future__ import annotations

from typing import Any

from sampan.build.outbox import Outbox
from sampan.build.report import Console
from sampan.cli.build_display import _Board
from sampan.wire.images import Progress


def shown(board: _Board, rows: int = 24) -> list[str]:
    return board.text(rows).plain.split("\n")


def fed(messages: list[Progress]) -> _Board:
    board = _Board()
    for one in messages:
        if one.aux:
            board.tell(one.aux["Step"])
        board.take(one.stream)
    return board


def test_steps_side_by_side_are_all_on_the_screen() -> None:
    said: list[Progress] = []
    console = Console(said.append, 3, live=True)
    one, two, three = (console.step(f"RUN {name}") for name in ("a", "b", "c"))
    one.say("words of a\n")
    two.missed("file x changed")
    two.say("words of b\n")
    three.cached("")
    three.end("3")
    both = shown(fed(said))
    one.end("1")
    after = shown(fed(said))

    assert both[0] == "✓ 3/3 : RUN c  cached"
    assert both[1].startswith("· 1/3 : RUN a  ")
    assert both[2] == "    words of a"
    assert both[3].startswith("· 2/3 : RUN b  ")
    assert after[1].startswith("✓ 1/3 : RUN a  0.")
    assert after[2].startswith("· 2/3 : RUN b  ")
    assert after[3:] == ["  Not cached: file x changed", "    words of b"]


def test_a_daemon_that_tells_of_no_step_is_shown_by_its_stream() -> None:
    board = _Board()
    board.take("Step 1/2 : FROM x\n ---> 1\nStep 2/2 : RUN y\n ---> Using cache\n ---> 2\nSucc")
    board.take("essfully built 2\n")

    assert shown(board)[0].startswith("✓ 1/2 : FROM x  0.")
    assert shown(board)[1:] == ["✓ 2/2 : RUN y  cached", "Successfully built 2"]
    assert shown(board, 4) == shown(board)


def test_other_clients_are_told_nothing_that_they_do_not_know() -> None:
    outbox = Outbox()
    console = Console(outbox.put, 1)
    console.step("RUN a").end("1")
    left: list[Any] = [one.aux for one in outbox._waiting]

    assert left == [None] * len(left)
