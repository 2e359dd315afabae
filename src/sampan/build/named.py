"""Named contexts (`--build-context name=...`): what FROM, COPY --from and RUN --mount mean by a name, for one build.

    docker-image://REFERENCE    an image
    a URL                       an archive or a file that is fetched, or a git repository
    an upload                   a folder of the client's, or an image of its OCI layout; see prefix.py

Each is fetched once, when a step needs it, and gone after the build.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from sampan.build import remote
from sampan.build.prefix import Pieces, Upload
from sampan.build.scope import check_context
from sampan.build.select import Root
from sampan.engine.images import load
from sampan.engine.images.images import Images
from sampan.engine.images.streams import Cancelled, Watched
from sampan.errors import InvalidRequest, SampanError
from sampan.files.compression import open_decompressed
from sampan.files.digests import Readable
from sampan.files.ignore import Ignore
from sampan.files.tar_apply import Options, Whiteouts, apply
from sampan.kernel.fds import Fd, open_fd
from sampan.oci.digest import Digest

IMAGE = "docker-image://"


class Named:
    """The named contexts of one build.

    folder: where contexts are kept while builds use them.  loans: how many builds use an image that came as an upload.
    """

    def __init__(self, folder: Path, images: Images, loans: Counter[Digest]) -> None:
        self._loans = loans
        self._place = folder / secrets.token_hex(16)
        self._images = images
        self._sources: dict[str, str] = {}  # images and addresses
        self._trees: dict[str, Fd] = {}
        self._fetches: dict[str, asyncio.Task[Fd]] = {}
        self._loaded: list[Digest] = []
        self._gone = threading.Event()
        self.secrets: Mapping[str, bytes] = {}
        self.result = ""  # the image that was built; it stays

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._sources) | frozenset(self._trees)

    def tell(self, sources: Mapping[str, str]) -> None:
        """Take the contexts that are not uploads.  Raises InvalidRequest."""
        for name, source in sources.items():
            check_context(name)
            if not source.startswith(IMAGE) and not remote.is_remote(source):
                raise InvalidRequest(f"build context {name}: {source[:200]!r} is neither {IMAGE}NAME nor a URL")
            self._sources[name] = source

    def take(self, upload: Upload, pieces: Pieces) -> None:
        """Take a context that was uploaded.  Blocks.  Raises InvalidRequest."""
        check_context(upload.name)
        if upload.kind == "image":
            image, known = load.store(self._images.stores, pieces, self._check)
            if not known or self._loans[image]:
                self._loans[image] += 1
                self._loaded.append(image)
            self._sources[upload.name] = IMAGE + image
        else:
            self._trees[upload.name] = self._unpack(pieces)

    def _check(self) -> None:
        if self._gone.is_set():
            raise Cancelled

    def image(self, name: str) -> str:
        """Return the image that a context is, "" when it is files."""
        source = self._sources.get(name, "")
        return source.removeprefix(IMAGE) if source.startswith(IMAGE) else ""

    async def files(self, name: str) -> Root:
        """Return the files of a context.  Raises InvalidRequest, Unavailable."""
        tree = self._trees.get(name)
        if tree is None:
            fetching = self._fetches.get(name)
            if fetching is None:
                fetching = self._fetches[name] = asyncio.ensure_future(asyncio.to_thread(self._fetch, self._sources[name]))
            tree = await asyncio.shield(fetching)
        return Root(tree, Ignore(()), f"build context {name}")

    def _fetch(self, source: str) -> Fd:
        with ExitStack() as held:
            self._place.mkdir(mode=0o700, exist_ok=True)
            fetched = remote.fetch(remote.Fetching(source, secrets=self.secrets), self._place, self._check, held)
            if fetched.packed:
                return self._unpack(fetched.file)
            tree = self._folder()
            try:
                fetched.put(tree, self._check)
            except BaseException:
                tree.close()
                raise
            return tree

    def _folder(self) -> Fd:
        self._place.mkdir(mode=0o700, exist_ok=True)
        place = self._place / secrets.token_hex(8) / "tree"
        place.mkdir(mode=0o755, parents=True)
        return open_fd(place, os.O_RDONLY | os.O_DIRECTORY)

    def _unpack(self, tar: Readable) -> Fd:
        tree = self._folder()
        try:
            plain = open_decompressed(Watched(tar, self._check))[1]
            apply(plain, tree, whiteouts=Whiteouts.PLAIN, options=Options(owner=(0, 0), special=False))
        except BaseException:
            tree.close()
            raise
        return tree

    async def close(self) -> None:
        """Take everything away: files, and images that were not here before and that nobody else wants."""
        self._gone.set()
        if self._fetches:
            await asyncio.wait(self._fetches.values())
        fetched = [one.result() for one in self._fetches.values() if not one.cancelled() and one.exception() is None]
        for tree in [*self._trees.values(), *fetched]:
            tree.close()
        await asyncio.to_thread(shutil.rmtree, self._place, ignore_errors=True)
        for image in self._loaded:
            self._loans[image] -= 1
            if not self._loans[image] and image != self.result and not self._images.catalogue.tags(image):
                with contextlib.suppress(SampanError):
                    await self._images.remove(image, force=False, prune=False)
