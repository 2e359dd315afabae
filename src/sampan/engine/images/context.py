"""What every verb on images works with, put together once by the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sampan.content.blobs import Blobs
from sampan.content.images import Catalogue
from sampan.engine.images.image import labels_of
from sampan.errors import SampanError
from sampan.oci.digest import Digest
from sampan.storage.overlay import Overlay

InUse = Callable[[Digest], list[tuple[str, bool]]]
Emit = Callable[[str, str, str, Mapping[str, str]], None]


@dataclass(frozen=True)
class Event:
    """An event to be emitted once its change is durable: (action, actor, attributes) of type image."""

    action: str
    actor: str
    attributes: Mapping[str, str]


@dataclass
class Stores:
    """The rooms below, and what the engine lends.

    in_use: the containers made from an image, as (container id, running).
    """

    blobs: Blobs
    catalogue: Catalogue
    layers: Overlay
    in_use: InUse
    scratch: Path = field(default=Path("/var/tmp"))

    def event(self, action: str, image: Digest, name: str | None = None) -> Event:
        """Return the event `action` on an image: its labels, and its name."""
        try:
            labels = labels_of(self.catalogue.config(image))
        except SampanError:
            labels = {}
        return Event(action, image, {**labels, "name": name if name is not None else image})

    def collect(self) -> tuple[int, list[Digest]]:
        """Delete every blob and layer that nothing needs; return (bytes freed, layers removed).

        Does nothing while somebody adds an image: what they have stored may have no record yet.
        """
        freed = 0
        removed: list[Digest] = []
        with self.catalogue.collecting() as free:
            if not free:
                return 0, []
            blobs, chains = self.catalogue.reachable()
            for digest in list(self.blobs.digests()):
                if digest not in blobs:
                    self.blobs.delete(digest)
            for layer in self.layers.layers():
                if layer.chain_id not in chains and (size := self.layers.remove_layer(layer.chain_id)):
                    freed += size
                    removed.append(layer.chain_id)
        return freed, removed
