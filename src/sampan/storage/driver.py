"""What a storage driver promises to the engine.

Vocabulary
    layer       the files one image layer adds, unpacked once, immutable, known by its chain ID
    chain       the layers of an image, base first, as their chain IDs
    snapshot    a container's own writable layer over a chain, known by the container's ID

Life of a layer:     apply -> (used by any number of snapshots) -> remove_layer
Life of a snapshot:  prepare -> mount, any number of times -> remove

A driver keeps records of both in the database of the data root.  It never mounts anything in the host's tree: `mount`
gives a detached mount that lives as long as its descriptor, or where its receiver attaches it.  What a crash leaves
half done is removed by `sweep` at the next start.  Every method is synchronous, blocks on the disk, and may be called
from any thread; identities on the disk are the container's own (0 is its root).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sampan.files.compression import Compression
from sampan.files.digests import Readable
from sampan.files.tar_apply import Budget
from sampan.kernel.fds import Fd
from sampan.oci.digest import Digest


@dataclass(frozen=True)
class Layer:
    """A stored layer.  size: bytes of the files it adds."""

    chain_id: Digest
    diff_id: Digest
    size: int


@dataclass(frozen=True)
class Usage:
    """What a snapshot's own layer holds: bytes of its files (each hard-linked file once) and the number of entries."""

    size: int
    inodes: int


class Driver(Protocol):
    """Layers and snapshots."""

    name: str

    def apply(
        self, parent: Digest | None, tar: Readable, expected: Digest | None = None, *,
        kind: Compression = Compression.PLAIN, budget: Budget = Budget(),
    ) -> Layer:  # fmt: skip
        """Unpack a layer tar, compressed as `kind`, on top of the chain `parent`; durable when it returns.

        A layer that is stored already is not unpacked again (the tar is read and verified none the less).  Raises
        InvalidRequest when the tar is malformed, breaks a budget, or is not `expected`; then nothing stays.
        """
        ...

    def layer(self, chain_id: Digest) -> Layer | None:
        """Return the stored layer, or None."""
        ...

    def remove_layer(self, chain_id: Digest) -> int:
        """Remove a layer; return the bytes freed.  0, and nothing done, when it is unknown or a snapshot uses it."""
        ...

    def layers(self) -> list[Layer]: ...

    def prepare(self, container: str, chain: Sequence[Digest]) -> None:
        """Make an empty snapshot over `chain`.

        Raises FileExistsError when the container has one, NotFound when a layer of the chain is not stored.
        """
        ...

    def mount(self, container: str, *, uid_base: int | None = None, userns: int | Fd | None = None) -> Fd:
        """Return the snapshot as a detached, writable mount.

        With `userns`, the descriptor of a user namespace that maps its 0 to the host's `uid_base`, files show up mapped
        through it; both or neither must be given.  At most one such mount may live at a time.  Raises NotFound.
        """
        ...

    def view(self, container: str) -> Fd:
        """Return what the snapshot's files are now, as a detached read-only mount.  Not while it is mounted. Raises NotFound."""
        ...

    def view_chain(self, chain: Sequence[Digest], *, userns: int | Fd | None = None) -> Fd:
        """Return the files of a chain as a detached read-only mount.  Raises NotFound."""
        ...

    def usage(self, container: str) -> Usage:
        """Return what the snapshot's own layer holds.  Raises NotFound."""
        ...

    def remove(self, container: str) -> None:
        """Remove the snapshot, quickly: its files go in the background.  Unknown is no error."""
        ...

    def snapshots(self) -> dict[str, tuple[Digest, ...]]:
        """Return every snapshot with its chain."""
        ...

    def sweep(self, keep: Iterable[str] | None = None) -> list[str]:
        """Remove what a crash left behind, and with `keep` every snapshot not in it; return what was removed.

        Only at start, before anything else is asked.
        """
        ...

    def close(self) -> None:
        """Finish background work."""
        ...
