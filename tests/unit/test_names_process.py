"""The answering process, from the daemon's side."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

from sampan.network.resolver import Resolver


def test_a_process_that_is_just_being_killed_is_not_taken_for_a_living_one(tmp_path: Path) -> None:
    """The kernel may close its listener last: it still takes the connection, and hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dying:
        dying.bind(str(tmp_path / "names.sock"))
        dying.listen(1)
        end = threading.Thread(target=lambda: dying.accept()[0].close())
        end.start()
        names = Resolver(tmp_path, lambda: sys.executable)
        names.remember({"c": []})
        try:
            names.adopt()
            end.join()
            assert names._child
            os.kill(names._child, 0)
            names.unrelay(["nothing"])
        finally:
            names.close(end=True)


def test_the_one_that_was_killed_is_replaced_and_reaped(tmp_path: Path) -> None:
    names = Resolver(tmp_path, lambda: sys.executable)
    names.remember({"c": []})
    try:
        names.adopt()
        for _ in range(20):
            first = names._child
            os.kill(first, 9)
            while not _replaced(names, first):
                os.sched_yield()
            assert not os.path.exists(f"/proc/{first}")
    finally:
        names.close(end=True)


def test_one_that_is_killed_before_it_answered_is_replaced_as_well(tmp_path: Path) -> None:
    names = Resolver(tmp_path, lambda: sys.executable)
    names.remember({"c": []})
    try:
        names.adopt()
        first = names._child
        os.kill(first, 9)
        while names._child in (0, first):  # without the mutex: at its birth
            os.sched_yield()
        second = names._child
        os.kill(second, 9)
        while not _replaced(names, second):
            os.sched_yield()
    finally:
        names.close(end=True)


def _replaced(names: Resolver, child: int) -> bool:
    with names._mutex:
        return names._control is not None and names._child not in (0, child)
