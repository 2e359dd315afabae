"""Sources of ADD that are elsewhere: HTTP, and git repositories."""

from __future__ import annotations

import hashlib
import os
import posixpath
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import IO

from sampan.build import git
from sampan.build.chmod import change
from sampan.build.copying import Stream, Target, apply_stream
from sampan.build.git import line_of
from sampan.errors import InvalidRequest, Unavailable
from sampan.files.compression import Compression, detect, open_decompressed
from sampan.files.tar_entry import Entry, Kind
from sampan.files.tar_header import END, header, padding
from sampan.kernel.fds import Fd
from sampan.registry import plain

MAX_SIZE = 64 << 30
_CHUNK = 1 << 18


def is_remote(text: str) -> bool:
    """Whether a source of ADD is a URL or a git repository."""
    return text.startswith(("http://", "https://")) or is_git(text)


def is_git(text: str) -> bool:
    bare = text.partition("#")[0].partition("?")[0]
    if text.startswith(("git://", "ssh://", "git@")):
        return True
    return text.startswith(("http://", "https://")) and bare.endswith(".git")


@dataclass(frozen=True)
class Fetching:
    """What to fetch.  checksum: of the content, or the commit; keep_git: with the repository itself; secrets: to log in with.

    Secrets: HTTP_AUTH_TOKEN_<host> and HTTP_AUTH_HEADER_<host>; for git GIT_AUTH_TOKEN and GIT_AUTH_HEADER, with .<host> or not.
    """

    source: str
    checksum: str = ""
    keep_git: bool = False
    secrets: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class Fetched:
    """A file that was fetched.  digest: of its content; mtime: nanoseconds."""

    source: str
    name: str
    digest: str
    size: int
    mtime: int
    file: IO[bytes]
    archive: bool = False  # a repository: always unpacked

    @property
    def packed(self) -> bool:
        """Whether it is an archive, compressed or not."""
        self.file.seek(0)
        head = self.file.read(512)
        self.file.seek(0)
        return self.archive or detect(head) is not Compression.PLAIN or head[257:262] == b"ustar"

    def put(self, tree: Fd, check: Callable[[], None]) -> None:
        """Put it as a file into the top of a tree, under its own name."""
        replace(self, name=self.name or "download").write(tree, Target("", True), unpack=False, check=check)

    def write(self, tree: Fd, target: Target, *, unpack: bool, check: Callable[[], None]) -> None:
        """Put it at the destination: mode 0600 unless --chmod says otherwise, or unpacked."""
        self.file.seek(0)
        if unpack or self.archive:
            archive = open_decompressed(self.file)[1]

            def pieces() -> Iterator[bytes]:
                while data := archive.read(_CHUNK):
                    yield data

            apply_stream(Stream(pieces(), check), tree, Target(target.path, True, target.owner))
            return
        if target.folder and not self.name:
            raise InvalidRequest(f"cannot determine a file name from {self.source[:200]}: the URL's path ends with /")
        apply_stream(Stream(self._archive(target), check), tree, target)

    def _archive(self, target: Target) -> Iterator[bytes]:
        name = self.name if target.folder else posixpath.basename(target.path)
        mode = change(target.chmod, 0o600, folder=False)
        yield header(Entry(name, Kind.FILE, mode=mode, size=self.size, stored=self.size, mtime_ns=self.mtime))
        while data := self.file.read(_CHUNK):
            yield data
        yield padding(self.size) + END

    def close(self) -> None:
        self.file.close()


def fetch(wanted: Fetching, folder: os.PathLike[str], check: Callable[[], None], held: ExitStack) -> Fetched:
    """Fetch a URL to a file that has no name.  Blocks.

    Raises InvalidRequest for a bad URL or checksum, Unavailable when the server does not give it.
    """
    source, checksum = wanted.source, wanted.checksum
    if is_git(source):
        return _git(wanted, folder, check, held)
    parts = plain.checked(source)
    hashing = hashlib.sha256()
    file = held.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  (closed by `held`)
    size = 0
    try:
        with plain.opened(source, _login(parts, wanted.secrets)) as reply:
            modified = reply.modified
            while data := reply.read(_CHUNK):
                check()
                size += len(data)
                if size > MAX_SIZE:
                    raise InvalidRequest(f"{source[:200]} is larger than {MAX_SIZE} bytes")
                hashing.update(data)
                file.write(data)
    except (OSError, ValueError) as error:
        raise Unavailable(f"ADD failed: {source[:200]}: {error}") from None
    digest = f"sha256:{hashing.hexdigest()}"
    if checksum and checksum != digest:
        raise InvalidRequest(f"digest mismatch {digest}: {checksum} was expected of {source[:200]}")
    name = posixpath.basename(urllib.parse.unquote(parts.path))
    name = "" if name in (".", "..") or "/" in name or "\0" in name else name
    return Fetched(source, name, digest, size, _time(modified), file)


def _login(parts: urllib.parse.SplitResult, secrets: Mapping[str, bytes]) -> dict[str, str]:
    """Return the header that the secrets give for a host.  Raises InvalidRequest naming the secret, never its value."""
    for host in (parts.netloc, parts.hostname or ""):
        for name, begin in ((f"HTTP_AUTH_TOKEN_{host}", "Bearer "), (f"HTTP_AUTH_HEADER_{host}", "")):
            if name in secrets:
                return {"Authorization": begin + line_of(name, secrets[name])}
    return {}


def _git(wanted: Fetching, folder: os.PathLike[str], check: Callable[[], None], held: ExitStack) -> Fetched:
    """Fetch a repository; what there is to unpack is its archive.  Raises as `fetch`."""
    source, checksum = wanted.source, wanted.checksum
    repository = git.parse(source)
    checkout = git.Checkout(repository, check, held, wanted.secrets)
    if checksum and not checkout.commit.startswith(checksum.removeprefix("sha1:")):
        raise InvalidRequest(f"commit {checkout.commit}: {checksum} was expected of {source[:200]}")
    file = held.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  (closed by `held`)
    size = 0
    for data in checkout.tar(repository.folder, keep_git=wanted.keep_git):
        size += len(data)
        file.write(data)
    digest = f"{checkout.commit}:{repository.folder}{':git' if wanted.keep_git else ''}"
    return Fetched(source, "", digest, size, time.time_ns(), file, archive=True)


def _time(text: str | None) -> int:
    """Return Last-Modified in nanoseconds; now without one."""
    if text:
        try:
            return int(parsedate_to_datetime(text).timestamp()) * 10**9
        except ValueError:
            pass
    return time.time_ns()
