"""What files are, as digests: metadata first, content read only when the metadata was not seen before."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import OrderedDict

from sampan.build.select import Picked, Root
from sampan.files.xattrs import CAPABILITY, allowed
from sampan.kernel.fds import Fd
from sampan.kernel.paths import open_in

_CHUNK = 1 << 20
_KEPT = 400_000  # files remembered


class Digests:
    """Content digests by (namespace, inode, size, mtime, ctime).  Thread-safe.

    A namespace is a folder whose inodes mean something from one build to the next; "" is never remembered.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[object, ...], str] = OrderedDict()
        self._mutex = threading.Lock()
        self.read = 0  # files whose content was read

    def entry(self, root: Root, picked: Picked) -> str:
        """Return a text that is the same for files that are copied to the same: kind, mode, content, link, xattrs; no times."""
        found = picked.found
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISDIR(found.st_mode):
            return f"d {mode:o}"
        if stat.S_ISLNK(found.st_mode):
            with _held(root, picked.path) as link:
                return f"l {os.readlink('', dir_fd=link.fileno())}"
        if stat.S_ISREG(found.st_mode):
            return f"f {mode:o} {found.st_size} {self._content(root, picked)}"
        return f"n {found.st_mode:o} {found.st_rdev}"

    def _content(self, root: Root, picked: Picked) -> str:
        found = picked.found
        key = (root.namespace, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev)
        if root.namespace and picked.path not in root.fresh:
            with self._mutex:
                known = self._known.get(key)
                if known is not None:
                    self._known.move_to_end(key)
                    return known
        hashing = hashlib.sha256()
        with open_in(root.fd, picked.path, os.O_RDONLY | os.O_NONBLOCK) as file:
            while data := os.read(file.fileno(), _CHUNK):
                hashing.update(data)
            for name, value in xattrs(file):
                hashing.update(b"%s=%s\0" % (os.fsencode(name), value))
        digest = hashing.hexdigest()
        with self._mutex:
            self.read += 1
            if root.namespace:
                self._known[key] = digest
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return digest


def _held(root: Root, path: str) -> Fd:
    folder, _, name = path.rpartition("/")
    with open_in(root.fd, folder or ".", os.O_PATH | os.O_DIRECTORY) as parent:
        return Fd(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent.fileno()))


def readlink(root: Root, path: str) -> str:
    """Return a link's target."""
    with _held(root, path) as link:
        return os.readlink("", dir_fd=link.fileno())


def xattrs(file: Fd) -> list[tuple[str, bytes]]:
    """Return the extended attributes that are copied."""
    try:
        names = sorted(os.listxattr(file.fileno()))
    except OSError:
        return []
    wanted = [name for name in names if name == CAPABILITY or (name.startswith("user.") and allowed(name))]
    return [(name, os.getxattr(file.fileno(), name)) for name in wanted]
