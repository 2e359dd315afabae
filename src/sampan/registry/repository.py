"""One repository of a registry: its manifests, tags, referrers and blobs (distribution-spec 1.1, end-points 2 to 12)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from sampan.errors import InvalidRequest
from sampan.oci import image as oci
from sampan.oci.digest import Digest, algorithm, of
from sampan.oci.digest import parse as parse_digest
from sampan.oci.reference import is_tag
from sampan.registry.faults import Interrupted, Missing, RegistryFailed, shown
from sampan.registry.session import Session
from sampan.registry.streams import to_the_last

SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
ACCEPT = ", ".join((oci.DOCKER_MANIFEST, oci.DOCKER_LIST, oci.OCI_MANIFEST, oci.OCI_INDEX))
MAX_PAGES = 1000
MAX_TAGS = 100_000


@dataclass(frozen=True)
class Document:
    """A manifest or an index, byte for byte.  digest: sha256 of `content`, or the digest it was asked by."""

    content: bytes
    media_type: str
    digest: Digest

    @property
    def size(self) -> int:
        return len(self.content)


class TagList(msgspec.Struct, frozen=True):
    tags: list[str] = []


class Repository:
    """A repository on one host.  path: "library/busybox"."""

    def __init__(self, session: Session, path: str) -> None:
        self.session = session
        self.path = path
        self._pull = (f"repository:{path}:pull",)

    # Manifests

    async def manifest(self, reference: str) -> Document:
        """Return the manifest or index that a tag or a digest names, verified.

        Raises Missing, AccessDenied, InvalidRequest when it is not what its digest says, is schema 1 or of no known type.
        """
        response, content = await self.session.document(
            "GET", f"/v2/{self.path}/manifests/{reference}", limit=oci.MAX_DOCUMENT, headers={"Accept": ACCEPT}, scopes=self._pull
        )
        return _document(reference, response, content)

    async def has_manifest(self, reference: str) -> Digest | None:
        """Return the digest of what is there, None when nothing is (or the registry does not say)."""
        try:
            response = await self.session.open(
                "HEAD", f"/v2/{self.path}/manifests/{reference}", headers={"Accept": ACCEPT}, scopes=self._pull
            )
        except Missing:
            return None
        response.release()
        try:
            return parse_digest(response.headers.get("Docker-Content-Digest", ""))
        except InvalidRequest:
            return None

    async def tags(self) -> list[str]:
        """Return every tag.  Raises Missing, AccessDenied, RegistryFailed when the list has no end."""
        found: list[str] = []
        target = f"/v2/{self.path}/tags/list"
        for _ in range(MAX_PAGES):
            response, content = await self.session.document("GET", target, limit=oci.MAX_DOCUMENT, scopes=self._pull)
            page = oci.decode(content, TagList, "list of tags").tags
            found += [tag for tag in page if is_tag(tag)]
            following = next_page(response.headers.get("Link", ""))
            if not following or not page:
                return found
            if len(found) > MAX_TAGS:
                break
            target = self._same_host(response, following)
        raise RegistryFailed(f"repository {self.path} has too many tags")

    async def referrers(self, digest: Digest, artifact_type: str = "") -> list[oci.Descriptor]:
        """Return what refers to `digest`, by the referrers API or the tag that stands in for it."""
        query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        try:
            _, content = await self.session.document(
                "GET", f"/v2/{self.path}/referrers/{digest}{query}", limit=oci.MAX_DOCUMENT, scopes=self._pull
            )
        except Missing:
            try:
                content = (await self.manifest(referrers_tag(digest))).content
            except Missing:
                return []
        index = oci.read_manifest(content, oci.OCI_INDEX, f"referrers of {digest}")
        found = index.manifests if isinstance(index, oci.Index) else []
        return [one for one in found if not artifact_type or one.artifact_type == artifact_type]

    def _same_host(self, response: aiohttp.ClientResponse, following: str) -> str:
        url = self.session.follow(response.url, following)
        if url.host != response.url.host or url.port != response.url.port:
            raise RegistryFailed(f"{shown(str(response.url))}: the next page is on another host")
        return url.raw_path_qs

    # Blobs

    async def has_blob(self, digest: Digest) -> bool:
        try:
            response = await self.session.open("HEAD", f"/v2/{self.path}/blobs/{digest}", scopes=self._pull)
        except Missing:
            return False
        response.release()
        return True

    async def blob(self, digest: Digest, size: int, offset: int = 0) -> BlobStream:
        """Ask for a blob from `offset` on.  Raises Missing, AccessDenied, Interrupted, RegistryFailed."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = await self.session.open("GET", f"/v2/{self.path}/blobs/{digest}", headers=headers, scopes=self._pull)
        try:
            return BlobStream(response, size, offset, self.session.timing.slow, self.session.timing.stall)
        except BaseException:
            response.close()
            raise

    async def small_blob(self, digest: Digest, size: int) -> bytes:
        """Return a small blob, verified.  Raises InvalidRequest when it is not what digest and size say."""
        if not 0 <= size <= oci.MAX_DOCUMENT:
            raise InvalidRequest(f"blob {digest} of {size} bytes is too large for a document")
        _, content = await self.session.document(
            "GET", f"/v2/{self.path}/blobs/{digest}", limit=oci.MAX_DOCUMENT, scopes=self._pull
        )
        verify(content, digest, size)
        return content


