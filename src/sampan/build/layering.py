"""New layers: a snapshot is changed, and what changed is kept."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable

from sampan.content.images import LayerRef
from sampan.engine.images.context import Stores
from sampan.files.compression import looked_at
from sampan.files.stubs import remove_stubs
from sampan.kernel.fds import Fd, open_fd
from sampan.oci import image as oci
from sampan.oci.digest import Digest
from sampan.storage.capture import archive, capture

STUBS = ("/proc", "/dev", "/sys", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts")


def make_layer(
    stores: Stores, chain: tuple[Digest, ...], work: Callable[[Fd], None], record: Callable[[LayerRef], None], epoch: int | None
) -> LayerRef:
    """Let `work` change the files of a chain and keep the change.  Blocks.  Raises what `work` does; then nothing stays."""
    snapshot = f"build-{secrets.token_hex(16)}"
    stores.layers.prepare(snapshot, chain, volatile=True)
    try:
        with stores.layers.mount(snapshot) as tree:
            work(tree)
        return keep(stores, snapshot, record, epoch)
    except BaseException:
        stores.layers.remove(snapshot)
        raise


def keep_run(
    stores: Stores, snapshot: str, targets: Iterable[str], record: Callable[[LayerRef], None], epoch: int | None
) -> LayerRef:
    """Keep what a container changed, without the empty mount points that its start left.  Blocks."""
    try:
        chain = stores.layers.snapshots()[snapshot]
        upper = stores.layers.upper(snapshot)
        with open_fd(upper, os.O_RDONLY | os.O_DIRECTORY) as folder, stores.layers.view_chain(chain) as below:
            remove_stubs(folder, below, {*STUBS, *targets})
        return keep(stores, snapshot, record, epoch)
    except BaseException:
        stores.layers.remove(snapshot)
        raise


def keep(stores: Stores, snapshot: str, record: Callable[[LayerRef], None], epoch: int | None) -> LayerRef:
    """Make the snapshot a layer with its blob; `record` makes it known before garbage is collected again."""
    if epoch is not None:
        clamp(stores.layers.upper(snapshot), epoch * 10**9)
    with stores.catalogue.adding(), stores.blobs.ingest() as ingest:
        archived = archive(stores.layers, snapshot, ingest)
        blob = ingest.commit(archived.diff_id, durable=False)
        with stores.layers.batch():
            layer = capture(stores.layers, archived)
            made = LayerRef(
                diff_id=layer.diff_id, chain_id=layer.chain_id, blob=blob, blob_size=ingest.size, media_type=oci.OCI_LAYER,
                size=layer.size,
            )  # fmt: skip
            record(made)
    return made


def rebase(stores: Stores, layer: LayerRef, parent: Digest | None, record: Callable[[LayerRef], None]) -> LayerRef:
    """Return a layer that depends on nothing below it, over another parent."""
    with stores.catalogue.adding(), stores.blobs.open(layer.blob) as tar:
        kind, source = looked_at(tar)
        made = stores.layers.apply(parent, source, layer.diff_id, kind=kind)
        found = LayerRef(
            diff_id=layer.diff_id, chain_id=made.chain_id, blob=layer.blob, blob_size=layer.blob_size,
            media_type=layer.media_type, size=layer.size,
        )  # fmt: skip
        record(found)
    return found


def clamp(folder: os.PathLike[str], latest: int) -> None:
    """Give whatever is newer than `latest` (nanoseconds) that time; links are not followed."""
    waiting = [os.fspath(folder)]
    folders = []
    while waiting:
        here = waiting.pop()
        folders.append(here)
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.stat(follow_symlinks=False).st_mtime_ns > latest:
                    os.utime(entry.path, ns=(latest, latest), follow_symlinks=False)
    for here in reversed(folders):
        if os.stat(here, follow_symlinks=False).st_mtime_ns > latest:
            os.utime(here, ns=(latest, latest), follow_symlinks=False)
