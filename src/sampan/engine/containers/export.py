"""Export: the root file system as a tar; and what of it the container changed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from sampan.engine.containers import tree
from sampan.engine.containers.archive import send
from sampan.engine.containers.container import Container
from sampan.engine.images.streams import Reporter, streamed
from sampan.files import changes
from sampan.files.tar_write import Source, tree_tar
from sampan.kernel.fds import Fd, open_fd
from sampan.wire.archive import Change


class Export:
    """The tar of a root file system, without volumes; close it, used up or not."""

    def __init__(self, root: Fd, base: int | None) -> None:
        self._root = root
        self._base = base
        self._begun = False

    def chunks(self) -> AsyncIterator[bytes]:
        return streamed(self._work)

    def _work(self, reporter: Reporter[bytes]) -> None:
        self._begun = True
        with self._root:
            send(tree_tar(self._root, Source(id_shift=-(self._base or 0), quick=True)), reporter)

    async def close(self) -> None:
        if not self._begun:
            self._root.close()


def export(container: Container) -> Export:
    """Blocks; the caller holds the lock until it returns."""
    return Export(*tree.root(container))


def compared(container: Container) -> changes.Changes:
    """Return what the container changed in its image's files.  Blocks."""
    layers = container.rooms.layers
    path = layers.upper(container.id)
    chain = layers.snapshots().get(container.id, ())
    with layers.view_chain(chain) as lower, open_fd(path, os.O_RDONLY | os.O_DIRECTORY) as upper:
        return changes.compare(upper, lower)


def list_changes(container: Container) -> list[Change]:
    """Return the changes by path.  Blocks."""
    found = compared(container).kinds
    return [Change(path=f"/{path}", kind=int(found[path])) for path in sorted(found, key=os.fsencode)]