class BlobStream:
    """A blob's bytes as they come.  An async context manager and iterator; ends only when all `size` bytes have come."""

    def __init__(self, response: aiohttp.ClientResponse, size: int, offset: int, slow: int, stall: float) -> None:
        self._response = response
        self._size = size
        self._slow = slow
        self._window = stall * 2
        self.skip = 0  # bytes to leave out: the registry began at the start again
        if offset:
            if response.status == 206:
                if _range_start(response.headers.get("Content-Range", "")) != offset:
                    raise RegistryFailed(f"{shown(str(response.url))}: the range is not the one asked for")
            else:
                self.skip = offset
        length = response.content_length
        if length is not None and length != size - (offset - self.skip):
            raise InvalidRequest(f"{shown(str(response.url))}: {length} bytes announced, expected {size - (offset - self.skip)}")
        self._at = offset - self.skip

    async def __aenter__(self) -> BlobStream:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._response.release()
        else:
            self._response.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes from the offset on.  Raises Interrupted when they end too early, InvalidRequest when too late."""
        skip, begun, came = self.skip, time.monotonic(), 0
        try:
            async for data in to_the_last(self._response.content):
                self._at += len(data)
                came += len(data)
                if self._at > self._size:
                    raise InvalidRequest(f"{shown(str(self._response.url))}: longer than the {self._size} bytes announced")
                if (now := time.monotonic()) - begun > self._window:
                    if came < self._slow * self._window / 60:
                        raise Interrupted(f"{shown(str(self._response.url))}: the transfer has stalled")
                    begun, came = now, 0
                if skip:
                    data, skip = data[skip:], max(0, skip - len(data))
                if data:
                    yield data
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Interrupted(f"{shown(str(self._response.url))}: {str(error)[:200] or 'timed out'}") from error
        if self._at < self._size:
            raise Interrupted(f"{shown(str(self._response.url))}: the connection ended early")


def verify(content: bytes, digest: Digest, size: int) -> None:
    """Raise InvalidRequest unless `content` is what its descriptor says."""
    import hashlib

    found = f"{algorithm(digest)}:{hashlib.new(algorithm(digest), content).hexdigest()}"
    if len(content) != size or found != digest:
        raise InvalidRequest(f"content is {found} of {len(content)} bytes, expected {digest} of {size}")


def _document(reference: str, response: aiohttp.ClientResponse, content: bytes) -> Document:
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    digest = of(content)
    if ":" in reference:
        digest = parse_digest(reference)
        verify(content, digest, len(content))
    elif stated := response.headers.get("Docker-Content-Digest", ""):
        verify(content, parse_digest(stated), len(content))
    if media_type not in oci.INDEX_TYPES | oci.MANIFEST_TYPES:
        media_type = _stated_type(content, reference) or media_type
    if media_type.startswith(SCHEMA1):
        raise InvalidRequest(
            f"manifest {reference}: {media_type} is the obsolete schema 1, which is not supported; ask the image's publisher to "
            "push it again with a current tool"
        )
    oci.read_manifest(content, media_type, f"manifest {reference}")
    return Document(content, media_type, digest)


def _stated_type(content: bytes, reference: str) -> str:
    """Return the type that a document gives itself, for registries that serve it as plain JSON."""
    value = oci.strict(content, f"manifest {reference}")
    if not isinstance(value, dict):
        raise InvalidRequest(f"manifest {reference} is not an object")
    if value.get("schemaVersion") == 1:
        return SCHEMA1
    return str(value.get("mediaType", ""))


def next_page(link: str) -> str:
    """Return the target of a Link header with rel="next", "" for none (RFC 8288)."""
    target, _, parameters = link.partition(">")
    if not target.startswith("<") or "next" not in parameters:
        return ""
    return target[1:] if urlsplit(target[1:]).scheme in ("", "http", "https") else ""


def _range_start(text: str) -> int:
    start = text.removeprefix("bytes ").partition("-")[0]
    return int(start) if start.isascii() and start.isdigit() and len(start) < 19 else -1


def referrers_tag(digest: Digest) -> str:
    """Return the tag that stands in for the referrers API."""
    return digest.replace(":", "-", 1)[: 32 + 1 + 64]
