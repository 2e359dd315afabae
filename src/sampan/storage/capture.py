"""A snapshot becomes a layer: what a build step leaves.

The upper folder itself becomes the layer's folder; its archive is written once on the way, for its digest and for pushing.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from dataclasses import dataclass

from sampan.files.digests import HashingWriter, Writable
from sampan.files.tar_write import diff_tar
from sampan.kernel.fds import open_fd
from sampan.oci.digest import Digest
from sampan.storage.driver import Layer
from sampan.storage.overlay import Overlay, Staged


@dataclass(frozen=True)
class Archived:
    """A snapshot whose archive is written.  size: bytes of its files."""

    snapshot: str
    diff_id: Digest
    size: int


def archive(layers: Overlay, snapshot: str, out: Writable) -> Archived:
    """Write the layer archive of a snapshot that nothing changes any more.  Raises NotFound, Unsupported, OSError."""
    hashing = HashingWriter(out)
    with open_fd(layers.upper(snapshot), os.O_RDONLY | os.O_DIRECTORY) as folder:
        for data in diff_tar(folder):
            hashing.write(data)
    return Archived(snapshot, Digest(hashing.digest), layers.usage(snapshot).size)


def capture(layers: Overlay, archived: Archived) -> Layer:
    """Turn the snapshot, which is not mounted, into a layer over its chain; the snapshot is gone then.

    Durable after `Overlay.settle`.  Raises NotFound, OSError; then the snapshot is as it was.
    """
    chain = layers.snapshots()[archived.snapshot]
    upper = layers.upper(archived.snapshot)
    with ExitStack() as undo:
        place = layers.temporary / secrets.token_hex(16)
        place.mkdir(mode=0o700)
        undo.callback(layers.throw, place)
        upper.rename(place / "diff")
        staged = Staged(place, archived.diff_id, archived.size, has_root=True)
        layer = layers.adopt(staged, chain[-1] if chain else None, settled=False)
    layers.remove(archived.snapshot)
    return layer
