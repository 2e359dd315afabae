"""A snapshot becomes a layer: what a build step or a commit leaves.

The upper folder itself becomes the layer's folder; its archive is written once on the way, for its digest and for pushing.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack

from sampan.files.digests import HashingWriter, Writable
from sampan.files.tar_write import diff_tar
from sampan.kernel.fds import open_fd
from sampan.kernel.sync import syncfs
from sampan.oci.digest import Digest
from sampan.storage.driver import Layer
from sampan.storage.overlay import Overlay, Staged


def capture(layers: Overlay, snapshot: str, out: Writable) -> Layer:
    """Turn a snapshot that is not mounted into a layer over its chain, and write the layer's archive to `out`.

    The snapshot is gone afterwards.  Durable when it returns.  Raises NotFound, Unsupported, OSError; then the snapshot is as
    it was.
    """
    chain = layers.snapshots()[snapshot]
    upper = layers.upper(snapshot)
    hashing = HashingWriter(out)
    with open_fd(upper, os.O_RDONLY | os.O_DIRECTORY) as folder:
        for data in diff_tar(folder):
            hashing.write(data)
        syncfs(folder)
    size = layers.usage(snapshot).size
    with ExitStack() as undo:
        place = layers.temporary / secrets.token_hex(16)
        place.mkdir(mode=0o700)
        undo.callback(layers.throw, place)
        upper.rename(place / "diff")
        layer = layers.adopt(Staged(place, Digest(hashing.digest), size, has_root=True), chain[-1] if chain else None)
    layers.remove(snapshot)
    return layer
