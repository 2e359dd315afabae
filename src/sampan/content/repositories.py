"""A registry's repositories: which manifests, tags and blobs each has.  The bytes are in the blob store (blobs.py).

    registry-manifest   NAME@DIGEST  -> Stored: its type, what it needs, what it refers to
    registry-tag        NAME:TAG     -> the digest
    registry-blob       NAME@DIGEST  -> since when the repository has the blob
    <data-root>/content/uploads/<id>    an upload under way; kept over restarts, dropped after a day without a byte

A blob is readable through a repository that has it, and no other.  What no manifest needs is garbage an hour after it came.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sampan.content.blobs import Blobs
from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.oci import image as oci
from sampan.oci.digest import Digest, algorithm, is_hex, parse
from sampan.state import State, Table

GRACE = 3600  # seconds that a blob may wait for its manifest
UPLOAD_LIFE = 86400
MAX_UPLOADS = 1000
_CHUNK = 1 << 20


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest.  needs: digests of its blobs, or of an index's manifests; subject: what it refers to, "" for nothing; since:
    when it came, seconds."""

    media_type: str
    size: int
    needs: tuple[Digest, ...] = ()
    subject: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = {}
    since: int = 0


class Tagged(msgspec.Struct, frozen=True, kw_only=True):
    digest: Digest


class Linked(msgspec.Struct, frozen=True, kw_only=True):
    since: int


