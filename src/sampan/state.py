"""The only writer of durable records: SQLite in WAL mode, and the lock that makes one daemon the owner of a data root.

A record is a typed value (msgspec) under a kind and a key.  Rooms own their kinds:

    containers = Table(state, "container", ContainerRecord)
    containers.put(record.id, record)            # durable when it returns: fsync'd (synchronous=FULL)
    containers.put(record.id, record, volatile=True)  # survives any process's death, not a power cut: no fsync
    with state.batch(): ...                      # several puts and deletes, one commit, all or nothing

Calls are thread-safe and block for a commit (about half a millisecond on the reference machine); asyncio code
calls them in a thread.  A record that does not decode is reported by `broken`, never guessed at (SECURITY.md row 96).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from sampan.errors import Broken, Conflict

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL,
    key  TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
"""
_FORMAT = 1  # PRAGMA user_version: raised with every change that an older daemon could not read


class State:
    """The database of one data root, held under its lock for the daemon's life.

    Raises Conflict when another daemon holds the data root, or when a newer Sampan wrote it; Broken when the file is no
    database.
    """

    def __init__(self, data_root: Path) -> None:
        self._lock_fd = os.open(data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            raise Conflict(f"data root {data_root} is in use by another daemon") from None
        self.mutex = threading.RLock()  # rooms that change records and folders together use it as their own lock
        self._depth = 0
        self._relaxed = False  # what PRAGMA synchronous says now: NORMAL or FULL
        self._batch_volatile = False
        self.rolled_back: list[Callable[[], None]] = []  # told that what was written last is undone; under the mutex
        try:
            self._db = self._open(data_root)
        except sqlite3.Error as error:
            os.close(self._lock_fd)
            raise Broken(f"{data_root}/state.db: {error}; it is left as it is: put a copy back, or move it away") from None
        except BaseException:
            os.close(self._lock_fd)
            raise

    @staticmethod
    def _open(data_root: Path) -> sqlite3.Connection:
        path = data_root / "state.db"
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA cache_size=-1024")
            (found,) = database.execute("PRAGMA user_version").fetchone()
            if found > _FORMAT:
                raise Conflict(f"data root {data_root} was written by a newer Sampan (format {found}, known {_FORMAT})")
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version={_FORMAT}")
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close the database and give the data root up."""
        self._db.close()
        os.close(self._lock_fd)

    @contextlib.contextmanager
    def batch(self, *, volatile: bool = False) -> Iterator[None]:
        """Make every write inside one commit; an exception undoes them all.  Batches nest into the outermost.

        volatile: the commit survives the daemon, not a power cut (the log is written, not flushed: synchronous=NORMAL); the
        next durable commit makes it durable too.  A durable batch or write inside a volatile one is a RuntimeError.
        """
        with self.mutex:
            self._relax(volatile)
            if self._depth == 0:
                self._db.execute("BEGIN IMMEDIATE")
                self._batch_volatile = volatile
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._roll_back()
                raise
            self._depth -= 1
            if self._depth == 0:
                try:
                    self._db.execute("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise

    def _roll_back(self) -> None:
        """Undo the batch; a commit that failed may have done so already."""
        for told in self.rolled_back:
            told()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _relax(self, volatile: bool) -> None:
        """Choose how the next commit is made.  Within a transaction it is too late: the pragma would be ignored."""
        if self._depth:
            if self._batch_volatile and not volatile:
                raise RuntimeError("a durable write inside a volatile batch")
        elif volatile != self._relaxed:
            self._db.execute(f"PRAGMA synchronous={'NORMAL' if volatile else 'FULL'}")
            self._relaxed = volatile

    def write(self, sql: str, *values: object, volatile: bool = False) -> int:
        """Run one writing statement (within the current batch, or as a commit of its own); return the rows changed."""
        with self.mutex:
            self._relax(volatile)
            return self._db.execute(sql, values).rowcount

    def read(self, sql: str, *values: object) -> list[tuple[str, bytes]]:
        """Return the rows (key, body) of one reading statement."""
        with self.mutex:
            return self._db.execute(sql, values).fetchall()


class Table(Generic[T]):
    """The records of one kind."""

    def __init__(self, state: State, kind: str, record: type[T]) -> None:
        self.state = state
        self.kind = kind
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(record).decode

    def put(self, key: str, record: T, *, volatile: bool = False) -> None:
        """Insert or replace; volatile as in State.batch."""
        sql = "INSERT OR REPLACE INTO records VALUES (?, ?, ?)"
        self.state.write(sql, self.kind, key, self._encode(record), volatile=volatile)

    def delete(self, key: str, *, volatile: bool = False) -> bool:
        """Delete; return whether it was there."""
        return self.state.write("DELETE FROM records WHERE kind = ? AND key = ?", self.kind, key, volatile=volatile) > 0

    def get(self, key: str) -> T | None:
        """Return the record, or None.  Raises msgspec.ValidationError when it does not decode."""
        rows = self.state.read("SELECT key, body FROM records WHERE kind = ? AND key = ?", self.kind, key)
        return self._decode(rows[0][1]) if rows else None

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield every record that decodes, by key."""
        for key, body in self._rows():
            with contextlib.suppress(msgspec.DecodeError):
                yield key, self._decode(body)

    def within(self, prefix: str) -> Iterator[tuple[str, T]]:
        """Yield the records whose key begins with `prefix` (ASCII), by key."""
        sql = "SELECT key, body FROM records WHERE kind = ? AND key >= ? AND key < ? ORDER BY key"
        for key, body in self.state.read(sql, self.kind, prefix, prefix + "\x7f"):
            with contextlib.suppress(msgspec.DecodeError):
                yield key, self._decode(body)

    def broken(self) -> Iterator[tuple[str, str]]:
        """Yield (key, reason) of every record that does not decode."""
        for key, body in self._rows():
            try:
                self._decode(body)
            except msgspec.DecodeError as error:
                yield key, str(error)

    def _rows(self) -> list[tuple[str, bytes]]:
        return self.state.read("SELECT key, body FROM records WHERE kind = ? ORDER BY key", self.kind)
