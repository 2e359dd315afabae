"""Images on a data root of a test's own, talking to registries with little patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

from sampan.engine.images.images import Images
from sampan.oci.digest import Digest
from sampan.registry.hosts import Settings
from sampan.registry.session import Timing
from sampan.state import State
from sampan.storage.overlay import Overlay
from sampan.wire.images import Progress

QUICK = Timing(attempts=4, delay=0.005, connect=5, stall=1.0, document=4.0, longest_wait=0.2)


async def collect(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


class Place:
    """A data root; `again` closes it and opens it as a new daemon would."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.settings = Settings(**settings)
        self.events: list[tuple[str, str]] = []
        self._open()

    def _open(self) -> None:
        self.state = State(self.root)
        self.layers = Overlay(self.root, self.state)
        self.images = Images(
            self.root, self.state, self.layers, in_use=lambda _: [], registries=self.settings,
            emit=lambda kind, action, actor, attributes: self.events.append((action, actor)),
        )  # fmt: skip
        self.images.registries.timing = QUICK

    def close(self) -> None:
        self.layers.close()
        self.state.close()

    def again(self) -> None:
        self.close()
        self._open()
        self.layers.sweep()
        self.images.sweep()

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, work: Awaitable[Any]) -> Any:
        async def main() -> Any:
            return await work

        return asyncio.run(main())

    def pull(self, image: str, tag: str = "1", *, platform: str = "", auth: str = "") -> list[Progress]:
        return self.run(collect(self.images.pull(image, tag=tag, platform=platform, auth=auth)))

    def push(self, image: str, tag: str = "1", *, auth: str = "") -> list[Progress]:
        return self.run(collect(self.images.push(image, tag=tag, auth=auth)))

    def files(self, image: str) -> dict[str, str]:
        """Return path -> content of the plain files of an image's layers, later ones over earlier ones."""
        found: dict[str, str] = {}
        for chain in self.images.resolve(image).chain_ids:
            folder = self.layers.diff(Digest(chain))
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    found[str(path.relative_to(folder))] = path.read_text()
        return found

    def is_clean(self) -> bool:
        """Whether nothing is here: no image, no layer, no blob, nothing half done."""
        folders = ("content/ingest", "content/blobs/sha256", "content/partial", "layers/sha256", "layers/tmp")
        left = [f"{folder}/{path.name}" for folder in folders for path in (self.root / folder).iterdir()]
        assert not left, left
        return not self.images.catalogue.all()
