"""Syncs shared by threads: nobody returns before a sync that began after his writing."""

from __future__ import annotations

import threading

import pytest

from sampan.kernel import sync


def test_those_who_come_together_share_the_next_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, running, calls = threading.Semaphore(0), threading.Semaphore(0), []

    def slow(fd: int) -> None:
        calls.append(fd)
        running.release()
        assert gate.acquire(timeout=10)

    monkeypatch.setattr(sync, "syncfs", slow)
    syncs = sync.Syncs()
    first = threading.Thread(target=lambda: syncs.sync(0))
    first.start()
    assert running.acquire(timeout=10)
    others = [threading.Thread(target=lambda number=number: syncs.sync(number)) for number in range(1, 6)]
    for one in others:
        one.start()
    while not all(one.is_alive() for one in others):
        raise AssertionError("somebody did not wait")
    gate.release()
    first.join(10)
    assert running.acquire(timeout=10)
    for _ in range(6):
        gate.release()
    for one in others:
        one.join(10)
        assert not one.is_alive()
    assert 2 <= len(calls) <= 6 and calls[0] == 0


def test_a_failed_sync_is_everybodys_failure_once(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[BaseException | None] = []

    def fails(fd: int) -> None:
        if fd < 0:
            raise OSError(5, "I/O error")

    monkeypatch.setattr(sync, "syncfs", fails)
    syncs = sync.Syncs()
    for fd in (1, -1, 1):
        try:
            syncs.sync(fd)
            results.append(None)
        except OSError as error:
            results.append(error)
    assert [one is None for one in results] == [True, False, True]
