"""What is in the memory of the processes that make containers (P8), and whose descriptors they hold (P19)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from launching import Boxes
from rigged import rigged_boxes

from sampan import messages
from sampan.errors import StepFailed
from sampan.kernel.fds import Fd
from sampan.launch.client import start_spawner
from support.holds import descendants

SECRET = "sampan-canary-" + "7f3a" * 8


def memory_of(pid: int) -> bytes:
    """Return every readable and writable byte of a process, b"" when it has just left (a midwife)."""
    found = []
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in maps:
                place, rights = line.split()[:2]
                if not rights.startswith("rw"):
                    continue
                first, last = (int(part, 16) for part in place.split("-"))
                with suppress(OSError):
                    memory.seek(first)
                    found.append(memory.read(last - first))
    except FileNotFoundError:
        return b""
    return b"".join(found)


def test_p8_nothing_of_the_daemons_memory_is_in_what_enters_a_container(tmp_path: Path) -> None:
    """The spawner is a fresh program: what its parent holds in memory and environment is not in it, nor in its children."""
    kept = bytearray(SECRET.encode() * 50)  # such as a registry's password
    os.environ["CANARY"] = SECRET
    try:
        boxes = Boxes(tmp_path, start_spawner())
    finally:
        del os.environ["CANARY"]

    def look(_: Fd) -> None:
        below = {boxes.spawner.pid, *descendants(boxes.spawner.pid)}
        assert len(below) >= 3
        assert SECRET.encode() in memory_of(os.getpid())  # the control
        for pid in below:
            assert SECRET.encode() not in memory_of(pid), Path(f"/proc/{pid}/comm").read_text()

    try:
        assert boxes.start("true", meanwhile=look).exited().status == 0
    finally:
        boxes.close()
    assert kept


def test_p8_one_containers_settings_are_not_in_anothers_processes(boxes: Boxes) -> None:
    first = boxes.start("sleep", "100", process={"env": (f"PASSWORD={SECRET}",)})

    def look(_: Fd) -> None:
        assert SECRET.encode() in memory_of(first.answer.pid)
        others = {boxes.spawner.pid, *descendants(boxes.spawner.pid)} - {first.answer.pid, first.answer.keeper_pid}
        assert len(others) >= 3
        hit = [pid for pid in others if SECRET.encode() in memory_of(pid)]
        assert hit == []

    assert boxes.start("true", meanwhile=look).exited().status == 0


@pytest.fixture(params=["collects-always", "collects-never"])
def collecting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Boxes]:
    """A spawner whose garbage collector runs at every allocation, or never at all."""
    always = "import gc\ngc.disable = gc.freeze = lambda: None\ngc.set_threshold(1)\ngc.enable()\n"
    boxes, _ = rigged_boxes(tmp_path, always if request.param == "collects-always" else "import gc\ngc.disable()\n")
    yield boxes
    boxes.close()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.slow
def test_p19_no_descriptor_depends_on_the_collector(collecting: Boxes) -> None:
    boxes = collecting

    def round_(number: int) -> None:
        assert boxes.run("echo x; exit 3") == (3, "x\n")
        boxes.start("nope", expect=StepFailed)
        assert boxes.run("tty", terminal=True)[0] == 0
        with keeper.exec("true", exec_id=f"e{number}"):
            keeper.hear(messages.ExecStarted)
            keeper.fds[0].close()
            keeper.hear(messages.ExecExited)
        with keeper.exec("nope", exec_id=f"n{number}"):
            keeper.hear(messages.ExecFailed)

    keeper = boxes.start("sleep", "1000")
    round_(0)
    keeper.control.send(messages.Query())
    keeper.hear(messages.Status)
    before = descriptors(boxes.spawner.pid), descriptors(keeper.answer.keeper_pid)
    for number in range(1, 21):
        round_(number)
    deadline = time.monotonic() + 10  # the last exec's output is drained a moment after its end
    while (descriptors(boxes.spawner.pid), descriptors(keeper.answer.keeper_pid)) != before:
        assert time.monotonic() < deadline, (descriptors(boxes.spawner.pid), descriptors(keeper.answer.keeper_pid), before)
