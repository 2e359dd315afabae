"""The registry's HTTP: distribution-spec 1.1 on aiohttp, end-points 1 to 14, with access, metrics and limits around them.

Names and digests are checked before anything is looked up; every answer of 400 and above has the specification's error body.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from aiohttp import web

from sampan.errors import SampanError
from sampan.registry.server.access import Access
from sampan.registry.server.blobs import Blobs
from sampan.registry.server.faults import Fault, fault_of, split
from sampan.registry.server.manifests import Manifests
from sampan.registry.server.storage import Storage

VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
MAX_REQUESTS = 256  # at a time; more are told to come again
MAX_OF_ONE = 128  # of one address
PROVING = 2  # passwords checked at a time: a hash is slow on purpose, and threads are few
MAX_PROOFS = 64  # passwords waiting to be checked
READING = frozenset(("GET", "HEAD"))


class Registry:
    """The application.  realm: where tokens are had, as clients reach it."""

    def __init__(self, storage: Storage, access: Access, *, read_only: bool = False, max_blob: int = 1 << 40) -> None:
        self._storage = storage
        self._access = access
        self._read_only = read_only
        self._manifests = Manifests(storage)
        self._blobs = Blobs(storage, max_blob)
        self._seen: Counter[tuple[str, int]] = Counter()
        self._running: Counter[str] = Counter()  # requests by address
        self._proofs = 0
        self._proving = asyncio.Semaphore(PROVING)
        self._begun = time.time()

    def application(self) -> web.Application:
        made = web.Application(client_max_size=0)
        made.router.add_route("*", "/v2{rest:.*}", self._guarded)
        made.router.add_get("/token", self._token)
        made.router.add_get("/metrics", self._metrics)
        return made

    async def _guarded(self, request: web.Request) -> web.StreamResponse:
        """Answer, and count the answer."""
        address = request.remote or ""
        self._running[address] += 1
        response: web.StreamResponse
        try:
            if self._running[address] > MAX_OF_ONE or self._running.total() > MAX_REQUESTS:
                raise _too_many()
            response = await self._answer(request)
        except Fault as fault:
            response = fault.response()
        except (SampanError, OSError) as caught:
            response = fault_of(caught).response()
        finally:
            self._running[address] -= 1
            if not self._running[address]:
                del self._running[address]
        self._seen[request.method, response.status] += 1
        if not response.prepared:
            response.headers.update(VERSION)
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["rest"]
        name, verb, rest = split(path)
        header = request.headers.get("Authorization", "")
        allowed = self._access.allowed(header, request.method, name)
        if allowed is None:
            allowed = await self._prove(header) is not None
        if not allowed:
            realm = f"{request.scheme}://{request.host}/token"
            challenge = self._access.challenge(realm, request.method, name)
            raise Fault(401, "UNAUTHORIZED", "authentication required", headers={"WWW-Authenticate": challenge})
        if self._read_only and request.method not in READING:
            raise Fault(405, "UNSUPPORTED", "this registry is read-only")
        if verb == "":
            return web.json_response({})
        handler = self._handlers().get((verb, "GET" if request.method == "HEAD" else request.method))
        if handler is None:
            raise Fault(405, "UNSUPPORTED", "The operation is unsupported.")
        return await handler(request, name, rest)

    async def _prove(self, header: str) -> str | None:
        """Return the user that a password proves.  Raises Fault when too many wait for that."""
        if self._proofs >= MAX_PROOFS:
            raise _too_many()
        self._proofs += 1
        try:
            async with self._proving:
                return self._access.known(header) or await asyncio.to_thread(self._access.user, header)
        finally:
            self._proofs -= 1

    def _handlers(self) -> dict[tuple[str, str], Callable[[web.Request, str, str], Awaitable[web.StreamResponse]]]:
        return {
            ("_catalog", "GET"): self._manifests.catalog, ("tags", "GET"): self._manifests.tags,
            ("referrers", "GET"): self._manifests.referrers, ("manifests", "GET"): self._manifests.get,
            ("manifests", "PUT"): self._manifests.put, ("manifests", "DELETE"): self._manifests.delete,
            ("blobs", "GET"): self._blobs.get, ("blobs", "DELETE"): self._blobs.delete,
            ("uploads", "POST"): self._blobs.begin, ("uploads", "PATCH"): self._blobs.patch, ("uploads", "PUT"): self._blobs.put,
            ("uploads", "GET"): self._blobs.status, ("uploads", "DELETE"): self._blobs.cancel,
        }  # fmt: skip

    async def _token(self, request: web.Request) -> web.StreamResponse:
        """Give a token to who proves a user with a password; everybody else is told so."""
        if not self._access.tokens:
            return Fault(404, "UNSUPPORTED", "this registry gives no tokens").response()
        header = request.headers.get("Authorization", "")
        try:
            user = self._access.known(header) or await self._prove(header)
        except Fault as fault:
            return fault.response()
        if user is None:
            return Fault(401, "UNAUTHORIZED", "incorrect username or password").response()
        scopes = [one for text in parse_qs(request.query_string).get("scope", [])[:16] for one in text.split(" ")[:16]]
        token = self._access.issue(user, scopes)
        return web.json_response({"token": token, "access_token": token, "expires_in": 300})

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        """Prometheus' text format."""
        lines = ["# TYPE sampan_registry_requests_total counter"]
        lines += [
            f'sampan_registry_requests_total{{method="{method}",status="{status}"}} {count}'
            for (method, status), count in sorted(self._seen.items())
        ]
        for word, value in (("received", self._blobs.received), ("sent", self._blobs.sent)):
            lines += [f"# TYPE sampan_registry_{word}_bytes_total counter", f"sampan_registry_{word}_bytes_total {value}"]
        lines += ["# TYPE sampan_registry_start_time_seconds gauge", f"sampan_registry_start_time_seconds {self._begun:.0f}"]
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")


def _too_many() -> Fault:
    return Fault(429, "TOOMANYREQUESTS", "too many requests", headers={"Retry-After": "1"})
