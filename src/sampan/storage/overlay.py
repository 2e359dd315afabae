"""The overlay driver: layers unpacked in overlayfs's own form, snapshots as upper directories.

    <data-root>/layers/sha256/<chain hex>/diff      a layer; whiteouts as 0:0 devices, opaque folders as xattrs
    <data-root>/layers/empty                        the lower layer of images that have none
    <data-root>/layers/tmp/<random>/diff            a layer being unpacked
    <data-root>/layers/snapshots/<container>/{upper,work}
    <data-root>/layers/trash/                       being deleted

Every folder above is 0700 (SECURITY.md row 88).  A layer is unpacked where nobody sees it, flushed, renamed, and then
recorded; a folder without a record is what a crash left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sampan.errors import InvalidRequest, NotFound
from sampan.files.compression import Compression, decompressed
from sampan.files.digests import HashingReader, Readable
from sampan.files.tar_apply import Budget
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.sync import Syncs
from sampan.oci.digest import Digest, chain_id, encoded
from sampan.state import State, Table
from sampan.storage import mounts
from sampan.storage.driver import Layer, Usage
from sampan.storage.ground import Ground
from sampan.storage.measure import measure
from sampan.storage.trash import Trash
from sampan.storage.unpackers import Unpackers
from sampan.storage.unpacking import drain

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class LayerRecord(msgspec.Struct, frozen=True, kw_only=True):
    diff_id: Digest
    parent: Digest | None
    size: int
    settled: bool = True  # known to be on the disk; what is not when a daemon dies is thrown away by the next


@dataclass(frozen=True)
class Staged:
    """A layer that is unpacked and belongs nowhere yet.  size: bytes; has_root: its archive sets the root's attributes."""

    place: Path
    diff_id: Digest
    size: int
    has_root: bool


class SnapshotRecord(msgspec.Struct, frozen=True, kw_only=True):
    chain: tuple[Digest, ...]
    created: int
    volatile: bool = False


