"""A container's files, as the engine reaches them: running or not, with its volumes or without.

Running: the very mount that the container works on, by a copy of its mount namespace's root (kernel/mount_root.py), so
that both see each other's writes; ids are the host's, `base` says where the container's 0 is.  Not running: a mount of its
own, ids as on the disk.  Volumes, binds and the three files of /etc come by descriptors of their own, from their sources,
never by a name inside the container.  See docs/decisions/files-of-a-container.md.
"""

from __future__ import annotations

import functools
import os
import select
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from sampan.engine import spec_mounts
from sampan.engine.containers import image_mounts, volumes
from sampan.engine.containers.container import Container
from sampan.errors import Conflict
from sampan.files.view import View
from sampan.kernel.caps import set_fs_ids
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.mount import Attr, set_attributes
from sampan.kernel.mount_root import root_of
from sampan.kernel.process import pidfd_open

_OWN_MOUNTS = ("/proc", "/sys", "/dev")
_WHOLE = 1 << 32
_LOOK = Attr.RDONLY | Attr.NODEV  # of what is only read: no access time changes, no device can be opened by mistake


@dataclass(frozen=True)
class Tree:
    """view: the files; base: the host's id that is the container's 0, None when ids are the container's own."""

    view: View
    base: int | None

    def acting(self) -> AbstractContextManager[None]:
        """Return the context in which this thread may make files in it."""
        return nullcontext() if self.base is None else set_fs_ids(self.base, self.base)


def root(container: Container, *, writable: bool = False) -> tuple[Fd, int | None]:
    """Return the root file system alone, as a detached mount, and its base.  Blocks.

    The caller holds the lock meanwhile; with `writable` of a container that does not run, until it has closed the mount.
    Raises Conflict, OSError.
    """
    record = container.record
    if not record.running:
        container.left()
        layers = container.rooms.layers
        if writable:
            return layers.mount(record.id), None
        view = layers.view(record.id)
        with ExitStack() as undo:
            undo.callback(view.close)
            set_attributes(view, set_=_LOOK)
            undo.pop_all()
        return view, None
    with ExitStack() as held:
        try:
            alive = held.enter_context(pidfd_open(record.pid))
            namespace = held.enter_context(open_fd(f"/proc/{record.pid}/ns/mnt", os.O_RDONLY))
            base = _base(record.pid)
        except (FileNotFoundError, ProcessLookupError):
            raise Conflict(f"container {record.id} has just ended") from None
        if select.select([alive, *([container.pidfd] if container.pidfd else [])], [], [], 0)[0]:
            raise Conflict(f"container {record.id} has just ended")  # and its number may be another's (row 29)
        tree = root_of(namespace)
    if not writable:
        try:
            set_attributes(tree, set_=_LOOK)
        except BaseException:
            tree.close()
            raise
    return tree, base


def _base(pid: int) -> int | None:
    """Return where the process's user id 0 is on the host; None in the host's own user namespace."""
    with open_fd(f"/proc/{pid}/uid_map", os.O_RDONLY) as file:
        inside, outside, size = map(int, os.read(file.fileno(), 4096).split()[:3])
    return outside - inside if outside or size < _WHOLE - 1 else None


def _close(trees: list[Fd]) -> None:
    for tree in trees:
        tree.close()


@contextmanager
def opened(container: Container, *, writable: bool) -> Iterator[Tree]:
    """Give the whole tree, under `root`'s conditions."""
    tree = whole(container, writable=writable)
    with tree.view:
        yield tree


def whole(container: Container, *, writable: bool) -> Tree:
    """Return the whole tree; whoever asked closes its view."""
    record, rooms = container.record, container.rooms
    with ExitStack() as undo, ExitStack() as uses:
        if not record.running:
            volumes.fill(container, uses)  # only until the trees are copied: they are mounts of their own
        top, base = root(container, writable=writable)
        undo.callback(top.close)
        userns = None
        if base is not None:
            userns = undo.enter_context(rooms.ranges.namespace(base, rooms.launcher.spawner.userns))
        trees: list[Fd] = []
        undo.callback(_close, trees)
        mounts = spec_mounts.places(record, rooms.folder(record.id), userns, trees, functools.partial(image_mounts.tree, rooms))
        places: dict[str, Fd] = {}
        guarded = list(_OWN_MOUNTS) if record.running else []
        for mount in mounts:
            if mount.tree is None:
                guarded.append(mount.destination)
                continue
            tree = trees[mount.tree]
            if not writable:
                set_attributes(tree, set_=_LOOK, recursive=True)
            elif "ro" in mount.options or "rro" in mount.options:
                set_attributes(tree, set_=Attr.RDONLY, recursive="rro" in mount.options)
            places[mount.destination] = Fd(trees[mount.tree].take())
        undo.pop_all()
        if userns is not None:
            userns.close()
        return Tree(View(top, places, guarded if record.running else ()), base)
