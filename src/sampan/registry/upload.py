"""Putting blobs and manifests into a repository (distribution-spec 1.1, end-points 4 to 7 and 11)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
from yarl import URL

from sampan.errors import InvalidRequest
from sampan.oci import image as oci
from sampan.oci.digest import Digest
from sampan.registry.faults import Interrupted, Missing, RegistryFailed, shown
from sampan.registry.repository import Document, Repository, referrers_tag

CHUNK = 8 << 20  # bytes of one PATCH
OCTETS = {"Content-Type": "application/octet-stream"}
Reader = Callable[[int], AsyncIterator[bytes]]  # from an offset on, as often as it is wanted


@dataclass(frozen=True)
class Blob:
    """A blob to be put.  read(offset) yields its bytes from there on."""

    digest: Digest
    size: int
    read: Reader


class Uploads:
    """The writing half of a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._session = repository.session
        self._scopes = (f"repository:{repository.path}:pull,push",)

    async def _begin(self, query: str = "", scopes: tuple[str, ...] = ()) -> aiohttp.ClientResponse:
        response = await self._session.open(
            "POST", f"/v2/{self._repository.path}/blobs/uploads/{query}", headers={"Content-Length": "0"}, body=b"",
            scopes=(*self._scopes, *scopes),
        )  # fmt: skip
        response.release()
        if response.status not in (201, 202):
            raise RegistryFailed(f"{shown(str(response.url))}: unexpected status {response.status}")
        return response

    async def has(self, digest: Digest) -> bool:
        """Return whether the repository has the blob; asked with the rights of a push."""
        try:
            response = await self._session.open("HEAD", f"/v2/{self._repository.path}/blobs/{digest}", scopes=self._scopes)
        except Missing:
            return False
        response.release()
        return True

    async def mount(self, digest: Digest, source: str) -> str:
        """Take the blob over from the repository `source` of the same registry.

        Returns "" when that worked, else the upload that the registry has begun instead.
        """
        response = await self._begin(f"?mount={digest}&from={source}", (f"repository:{source}:pull",))
        return "" if response.status == 201 else self._location(response)

    async def put(self, blob: Blob, location: str = "", sent: Callable[[int], None] = lambda _: None) -> None:
        """Put a blob in one request; when the connection breaks, go on in chunks from where the registry is.

        location: of an upload begun already.  sent: told how many bytes have gone out.  Raises Interrupted, RegistryFailed,
        AccessDenied.
        """
        location = location or self._location(await self._begin())
        for attempt in range(self._session.timing.attempts):
            try:
                headers = {**OCTETS, "Content-Length": str(blob.size)}
                body: Callable[[], AsyncIterator[bytes]] | bytes = (lambda: _counted(blob.read(0), sent)) if blob.size else b""
                response = await self._session.open(
                    "PUT", _with_digest(location, blob.digest), headers=headers, body=body, scopes=self._scopes
                )
                response.release()
                return
            except Interrupted as error:
                if attempt == self._session.timing.attempts - 1:
                    raise
                await self._session.pause(attempt, error.after)
                location = self._location(await self._begin())
            except Missing:  # the upload is gone with the registry's memory of it
                if attempt:
                    raise
                location = self._location(await self._begin())

    async def chunked(self, chunks: AsyncIterator[bytes], finish: Callable[[], Digest], location: str = "") -> Digest:
        """Put a blob whose digest is known when the last of `chunks` (8 MiB each) was made; return it.

        A chunk whose connection breaks is sent again from where the registry is.
        """
        location = location or self._location(await self._begin())
        at = 0
        async for chunk in chunks:
            location = await self._patch(location, chunk, at)
            at += len(chunk)
        digest = finish()
        response = await self._session.open(
            "PUT", _with_digest(location, digest), headers={**OCTETS, "Content-Length": "0"}, body=b"", scopes=self._scopes
        )
        response.release()
        return digest

    async def _patch(self, location: str, chunk: bytes, at: int) -> str:
        done = 0
        for attempt in range(self._session.timing.attempts):
            rest = chunk[done:]
            start = at + done
            headers = {**OCTETS, "Content-Length": str(len(rest)), "Content-Range": f"{start}-{start + len(rest) - 1}"}
            try:
                response = await self._session.open(
                    "PATCH", location, headers=headers, body=lambda rest=rest: _pieces(rest), scopes=self._scopes
                )
                response.release()
                return self._location(response)
            except Interrupted as error:
                if attempt == self._session.timing.attempts - 1:
                    raise
                await self._session.pause(attempt, error.after)
                location, have = await self._where(location)
                done = min(max(0, have - at), len(chunk))
                if done == len(chunk):
                    return location
        raise AssertionError("unreachable")

    async def _where(self, location: str) -> tuple[str, int]:
        """Return (location, bytes that the registry has) of an upload."""
        response = await self._session.open("GET", location, scopes=self._scopes)
        response.release()
        end = response.headers.get("Range", "0-0").rpartition("-")[2]
        have = int(end) + 1 if end.isascii() and end.isdigit() and len(end) < 19 else 0
        return (self._location(response) if "Location" in response.headers else location), have if have > 1 else 0

    def _location(self, response: aiohttp.ClientResponse) -> str:
        """Return the absolute URL of an upload; judged as a redirect is."""
        return str(self._session.follow(response.url, response.headers.get("Location", "")))

    async def manifest(self, document: Document, reference: str) -> None:
        """Put a manifest or index under a tag or its digest.  Raises RegistryFailed when the registry stored another."""
        response = await self._session.open(
            "PUT", f"/v2/{self._repository.path}/manifests/{reference}", headers={"Content-Type": document.media_type},
            body=document.content, scopes=self._scopes,
        )  # fmt: skip
        response.release()
        stored = response.headers.get("Docker-Content-Digest", document.digest)
        if stored != document.digest:
            raise RegistryFailed(f"the registry stored {stored[:160]!r} for {document.digest}")
        subject = subject_of(document.content)
        if subject is not None and "OCI-Subject" not in response.headers:
            await self._refer(subject, document)

    async def _refer(self, subject: Digest, document: Document) -> None:
        """Keep the tag that stands in for the referrers API, where the registry has none."""
        tag = referrers_tag(subject)
        try:
            index = oci.read_manifest((await self._repository.manifest(tag)).content, oci.OCI_INDEX, f"referrers of {subject}")
            known = list(index.manifests) if isinstance(index, oci.Index) else []
        except Missing:
            known = []
        if any(one.digest == document.digest for one in known):
            return
        known.append(referrer(document))
        await self.manifest(index_of(known), tag)


