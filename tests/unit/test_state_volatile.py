"""Volatile writes: what they promise, and what they may not undo."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from sampan.state import State, Table


class Note(msgspec.Struct):
    text: str


def test_a_volatile_write_is_seen_by_a_second_connection_and_a_durable_one_flushes_again(tmp_path: Path) -> None:
    state = State(tmp_path)
    notes = Table(state, "note", Note)
    notes.put("a", Note("1"), volatile=True)
    assert state.read("PRAGMA synchronous") == [(1,)]  # NORMAL: the log is written, not flushed
    other = sqlite3.connect(f"file:{tmp_path}/state.db?mode=ro", uri=True)
    assert other.execute("SELECT count(*) FROM records").fetchone() == (1,)
    other.close()
    notes.put("b", Note("2"))
    assert state.read("PRAGMA synchronous") == [(2,)]  # FULL
    notes.delete("a", volatile=True)
    assert [key for key, _ in notes.items()] == ["b"]
    state.close()


def test_a_durable_write_inside_a_volatile_batch_is_refused_and_undoes_the_batch(tmp_path: Path) -> None:
    state = State(tmp_path)
    notes = Table(state, "note", Note)
    with pytest.raises(RuntimeError, match="volatile batch"), state.batch(volatile=True):
        notes.put("a", Note("1"), volatile=True)
        notes.put("b", Note("2"))
    assert list(notes.items()) == []
    with state.batch():
        notes.put("c", Note("3"), volatile=True)  # raised to durable by the batch around it
        assert state.read("PRAGMA synchronous") == [(2,)]
    assert [key for key, _ in notes.items()] == ["c"]
    state.close()
