"""The root mount of another mount namespace, or another of its mounts, as a descriptor.

A thread joins the namespace for one call and ends there: setns(2) into a mount namespace asks for a file system context
(root, working directory) that nobody shares, which unshare(CLONE_FS) gives a thread; the process's other threads notice
nothing.  Between the two calls the thread runs nothing by name and imports nothing (SECURITY.md P4, row 19).
"""

from __future__ import annotations

import threading

from sampan.kernel.fds import Fd
from sampan.kernel.mount import clone_tree
from sampan.kernel.process import Clone, setns, unshare


def root_of(namespace: int | Fd) -> Fd:
    """Return a detached copy of the mount at the root of the mount namespace `namespace`, without what is mounted on it."""
    return mount_of(namespace, "/")


def mount_of(namespace: int | Fd, path: str) -> Fd:
    """Return a detached copy of the mount at `path` as processes of `namespace` see it; its last name may be no symbolic link.

    Linux 5.2, CAP_SYS_ADMIN over the namespace and CAP_SYS_CHROOT.  Raises OSError.
    """
    found: list[Fd] = []
    failed: list[OSError] = []

    def join() -> None:
        try:
            unshare(Clone.FS)
            setns(namespace, Clone.NEWNS)
            found.append(clone_tree(path, follow=False))
        except OSError as error:
            failed.append(error)

    # Never a pool's thread: this one does nothing else, before or after.
    thread = threading.Thread(target=join, name="mount-root")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