def referrer(document: Document) -> oci.Descriptor:
    """Return how a list of referrers names the document."""
    value = oci.strict(document.content, "manifest")
    config = value.get("config")
    kind = str(value.get("artifactType") or (config.get("mediaType", "") if isinstance(config, dict) else ""))
    annotations = value.get("annotations")
    return oci.Descriptor(
        media_type=document.media_type, digest=document.digest, size=document.size, artifact_type=kind or None,
        annotations=annotations if isinstance(annotations, dict) else None,
    )  # fmt: skip


def index_of(manifests: list[oci.Descriptor]) -> Document:
    """Return an index of `manifests`."""
    import msgspec

    from sampan.oci.digest import of

    body = {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": msgspec.to_builtins(manifests)}
    content = msgspec.json.encode(body)
    return Document(content, oci.OCI_INDEX, of(content))


def subject_of(content: bytes) -> Digest | None:
    """Return what a manifest refers to.  Raises InvalidRequest."""
    value = oci.strict(content, "manifest").get("subject")
    if not isinstance(value, dict):
        return None
    from sampan.oci.digest import parse

    return parse(str(value.get("digest", "")))


async def _counted(chunks: AsyncIterator[bytes], sent: Callable[[int], None]) -> AsyncIterator[bytes]:
    total = 0
    async for data in chunks:
        yield data
        total += len(data)
        sent(total)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1 << 18):
        yield data[at : at + (1 << 18)]


def _with_digest(location: str, digest: Digest) -> str:
    url = URL(location, encoded=True)
    if not url.host:
        raise InvalidRequest(f"upload location {location[:200]!r}")
    return f"{location}{'&' if url.raw_query_string else '?'}digest={digest}"
