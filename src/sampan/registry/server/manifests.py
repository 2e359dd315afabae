"""End-points 3, 7, 8, 9 and 12: manifests, tags, referrers, and Docker's catalogue."""

from __future__ import annotations

import asyncio
import hashlib
import json
from urllib.parse import quote

from aiohttp import web

from sampan.errors import InvalidRequest
from sampan.oci import image as oci
from sampan.oci.digest import Digest, algorithm, of
from sampan.registry.server.faults import Fault, digest_of, number, reference
from sampan.registry.server.storage import Storage
from sampan.registry.upload import subject_of

BODY_TIME = 60.0  # seconds for a manifest to arrive
MOST = 1000  # entries of a page


class Manifests:
    """The documents of a registry."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def get(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        digest, stored = await asyncio.to_thread(self._storage.resolve, name, reference(rest))
        headers = {"Docker-Content-Digest": digest, "Content-Type": stored.media_type, "ETag": f'"{digest}"'}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(stored.size)})
        return web.Response(body=await asyncio.to_thread(self._storage.content, digest), headers=headers)

    async def put(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        wanted = reference(rest)
        media_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
        content = await _whole(request)
        digest = of(content)
        if ":" in wanted:
            digest = Digest(wanted)
            if f"{algorithm(digest)}:{hashlib.new(algorithm(digest), content).hexdigest()}" != digest:
                raise InvalidRequest("provided digest did not match uploaded content")
        if media_type not in oci.INDEX_TYPES | oci.MANIFEST_TYPES:
            raise Fault(400, "MANIFEST_INVALID", f"unsupported manifest type {media_type[:100]!r}")
        tags = [wanted] if ":" not in wanted else []
        lacks = await asyncio.to_thread(self._storage.put_manifest, name, digest, content, media_type, tags)
        if lacks:
            raise Fault(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry", {"digest": lacks[0]})
        headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        subject = subject_of(content)
        if subject is not None:
            headers["OCI-Subject"] = subject
        return web.Response(status=201, headers=headers)

    async def delete(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        await asyncio.to_thread(self._storage.delete, name, reference(rest))
        return web.Response(status=202)

    async def tags(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        found = await asyncio.to_thread(self._storage.tags, name)
        return _page(request, f"/v2/{name}/tags/list", found, {"name": name}, "tags")

    async def catalog(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        found = await asyncio.to_thread(self._storage.names)
        return _page(request, "/v2/_catalog", found, {}, "repositories")

    async def referrers(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        subject = digest_of(rest)
        wanted = request.query.get("artifactType", "")
        last = request.query.get("last", "")
        found = [
            (digest, stored)
            for digest, stored in await asyncio.to_thread(lambda: list(self._storage.referrers(name, subject)))
            if digest > last and (not wanted or stored.artifact_type == wanted)
        ]
        manifests = [
            {"mediaType": stored.media_type, "digest": digest, "size": stored.size,
             **({"artifactType": stored.artifact_type} if stored.artifact_type else {}),
             **({"annotations": dict(stored.annotations)} if stored.annotations else {})}
            for digest, stored in found[:MOST]
        ]  # fmt: skip
        body = json.dumps({"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": manifests}).encode()
        headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        if len(found) > MOST:
            kept = f"&artifactType={quote(wanted, safe='')}" if wanted else ""
            headers["Link"] = f'</v2/{name}/referrers/{subject}?last={found[MOST - 1][0]}{kept}>; rel="next"'
        return web.Response(body=body, headers={**headers, "Content-Type": oci.OCI_INDEX})


async def _whole(request: web.Request) -> bytes:
    """Return a manifest's body.  Raises Fault when it is too large or does not come."""
    parts: list[bytes] = []
    left = oci.MAX_DOCUMENT
    try:
        async with asyncio.timeout(BODY_TIME):
            async for data in request.content.iter_any():
                left -= len(data)
                if left < 0:
                    raise Fault(413, "SIZE_INVALID", f"manifest is larger than {oci.MAX_DOCUMENT} bytes")
                parts.append(data)
    except TimeoutError:
        raise Fault(408, "UNKNOWN", "the manifest did not arrive in time") from None
    return b"".join(parts)


def _page(request: web.Request, path: str, found: list[str], body: dict[str, object], key: str) -> web.Response:
    """Return the part of a sorted list that `n` and `last` ask for, with a link to what follows."""
    wanted = request.query.get("n")
    most = MOST if wanted is None else min(number(wanted), MOST)
    last = request.query.get("last", "")
    rest = [one for one in found if one > last]
    page = rest[:most]
    headers = {"Link": f'<{path}?n={most}&last={page[-1]}>; rel="next"'} if page and len(rest) > len(page) else {}
    return web.json_response({**body, key: page}, headers=headers)
