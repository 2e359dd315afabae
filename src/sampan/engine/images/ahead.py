"""Unpacking ahead: what looks like a layer of an archive is unpacked while the archive still arrives.

Which of the archive's files are layers is told by its last file in practice; a large one that is a tar, plain or compressed,
is one nearly always.  What turns out to be none was unpacked in vain, where nobody saw it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from sampan.content.blobs import Ingest
from sampan.engine.images.context import Stores
from sampan.engine.images.streams import Watched
from sampan.errors import SampanError
from sampan.files.compression import Compression, looked_at
from sampan.files.tar_apply import Budget
from sampan.oci.digest import Digest
from sampan.storage.overlay import Staged

THREADS = 2


@dataclass(frozen=True)
class Ready:
    """A layer that is unpacked; `held` gives it up when it closes."""

    staged: Staged
    kind: Compression
    held: ExitStack


class Ahead:
    """The layers of one archive on their way.  A context manager: what was not taken is gone after it."""

    def __init__(self, stores: Stores, check: Callable[[], None]) -> None:
        self._stores = stores
        self._check = check
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="unpack-ahead")
        self._work: dict[Ingest, Future[Ready]] = {}
        self._known = {layer.diff_id for record in stores.catalogue.all() for layer in record.layers}
        self._stopped = False

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        for future in self._work.values():
            future.cancel()
        self._pool.shutdown(wait=True)
        for ingest in list(self._work):
            ready = self.take(ingest)
            if ready is not None:
                ready.held.close()

    def begin(self, name: str, ingest: Ingest, size: int) -> None:
        """A file of `size` bytes begins to arrive."""
        if Digest(f"sha256:{name.rpartition('/')[2]}") not in self._known:  # such a name says that we have it already
            self._work[ingest] = self._pool.submit(self._unpack, ingest, size)

    def take(self, ingest: Ingest | None) -> Ready | None:
        """Return the file unpacked, and who takes it closes it; None when it is no layer, or was not begun."""
        future = self._work.pop(ingest, None) if ingest is not None else None
        if future is None or future.cancelled():
            return None
        try:
            return future.result()
        except (SampanError, OSError):
            return None  # whoever needs it as a layer tries again, and tells the reason

    def _unpack(self, ingest: Ingest, size: int) -> Ready:
        with ExitStack() as held, ingest.growing() as stored:
            kind, source = looked_at(Watched(stored, self._go_on))
            budget = Budget() if kind is Compression.PLAIN else Budget.for_compressed(size)
            known = (lambda: ingest.digest) if kind is Compression.PLAIN else None
            staged = held.enter_context(self._stores.layers.stage(source, kind=kind, budget=budget, known=known))
            return Ready(staged, kind, held.pop_all())

    def _go_on(self) -> None:
        self._check()
        if self._stopped:
            raise SampanError
