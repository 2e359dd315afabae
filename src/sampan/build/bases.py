"""Images that stages begin with or copy from."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from sampan.build.image import Built
from sampan.build.named import Named
from sampan.build.options import Options
from sampan.build.select import Root
from sampan.engine.images.images import Images
from sampan.errors import NotFound
from sampan.files.ignore import Ignore
from sampan.oci.digest import Digest
from sampan.oci.image import Settings
from sampan.oci.reference import parse

_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


class Bases:
    """The images of one build; each name is looked up once, so that a build sees one image all along."""

    def __init__(self, images: Images, options: Options, named: Named) -> None:
        self._images = images
        self._named = named
        self._stores = images.stores
        self._options = options
        self._found: dict[str, asyncio.Task[Built]] = {}
        self._views: dict[tuple[Digest, ...], Root] = {}
        self._held = ExitStack()

    async def image(self, name: str, platform: str) -> Built:
        """Return an image, or the one that a named context gives for it, as the begin of a stage.  Raises NotFound."""
        name = self._named.image(self._options.request.named(name)) or name
        if name == "scratch":
            architecture, variant = _platform(platform or self._options.request.platform)
            return Built(architecture=architecture, variant=variant)
        task = self._found.get(name)
        if task is None:
            task = self._found[name] = asyncio.ensure_future(self._resolve(name))
        built = await asyncio.shield(task)
        wanted, _ = _platform(platform or self._options.request.platform)
        if wanted and built.architecture != wanted:
            shown = platform or self._options.request.platform
            raise NotFound(f"image with reference {name} was found but does not provide the specified platform ({shown})")
        return built

    async def _resolve(self, name: str) -> Built:
        if not self._options.pull:
            try:
                return await asyncio.to_thread(self._read, name)
            except NotFound:
                if name.startswith("sha256:"):
                    raise
        reference = parse(name).tagged()
        auth = self._options.auth.get(reference.domain, "")
        pulled = self._images.pull(reference.name, tag=reference.tag or str(reference.digest or ""), platform="", auth=auth)
        async for message in pulled:
            if message.error:
                raise NotFound(message.error)
        return await asyncio.to_thread(self._read, name)

    def _read(self, name: str) -> Built:
        catalogue = self._stores.catalogue
        image, _ = catalogue.resolve(name)
        record, config = catalogue.get(image), catalogue.config(image)
        return Built(
            layers=record.layers, history=tuple(config.history or ()), settings=config.config or Settings(), author=config.author,
            image=image, base=name, architecture=config.architecture, variant=config.variant,
        )  # fmt: skip

    def view(self, built: Built, name: str) -> Root:
        """Return the files of a stage or an image, read-only; closed with the build.  Blocks."""
        found = self._views.get(built.chain)
        if found is None:
            tree = self._held.enter_context(self._stores.layers.view_chain(built.chain))
            found = self._views[built.chain] = Root(tree, Ignore(()), name, built.top)
        return found

    def close(self) -> None:
        for task in self._found.values():
            task.cancel()
        self._held.close()


def _platform(text: str) -> tuple[str, str | None]:
    parts = text.lower().split("/")
    if len(parts) == 1:
        return ("", None) if parts[0] == "linux" else (_ARCHITECTURES.get(parts[0], parts[0]), None)
    return _ARCHITECTURES.get(parts[1], parts[1]), parts[2] if len(parts) > 2 else None