class Repositories:
    """All repositories of a data root.  Thread-safe; every change is durable when it returns."""

    def __init__(self, state: State, blobs: Blobs) -> None:
        self._state = state
        self.blobs = blobs
        self._manifests = Table(state, "registry-manifest", Stored)
        self._tags = Table(state, "registry-tag", Tagged)
        self._links = Table(state, "registry-blob", Linked)
        self._folder = blobs.folder.parent / "uploads"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._mutex = threading.Lock()  # between a manifest's arrival and the garbage collector

    # Manifests and tags

    def resolve(self, name: str, reference: str) -> tuple[Digest, Stored]:
        """Return the manifest that a tag or digest of a repository means.  Raises NotFound."""
        digest = Digest(reference)
        if ":" not in reference:
            tag = self._tags.get(f"{name}:{reference}")
            if tag is None:
                raise NotFound("manifest unknown")
            digest = tag.digest
        found = self._manifests.get(f"{name}@{digest}")
        if found is None:
            raise NotFound("manifest unknown")
        return digest, found

    def put_manifest(self, name: str, digest: Digest, content: bytes, media_type: str, tags: Sequence[str]) -> list[Digest]:
        """Store a manifest and its tags; return what it needs and the repository lacks, in which case nothing is stored.

        Raises InvalidRequest when it is no manifest of this type.
        """
        stored = msgspec.structs.replace(describe(content, media_type), since=int(time.time()))
        with self._mutex:
            lacks = [one for one in stored.needs if not self.has_blob(name, one) and self._manifests.get(f"{name}@{one}") is None]
            if lacks:
                return lacks
            self.blobs.put(content, digest)
            with self._state.batch():
                self._manifests.put(f"{name}@{digest}", stored)
                for tag in tags:
                    self._tags.put(f"{name}:{tag}", Tagged(digest=digest))
        return []

    def content(self, digest: Digest) -> bytes:
        """Return a manifest's bytes, verified.  Raises NotFound, Broken."""
        return self.blobs.read(digest)

    def delete(self, name: str, reference: str) -> None:
        """Remove a tag, or a manifest with every tag that means it.  Raises NotFound."""
        digest, _ = self.resolve(name, reference)
        with self._state.batch():
            if ":" not in reference:
                self._tags.delete(f"{name}:{reference}")
                return
            self._manifests.delete(f"{name}@{digest}")
            for key, tag in list(self._tags.within(f"{name}:")):
                if tag.digest == digest:
                    self._tags.delete(key)

    def tags(self, name: str) -> list[str]:
        """Return the tags, sorted.  Raises NotFound for a repository that is not there."""
        found = [key.removeprefix(f"{name}:") for key, _ in self._tags.within(f"{name}:")]
        if not found and next(iter(self._manifests.within(f"{name}@")), None) is None:
            raise NotFound("repository name not known to registry")
        return sorted(found)

    def names(self) -> list[str]:
        """Return the repositories, sorted."""
        return sorted({key.rpartition("@")[0] for key, _ in self._manifests.items()})

    def referrers(self, name: str, subject: Digest) -> Iterator[tuple[Digest, Stored]]:
        for key, stored in self._manifests.within(f"{name}@"):
            if stored.subject == subject:
                yield Digest(key.rpartition("@")[2]), stored

    # Blobs

    def has_blob(self, name: str, digest: Digest) -> bool:
        return self._links.get(f"{name}@{digest}") is not None and self.blobs.has(digest)

    def blob(self, name: str, digest: Digest) -> tuple[Path, int]:
        """Return a blob's file and size.  Raises NotFound."""
        if not self.has_blob(name, digest):
            raise NotFound("blob unknown to registry")
        return self.blobs.path(digest), self.blobs.size(digest)

    def link(self, name: str, digest: Digest) -> None:
        """Give a repository a blob that is stored."""
        self._links.put(f"{name}@{digest}", Linked(since=int(time.time())))

    def unlink(self, name: str, digest: Digest) -> None:
        """Take it away.  Raises NotFound."""
        if not self._links.delete(f"{name}@{digest}"):
            raise NotFound("blob unknown to registry")

    # Uploads

    def begin(self, name: str) -> str:
        """Begin an upload; return its id.  Raises Conflict when there are too many."""
        if len(os.listdir(self._folder)) >= MAX_UPLOADS:
            raise Conflict("too many uploads are under way")
        upload = secrets.token_hex(16)
        os.close(os.open(self._folder / upload, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        (self._folder / f"{upload}.name").write_text(name)  # last: to the garbage collector a name alone is what an upload left
        return upload

    def upload(self, name: str, upload: str) -> Path:
        """Return the file of an upload of this repository.  Raises NotFound."""
        path = self._folder / upload
        try:
            if is_hex(upload, 32) and (self._folder / f"{upload}.name").read_text() == name and path.is_file():
                return path
        except FileNotFoundError:
            pass
        raise NotFound("blob upload unknown to registry")

    def finish(self, name: str, upload: str, digest: Digest) -> None:
        """Make an upload the blob `digest`.  Raises NotFound, InvalidRequest when it has another content."""
        path = self.upload(name, upload)
        with open(path, "rb") as file:
            found = f"{algorithm(digest)}:{hashlib.file_digest(file, algorithm(digest)).hexdigest()}"
            if found != digest:
                raise InvalidRequest("provided digest did not match uploaded content")
            os.fchmod(file.fileno(), 0o400)
            os.fsync(file.fileno())
        with self._mutex:
            self.blobs.adopt(path, digest)
            self.link(name, digest)
        (self._folder / f"{upload}.name").unlink(missing_ok=True)

    def cancel(self, name: str, upload: str) -> None:
        """Forget an upload.  Raises NotFound."""
        self.upload(name, upload).unlink()
        (self._folder / f"{upload}.name").unlink(missing_ok=True)

    # Garbage

    def collect(self, now: float | None = None) -> int:
        """Delete old uploads, what refers to manifests that are gone, and blobs that no manifest needs and nobody just brought;
        return the bytes freed."""
        moment = time.time() if now is None else now
        for path in list(self._folder.iterdir()):
            try:
                old = (self._folder / path.name.removesuffix(".name")).stat().st_mtime < moment - UPLOAD_LIFE
            except FileNotFoundError:
                old = True
            if old:
                path.unlink(missing_ok=True)
        freed = 0
        with self._mutex:
            while self._drop_orphans(moment):
                pass
            needed: set[str] = set()
            for key, stored in self._manifests.items():
                needed.add(key.rpartition("@")[2])
                needed.update(stored.needs)
            for key, link in list(self._links.items()):
                digest = key.rpartition("@")[2]
                if link.since > moment - GRACE:
                    needed.add(digest)
                elif digest not in needed:
                    self._links.delete(key)
            for digest in list(self.blobs.digests()):
                if digest not in needed:
                    freed += self.blobs.delete(digest)
        return freed

    def _drop_orphans(self, moment: float) -> int:
        """Delete what refers to a manifest that is gone, unless it has a tag, an index needs it or it came just now."""
        known = dict(self._manifests.items())
        kept = {f"{key.rpartition(':')[0]}@{tag.digest}" for key, tag in self._tags.items()}
        kept.update(f"{key.rpartition('@')[0]}@{one}" for key, stored in known.items() for one in stored.needs)
        orphans = [
            key for key, stored in known.items()
            if stored.subject and f"{key.rpartition('@')[0]}@{stored.subject}" not in known and key not in kept
            and stored.since <= moment - GRACE
        ]  # fmt: skip
        for key in orphans:
            self._manifests.delete(key)
        return len(orphans)


def describe(content: bytes, media_type: str) -> Stored:
    """Return the record of a manifest.  Raises InvalidRequest."""
    value = oci.read_manifest(content, media_type, "manifest")
    raw = oci.strict(content, "manifest")
    subject = raw.get("subject")
    digest = parse(str(subject.get("digest", ""))) if isinstance(subject, dict) else ""
    if isinstance(value, oci.Manifest):
        needs = tuple(dict.fromkeys(one.checked() for one in (value.config, *value.layers)))
        kind = str(raw.get("artifactType") or value.config.media_type)
    else:
        needs = tuple(dict.fromkeys(one.checked() for one in value.manifests))
        kind = str(raw.get("artifactType") or "")
    return Stored(
        media_type=media_type, size=len(content), needs=needs, subject=digest, artifact_type=kind,
        annotations=value.annotations or {},
    )  # fmt: skip
