"""Images that stages begin with or copy from.

One that is here for another machine is used all the same, and warned of, unless a platform was asked for: then it is pulled for it.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from sampan.build.image import Built
from sampan.build.named import Named
from sampan.build.options import Options
from sampan.build.select import Root
from sampan.engine.images.images import Images
from sampan.errors import NotFound, SampanError
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
        self._found: dict[tuple[str, str], asyncio.Task[Built]] = {}
        self._pulling = asyncio.Lock()  # a name means one image at a time: that of the last platform
        self._views: dict[tuple[Digest, ...], Root] = {}
        self._held = ExitStack()

    async def image(self, name: str, platform: str) -> Built:
        """Return an image, or the one that a named context gives for it, as the begin of a stage.  Raises NotFound."""
        name = self._named.image(self._options.request.named(name)) or name
        request = self._options.request
        if name == "scratch":
            architecture, variant = _platform(platform or request.platform)
            return Built(architecture=architecture, variant=variant)
        asked = platform or (request.platform if request.strict_platform else "")
        task = self._found.get((name, asked))
        if task is None:
            task = self._found[name, asked] = asyncio.ensure_future(self._resolve(name, asked))
        return await asyncio.shield(task)

    async def _resolve(self, name: str, platform: str) -> Built:
        found: Built | None = None
        if not self._options.pull or name.startswith("sha256:"):
            try:
                found = await asyncio.to_thread(self._read, name)
            except NotFound:
                if name.startswith("sha256:"):
                    raise
        other = f"image with reference {name} was found but does not provide the specified platform ({platform})"
        if found is not None and serves(found, platform):
            return found
        if name.startswith("sha256:"):
            raise NotFound(other)
        async with self._pulling:
            try:
                await self._pull(name, platform)
            except SampanError as error:
                if found is None:
                    raise
                raise NotFound(f"{other}, and it cannot be pulled for it: {error}") from None
            found = await asyncio.to_thread(self._read, name)
        if not serves(found, platform):
            raise NotFound(other)
        return found

    async def _pull(self, name: str, platform: str) -> None:
        reference = parse(name).tagged()
        auth = self._options.auth.get(reference.domain, "")
        tag = reference.tag or str(reference.digest or "")
        async for message in self._images.pull(reference.name, tag=tag, platform=platform, auth=auth):
            if message.error:
                raise NotFound(message.error)

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


def serves(built: Built, platform: str) -> bool:
    """Whether an image is for the machines of a platform; "": any."""
    wanted, _ = _platform(platform) if platform else ("", None)
    return not wanted or built.architecture == wanted


def _platform(text: str) -> tuple[str, str | None]:
    parts = text.lower().split("/")
    if len(parts) == 1:
        return ("", None) if parts[0] == "linux" else (_ARCHITECTURES.get(parts[0], parts[0]), None)
    return _ARCHITECTURES.get(parts[1], parts[1]), parts[2] if len(parts) > 2 else None
