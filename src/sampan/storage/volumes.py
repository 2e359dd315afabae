"""Volumes: folders with a name, a record and users, that outlive containers.

    <data-root>/volumes/<name>/_data     the files, owned by the container's own ids (mounts map them)
    <data-root>/volumes/.trash/          being deleted; no volume's name begins with a dot

A volume is in use while a container's record names it, running or not; the users are known in memory, told anew by
every start of the daemon, and whoever removes asks them under the same lock that adds them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.state import State, Table
from sampan.storage import volume_mounts
from sampan.storage.driver import Usage
from sampan.storage.measure import measure
from sampan.storage.trash import Trash

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """created: nanoseconds since the epoch.  options: type, device, o of the local driver."""

    created: int
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None


def check_name(name: str) -> None:
    """Raise InvalidRequest, in docker's words, for what is no volume's name (SECURITY.md row 91)."""
    if len(name) == 1 and name in _LETTERS:
        raise InvalidRequest(f"create {name}: volume name is too short, names should be at least two alphanumeric characters")
    if not 2 <= len(name) <= 255 or set(name) - _LETTERS or name[0] in "_.-":
        shown = name[:64]
        raise InvalidRequest(
            f'create {shown}: "{shown}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )


class Volumes:
    """Every volume of a data root.  Calls block for a commit or for the disk, and may come from any thread."""

    def __init__(self, data_root: Path, state: State) -> None:
        self.root = data_root / "volumes"
        self.root.mkdir(mode=0o700, exist_ok=True)
        self._trash = Trash(self.root / ".trash")
        self._records = Table(state, "volume", VolumeRecord)
        self._mutex = state.mutex
        # Apart from the records' lock, and by name: a server that does not answer holds up its own volume's mounts only.
        self._mounting = tuple(threading.Lock() for _ in range(32))
        self.unknown: set[str] = set()  # containers whose records cannot be read: which volumes they use is not known
        self._users: dict[str, set[str]] = {}
        self._mounted: dict[str, set[str]] = {}

    # Names and records

    def folder(self, name: str) -> Path:
        """Return where the volume's files are.  Raises InvalidRequest for what is no name."""
        check_name(name)
        return self.root / name / "_data"

    def find(self, name: str) -> VolumeRecord | None:
        return self._records.get(name)

    def get(self, name: str) -> VolumeRecord:
        """Raises NotFound."""
        found = self.find(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    def all(self) -> dict[str, VolumeRecord]:
        return dict(self._records.items())

    def create(
        self, name: str, labels: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None, *, user: str = ""
    ) -> tuple[VolumeRecord, bool]:
        """Make the volume, or find the one that is there as it is; `user` is in it from then on.

        Returns the record and whether it is new.  Raises InvalidRequest.
        """
        check_name(name)
        volume_mounts.check(name, options or {})
        with self._mutex:
            found = self.find(name)
            new = found is None
            if found is None:
                volume_mounts.data_folder(self.root / name)
                found = VolumeRecord(
                    created=time.time_ns(), labels=dict(labels) if labels is not None else None,
                    options=dict(options) if options else None,
                )  # fmt: skip
                self._records.put(name, found)
            if user:
                self._users.setdefault(name, set()).add(user)
        return found, new

    def remove(self, name: str) -> None:
        """Forget the volume at once; its files go in the background.  Raises NotFound, Conflict while it is in use."""
        with self._mutex:
            self.get(name)
            users = self.users(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            folder = self.root / name / "_data"
            volume_mounts.detach(folder)
            self._records.delete(name)
            self._trash.throw(self.root / name)

    # Users

    def use(self, name: str, user: str) -> None:
        """Note that a container's record names the volume."""
        with self._mutex:
            self._users.setdefault(name, set()).add(user)

    def leave(self, names: Iterable[str], user: str) -> None:
        """The container is no more."""
        with self._mutex:
            for name in names:
                held = self._users.get(name, set())
                held.discard(user)
                if not held:
                    self._users.pop(name, None)

    def abandon(self, names: Iterable[str], user: str) -> None:
        """Undo a `create` for `user`, whether its record is still there or went with a batch that failed."""
        self.leave(names, user)
        with self._mutex:
            for name in names:
                if not self._users.get(name):
                    self._records.delete(name)
                    self._trash.throw(self.root / name)

    def users(self, name: str) -> list[str]:
        with self._mutex:
            return sorted(self._users.get(name, ()))

    # Mounts

    def open(self, name: str, user: str) -> Path:
        """Return the folder for a container that starts; what the volume's options name is mounted on it until `close`.

        Raises NotFound, Broken when it cannot be mounted.
        """
        record = self.get(name)
        folder = volume_mounts.data_folder(self.root / name)
        if record.options and record.options.get("device"):
            with self._turn(name):
                if not volume_mounts.is_mounted(folder):
                    volume_mounts.attach(record.options, folder)
                self._mounted.setdefault(name, set()).add(user)
        return folder

    def close_use(self, names: Iterable[str], user: str) -> None:
        """A container has ended: what nobody uses any more is unmounted."""
        for name in names:
            if name not in self._mounted:
                continue
            turn = self._turn(name)
            if turn.acquire(blocking=False):
                try:
                    self._let_go(name, user)
                finally:
                    turn.release()
            else:  # somebody is mounting it: the event loop does not wait for that
                threading.Thread(target=self._let_go_later, args=(name, user), name="unmount", daemon=True).start()

    def _turn(self, name: str) -> threading.Lock:
        return self._mounting[hash(name) % len(self._mounting)]

    def _let_go_later(self, name: str, user: str) -> None:
        with self._turn(name):
            self._let_go(name, user)

    def _let_go(self, name: str, user: str) -> None:
        held = self._mounted.get(name, set())
        held.discard(user)
        if not held:
            self._mounted.pop(name, None)
            volume_mounts.detach(self.root / name / "_data")

    def mounted(self, name: str, user: str) -> None:
        """Note, at the daemon's start, that a running container has the volume mounted."""
        record = self.find(name)
        if record is not None and record.options and record.options.get("device"):
            self._mounted.setdefault(name, set()).add(user)

    # Upkeep

    def usage(self, name: str) -> Usage:
        return measure(self.folder(name))

    def sweep(self) -> list[str]:
        """At the daemon's start, once the users are told: finish deletions, adopt volumes of older daemons, let mounts go."""
        self._trash.sweep()
        told = []
        unreadable = {key for key, _ in self._records.broken()}
        known = self.all()
        for entry in os.scandir(self.root):
            name = entry.name
            if name.startswith(".") or name in unreadable or not entry.is_dir(follow_symlinks=False):
                continue
            folder = self.root / name / "_data"
            if name not in known:
                if name in self._users or (folder.is_dir() and any(folder.iterdir())):
                    self._records.put(name, VolumeRecord(created=entry.stat(follow_symlinks=False).st_ctime_ns))
                    told.append(f"volume {name} had no record: it has one now")
                else:
                    self._trash.throw(self.root / name)
                    told.append(f"volume {name} that was never finished")
            elif known[name].options and name not in self._mounted:
                volume_mounts.detach(folder)
        return [*told, *(f"record of volume {name} cannot be read" for name in sorted(unreadable))]

    def close(self) -> None:
        """Finish background work; what is mounted stays for the containers that go on."""
        self._trash.close()
