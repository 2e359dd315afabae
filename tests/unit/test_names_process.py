"""The answering process, from the daemon's side."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sampan.network import resolver
from sampan.network.resolver import Resolver


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Resolver]:
    made = Resolver(tmp_path, lambda: sys.executable)
    yield made
    made.close(end=True)


@contextmanager
def other(folder: Path, *, dying: bool) -> Iterator[None]:
    """Listen in the place of a process that hangs up as the kernel lets a killed one, or says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / "names.sock"))
        listener.listen(1)
        end = threading.Thread(target=lambda: listener.accept()[0].close())
        if dying:
            end.start()
        yield
        if dying:
            end.join()


def replaced(names: Resolver, child: int) -> bool:
    with names._mutex:
        return names._control is not None and names._child not in (0, child)


def test_a_process_that_is_just_being_killed_is_not_taken_for_a_living_one(tmp_path: Path, names: Resolver) -> None:
    """The kernel may close its listener last: it still takes the connection, and hangs up."""
    names.remember({"c": []})
    with other(tmp_path, dying=True):
        names.adopt()
    assert names._child
    os.kill(names._child, 0)
    names.unrelay(["nothing"])


def test_nor_is_it_by_a_daemon_that_expects_nothing_of_it_yet(tmp_path: Path, names: Resolver) -> None:
    with other(tmp_path, dying=True):
        names.adopt()
    assert not names._child
    names.remember({"c": []})
    names.adopt()
    assert replaced(names, 0)


def test_one_that_lives_and_is_slow_gets_no_second_one_beside_it(
    tmp_path: Path, names: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_PATIENCE", 0.05)
    names.remember({"c": []})
    with other(tmp_path, dying=False), pytest.raises(TimeoutError):
        names.adopt()
    assert not names._child and names._control is None


def test_the_one_that_was_killed_is_replaced_and_reaped(names: Resolver) -> None:
    names.remember({"c": []})
    names.adopt()
    for _ in range(20):
        first = names._child
        os.kill(first, 9)
        while not replaced(names, first):
            os.sched_yield()
        assert not os.path.exists(f"/proc/{first}")


def test_one_that_is_killed_before_it_answered_is_replaced_as_well(names: Resolver) -> None:
    names.remember({"c": []})
    names.adopt()
    first = names._child
    os.kill(first, 9)
    while names._child in (0, first):  # without the mutex: at its birth
        os.sched_yield()
    second = names._child
    os.kill(second, 9)
    while not replaced(names, second):
        os.sched_yield()
