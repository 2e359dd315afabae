"""--squash: what a build added to its base as one layer, without what it took away again on the way."""

from __future__ import annotations

from dataclasses import replace

from msgspec.structs import replace as with_fields

from sampan.build.cache import Cache, StepRecord, key_of
from sampan.build.image import Built
from sampan.build.inputs import FORMAT
from sampan.build.layering import make_layer
from sampan.build.options import Options
from sampan.build.solve import record_of_step
from sampan.content.images import LayerRef
from sampan.engine.images.context import Stores
from sampan.files.compression import open_decompressed
from sampan.files.tar_apply import Whiteouts, apply
from sampan.kernel.fds import Fd
from sampan.oci.image import History


def squash(stores: Stores, cache: Cache, built: Built, base: Built, options: Options) -> Built:
    """Return the stage with one layer over its base.  Blocks.  The history stays, as entries without layers, as docker's does."""
    added = built.layers[len(base.layers) :]
    if not added:
        return built
    known = len(base.history)
    history = [*base.history, *(with_fields(one, empty_layer=True) for one in built.history[known:])]
    merged = History(comment=f"merge of {len(added)} layers to {base.image or base.base}")
    layer = added[0] if len(added) == 1 else _merged(stores, cache, (base, added), options)
    return replace(built, layers=(*base.layers, layer), history=(*history, merged), image="")


def _merged(stores: Stores, cache: Cache, what: tuple[Built, tuple[LayerRef, ...]], options: Options) -> LayerRef:
    base, added = what
    inputs = {"format": FORMAT, "kind": "squash", "base": base.top, "top": added[-1].chain_id, "epoch": str(options.epoch)}
    key = key_of(inputs)
    found: StepRecord | None = None if options.no_cache else cache.find(key)
    if found is not None:
        return found.layers[-1]

    def work(tree: Fd) -> None:
        for layer in added:
            with stores.blobs.open(layer.blob) as tar:
                apply(open_decompressed(tar)[1], tree, whiteouts=Whiteouts.REMOVE)

    def record(made: LayerRef) -> None:
        cache.put(key, record_of_step("squash", (*base.layers, made)))

    return make_layer(stores, base.chain, work, record, options.epoch)
