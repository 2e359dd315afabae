"""The build context: an uploaded archive, unpacked where only the daemon sees it, and gone after the build."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sampan.build import remote
from sampan.build.select import Root, walk
from sampan.build.synced import Synced, Told
from sampan.engine.images.streams import Watched
from sampan.errors import Broken, InvalidRequest
from sampan.files.atomic import remove_tree
from sampan.files.compression import open_decompressed
from sampan.files.digests import Readable
from sampan.files.ignore import Ignore, PatternError, clean, read_ignore
from sampan.files.tar_apply import Options, Whiteouts, apply
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.paths import open_in

MAX_TEXT = 16 << 20


class Context:
    """A context on the disk, all of it root's.  close: takes it away."""

    def __init__(self, folder: Path, synced: Synced) -> None:
        self._place = folder / secrets.token_hex(16)
        (self._place / "tree").mkdir(mode=0o755, parents=True)
        self._place.chmod(0o700)
        self.fd: Fd = open_fd(self._place / "tree", os.O_RDONLY | os.O_DIRECTORY)
        self._synced = synced
        self._told: Told | None = None
        self._whole = False

    def take(self, token: str, tar: Readable, check: Callable[[], None]) -> None:
        """Build from a kept context instead, brought up to date with an archive.  Blocks.  Raises NotFound, InvalidRequest."""
        told, tree = self._synced.claim(token)
        self.fd.close()
        self.fd, self._told = tree, told
        self.unpack(tar, check)
        self._whole = True

    def unpack(self, tar: Readable, check: Callable[[], None]) -> None:
        """Unpack an archive, compressed or not.  Blocks.  Raises InvalidRequest: names that lead out, devices, damage."""
        plain = open_decompressed(Watched(tar, check))[1]
        apply(plain, self.fd, whiteouts=Whiteouts.PLAIN, options=Options(owner=(0, 0), special=False))

    def fetch(self, wanted: remote.Fetching, dockerfile: str) -> str:
        """Take the context from a URL: an archive, or the text of a Dockerfile; return the Dockerfile's path.  Blocks.

        Raises InvalidRequest, Unavailable, Unsupported.
        """
        with ExitStack() as held:
            fetched = remote.fetch(wanted, self._place, lambda: None, held)
            if fetched.packed:
                self.unpack(fetched.file, lambda: None)
                return dockerfile
            if fetched.size > MAX_TEXT:
                raise InvalidRequest(f"{wanted.source[:200]} is neither an archive nor a Dockerfile")
            self.write("Dockerfile", fetched.file.read())
            return "Dockerfile"

    def write(self, name: str, content: bytes) -> None:
        """Add a file to an empty context."""
        with open_in(self.fd, ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
            made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder.fileno())
            with os.fdopen(made, "wb") as file:
                file.write(content)

    def read(self, path: str) -> bytes | None:
        """Return a small file, links resolved inside the context; None when it is not there."""
        try:
            with open_in(self.fd, path, os.O_RDONLY | os.O_NONBLOCK) as file, os.fdopen(os.dup(file.fileno()), "rb") as reader:
                content = reader.read(MAX_TEXT + 1)
        except OSError:
            return None
        if len(content) > MAX_TEXT:
            raise InvalidRequest(f"{path[:200]} is larger than {MAX_TEXT} bytes")
        return content

    def dockerfile(self, name: str) -> bytes:
        """Return the Dockerfile.  Raises docker's words, and its 500, when there is none."""
        path = clean(name) or "Dockerfile"
        content = self.read(path)
        if content is None and path == "Dockerfile":
            content = self.read("dockerfile")
        if content is None:
            raise Broken(f"Cannot locate specified Dockerfile: {name[:200]}")
        return content

    def root(self, dockerfile: str) -> Root:
        """Return the context less what its .dockerignore leaves out.  Blocks.  Raises InvalidRequest."""
        path = clean(dockerfile) or "Dockerfile"
        content = self.read(f"{path}.dockerignore")
        if content is None:
            content = self.read(".dockerignore")
        try:
            ignore = Ignore(read_ignore(content or b""))
        except PatternError as error:
            raise InvalidRequest(f"failed to read .dockerignore: {error}") from None
        if self._told is not None:  # left out by the client already; its files stay the same ones from build to build
            return Root(self.fd, ignore, namespace=f"context {self._told.key}", fresh=frozenset(self._told.wanted))
        if ignore:
            self._purge(ignore)
        return Root(self.fd, ignore)

    def _purge(self, ignore: Ignore) -> None:
        """Delete what is left out, so that mounts of the context do not show it either."""
        everything = Root(self.fd, Ignore(()))
        for one in list(walk(everything, "", Ignore(()))):
            if not ignore.excludes(one.path):
                continue
            folder, _, name = one.path.rpartition("/")
            try:
                with open_in(self.fd, folder or ".", os.O_RDONLY | os.O_DIRECTORY) as parent:
                    if ignore.negates and (one.found.st_mode & 0o170000) == 0o040000:
                        continue  # something of it may be kept
                    remove_tree(parent, name)
            except OSError:
                continue  # gone with its folder

    def close(self) -> None:
        self.fd.close()
        if self._told is not None:
            self._synced.release(self._told, whole=self._whole)
            self._synced.trim()
        shutil.rmtree(self._place, ignore_errors=True)