class Overlay:
    """See driver.py for what is promised."""

    name = "overlay2"

    def __init__(self, data_root: Path, state: State) -> None:
        self.root = data_root / "layers"
        self._layers_folder = self.root / "sha256"
        self._snapshots_folder = self.root / "snapshots"
        self.temporary = self.root / "tmp"
        for folder in (self.root, self._layers_folder, self._snapshots_folder, self.temporary, self.root / "empty"):
            folder.mkdir(mode=0o700, exist_ok=True)
        self._trash = Trash(self.root / "trash")
        self._syncs = Syncs()
        self._ground = Ground(self.temporary)
        self._unpackers = Unpackers()
        self._state = state
        self._layer_records = Table(state, "layer", LayerRecord)
        self._snapshot_records = Table(state, "snapshot", SnapshotRecord)
        self._unsettled: set[Digest] = set()
        self._mutex = state.mutex  # prepare may run inside a batch: a lock of its own would be taken in two orders

    # Layers

    def diff(self, chain: Digest) -> Path:
        """Return the folder of a layer's files."""
        return self._layers_folder / encoded(chain) / "diff"

    def apply(
        self, parent: Digest | None, tar: Readable, expected: Digest | None = None, *,
        kind: Compression = Compression.PLAIN, budget: Budget = Budget(),
    ) -> Layer:  # fmt: skip
        if parent is not None and self.layer(parent) is None:
            raise NotFound(f"layer {parent} is not stored")
        if expected is not None and (known := self.layer(chain_id(parent, expected))) is not None:
            reader = HashingReader(decompressed(tar, kind))
            drain(reader, budget)
            _match(Digest(reader.digest), expected)
            return known
        with self.stage(tar, expected, kind=kind, budget=budget) as staged:
            return self.adopt(staged, parent)

    @contextmanager
    def stage(
        self, tar: Readable, expected: Digest | None = None, *, kind: Compression = Compression.PLAIN,
        budget: Budget = Budget(), known: Callable[[], Digest] | None = None,
    ) -> Iterator[Staged]:  # fmt: skip
        """Unpack a layer where nobody sees it, for `adopt`: the layers of an image can be unpacked side by side.

        Unpacked and flushed when the body begins; what was not adopted is gone after it.  known: tells the plain
        tar's digest after its end, when somebody else has computed it.  Raises as `apply`.
        """
        with ExitStack() as undo:
            place = self._ground.place()
            undo.callback(self._trash.throw, place)
            (place / "diff").mkdir(mode=0o700)
            with open_fd(place / "diff", os.O_RDONLY | os.O_DIRECTORY) as folder:
                self._like_parent(folder, None)
                result = self._unpackers.unpack(tar, kind, folder, budget=budget, hashed=known is None)
                diff_id = Digest(result.digest) if known is None else known()
                _match(diff_id, expected)
                self._syncs.sync(folder)
            yield Staged(place, diff_id, result.size, result.has_root)

    def adopt(self, staged: Staged, parent: Digest | None, *, settled: bool = True) -> Layer:
        """Make a staged layer the one on top of the chain `parent`; durable when it returns.  Raises NotFound.

        settled=False: durable only after `settle`, which many layers share; until then a crash takes it away.
        """
        if parent is not None:
            if self.layer(parent) is None:
                raise NotFound(f"layer {parent} is not stored")
            if not staged.has_root:
                with open_fd(staged.place / "diff", os.O_RDONLY | os.O_DIRECTORY) as folder:
                    self._like_parent(folder, parent)
                    os.fsync(folder.fileno())
        return self._keep(staged, parent, settled=settled)

    def _keep(self, staged: Staged, parent: Digest | None, *, settled: bool) -> Layer:
        """Rename an unpacked layer to its own name and record it; the first of two that unpacked the same one wins."""
        chain = chain_id(parent, staged.diff_id)
        with self._mutex:
            known = self.layer(chain)
            if known is not None:
                return known
            staged.place.rename(self._layers_folder / encoded(chain))
            if settled:
                with open_fd(self._layers_folder, os.O_RDONLY | os.O_DIRECTORY) as folder:
                    os.fsync(folder.fileno())
            else:
                self._unsettled.add(chain)
            record = LayerRecord(diff_id=staged.diff_id, parent=parent, size=staged.size, settled=settled)
            self._layer_records.put(chain, record)
        return Layer(chain, staged.diff_id, staged.size)

    def settle(self) -> None:
        """Bring every layer that was adopted without to the disk, and whatever else is on its file system."""
        with self._mutex:
            waiting = set(self._unsettled)
        if not waiting:
            return
        with open_fd(self.root, os.O_RDONLY | os.O_DIRECTORY) as folder:
            self._syncs.sync(folder)
        with self._mutex, self._state.batch():
            for chain in waiting & self._unsettled:
                record = self._layer_records.get(chain)
                if record is not None:
                    self._layer_records.put(chain, msgspec.structs.replace(record, settled=True))
            self._unsettled -= waiting

    def _like_parent(self, folder: Fd, parent: Digest | None) -> None:
        """Give a new layer's root the attributes that the chain's root has so far (0755, root for the first)."""
        mode, uid, gid = 0o755, 0, 0
        if parent is not None:
            found = self.diff(parent).stat()
            mode, uid, gid = found.st_mode & 0o7777, found.st_uid, found.st_gid
        os.fchown(folder.fileno(), uid, gid)
        os.fchmod(folder.fileno(), mode)

    def batch(self) -> AbstractContextManager[None]:
        """Make all records that are written inside one commit."""
        return self._state.batch()

    def throw(self, place: Path) -> None:
        """Delete a folder of `temporary`, in the background."""
        self._trash.throw(place)

    def layer(self, chain_id: Digest) -> Layer | None:
        record = self._layer_records.get(chain_id)
        return Layer(chain_id, record.diff_id, record.size) if record is not None else None

    def layers(self) -> list[Layer]:
        return [Layer(Digest(key), record.diff_id, record.size) for key, record in self._layer_records.items()]

    def remove_layer(self, chain_id: Digest) -> int:
        with self._mutex:
            record = self._layer_records.get(chain_id)
            if record is None or any(chain_id in snapshot.chain for _, snapshot in self._snapshot_records.items()):
                return 0
            self._layer_records.delete(chain_id)
            self._unsettled.discard(chain_id)
            self._trash.throw(self._layers_folder / encoded(chain_id))
        return record.size

    # Snapshots

    def prepare(self, container: str, chain: Sequence[Digest], *, volatile: bool = False) -> None:
        """See driver.py.  volatile: it is mounted once, nothing in it is flushed, and a crash may damage it."""
        place = self._place(container)
        with self._mutex:
            for link in chain:
                if self._layer_records.get(link) is None:
                    raise NotFound(f"layer {link} is not stored")
            if self._snapshot_records.get(container) is not None:
                raise FileExistsError(17, "snapshot exists", container)
            if place.exists():  # made by a process that died before it could record it
                self._trash.throw(place)
            with ExitStack() as undo:
                undo.callback(self._trash.throw, place)
                self._make(place, tuple(chain))
                self._snapshot_records.put(container, SnapshotRecord(chain=tuple(chain), created=time.time_ns(), volatile=volatile))
                undo.pop_all()

    def _make(self, place: Path, chain: tuple[Digest, ...]) -> None:
        """Make the folders that are missing; after a power cut these may be lost while the record is not."""
        place.mkdir(mode=0o700, exist_ok=True)
        for name in ("upper", "work"):
            try:
                (place / name).mkdir(mode=0o700)
            except FileExistsError:
                continue
            with open_fd(place / name, os.O_RDONLY | os.O_DIRECTORY) as folder:
                self._like_parent(folder, chain[-1] if chain else None)

    def _place(self, container: str) -> Path:
        if not 0 < len(container) <= 128 or container[0] in ".-_" or not _NAME.issuperset(container):
            raise InvalidRequest(f"invalid container id {container[:140]!r}")  # SECURITY.md row 91
        return self._snapshots_folder / container

    def _chain(self, container: str) -> tuple[Digest, ...]:
        record = self._snapshot_records.get(container)
        if record is None:
            raise NotFound(f"no snapshot of container {container}")
        return record.chain

    def _lowers(self, chain: Sequence[Digest]) -> list[str]:
        return [f"sha256/{encoded(link)}/diff" for link in chain] or ["empty"]

    def mount(self, container: str, *, uid_base: int | None = None, userns: int | Fd | None = None) -> Fd:
        if (uid_base is None) != (userns is None):
            raise ValueError("uid_base and userns belong together")
        record = self._snapshot_records.get(container)
        if record is None:
            raise NotFound(f"no snapshot of container {container}")
        place = self._place(container)
        if not (place / "work").exists():
            self._make(place, record.chain)
        lowers, volatile = self._lowers(record.chain), record.volatile
        return mounts.writable(self.root, lowers, place, uid_base=uid_base, userns=userns, volatile=volatile)

    def view(self, container: str) -> Fd:
        chain = self._chain(container)
        lowers = [self.root / lower for lower in reversed(self._lowers(chain))]
        return mounts.read_only([self._place(container) / "upper", *lowers])

    def view_chain(self, chain: Sequence[Digest], *, userns: int | Fd | None = None) -> Fd:
        for link in chain:
            if self._layer_records.get(link) is None:
                raise NotFound(f"layer {link} is not stored")
        if userns is not None:
            return mounts.mapped(self.root, self._lowers(chain), userns)
        return mounts.read_only([self.root / lower for lower in reversed(self._lowers(chain))])

    def upper(self, container: str) -> Path:
        """Return the folder that holds what the container changed, in overlayfs's form.  Raises NotFound."""
        self._chain(container)
        return self._place(container) / "upper"

    def graph(self, container: str | None = None, chain: Sequence[Digest] = ()) -> dict[str, str]:
        """Return what docker inspect shows as GraphDriver.Data."""
        if container is not None:
            chain = self._chain(container)
        lowers = [str(self.root / lower) for lower in reversed(self._lowers(chain))]
        if container is not None:
            place = self._place(container)
            return {"LowerDir": ":".join(lowers), "UpperDir": f"{place}/upper", "WorkDir": f"{place}/work"}
        return {"UpperDir": lowers[0], **({"LowerDir": ":".join(lowers[1:])} if len(lowers) > 1 else {})}

    def usage(self, container: str) -> Usage:
        return measure(self.upper(container))

    def remove(self, container: str) -> None:
        place = self._place(container)
        with self._mutex:
            self._snapshot_records.delete(container)
            self._trash.throw(place)

    def snapshots(self) -> dict[str, tuple[Digest, ...]]:
        return {key: record.chain for key, record in self._snapshot_records.items()}

    # Order at start and end

    def sweep(self, keep: Iterable[str] | None = None) -> list[str]:
        removed = [f"trash: {count} trees"] if (count := self._trash.sweep()) else []
        removed += [f"mount {name}" for name in mounts.sweep_stages()]
        for path in self.temporary.iterdir():
            self._trash.throw(path)
            removed.append(f"half unpacked layer {path.name}")
        unreadable = {key for key, _ in (*self._layer_records.broken(), *self._snapshot_records.broken())}
        known = {key for key, _ in self._layer_records.items()} | unreadable  # nothing is guessed at: row 96
        for path in self._layers_folder.iterdir():
            if f"sha256:{path.name}" not in known:
                self._trash.throw(path)
                removed.append(f"layer {path.name} without a record")
        for chain, record in list(self._layer_records.items()):
            if not record.settled:
                self._layer_records.delete(chain)
                self._trash.throw(self._layers_folder / encoded(Digest(chain)))
                removed.append(f"layer {chain} of a build that did not end")
            elif not self.diff(Digest(chain)).is_dir():
                self._layer_records.delete(chain)
                removed.append(f"record of the missing layer {chain}")
        kept = unreadable | (set(self.snapshots()) if keep is None else set(keep))
        for name in sorted((set(self.snapshots()) | {path.name for path in self._snapshots_folder.iterdir()}) - kept):
            self._snapshot_records.delete(name)
            self._trash.throw(self._snapshots_folder / name)
            removed.append(f"snapshot {name}")
        return removed

    def close(self) -> None:
        self._unpackers.close()
        self.settle()
        self._trash.close()


def _match(found: Digest, expected: Digest | None) -> None:
    if expected is not None and found != expected:
        raise InvalidRequest(f'invalid diffID: expected "{expected}", got "{found}"')
