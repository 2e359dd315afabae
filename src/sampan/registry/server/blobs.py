"""End-points 2, 4, 5, 6, 10, 11, 13 and 14: blobs and their uploads, in ranges and chunks, kept over restarts."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import aiohttp
from aiohttp import web

from sampan.errors import InvalidRequest
from sampan.oci.digest import Digest
from sampan.oci.reference import is_path
from sampan.registry.server.faults import Fault, digest_of
from sampan.registry.server.storage import Storage
from sampan.registry.streams import to_the_last

STALL = 60.0  # seconds without a byte, in either direction, after which a request ends; what came is kept
SLOW = 64 << 10  # bytes a minute below which a client counts as stalled
_CHUNK = 1 << 20
T = TypeVar("T")


class Blobs:
    """The blobs of a registry.  received, sent: bytes so far."""

    def __init__(self, storage: Storage, max_blob: int) -> None:
        self._storage = storage
        self._max = max_blob
        self._busy: set[str] = set()
        self.received = 0
        self.sent = 0

    async def get(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        digest = digest_of(rest)
        path, size = await asyncio.to_thread(self._storage.blob, name, digest)
        headers = {"Docker-Content-Digest": digest, "ETag": f'"{digest}"', "Content-Type": "application/octet-stream"}
        start, end = _range(request.headers.get("Range", ""), size)
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(size), "Accept-Ranges": "bytes"})
        whole = (start, end) == (0, size)
        headers |= {"Content-Length": str(end - start), "Accept-Ranges": "bytes"}
        if not whole:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        response = web.StreamResponse(status=200 if whole else 206, headers=headers)
        await response.prepare(request)
        pace = _Pace()
        with open(path, "rb") as file:  # opened at once: a collector cannot take it away any more
            file.seek(start)
            left = end - start
            while left and (data := await asyncio.to_thread(file.read, min(_CHUNK, left))):
                try:
                    await pace.kept(response.write(data), len(data))
                except Fault:
                    if request.transport is not None:
                        request.transport.abort()  # nothing can be said to who does not read
                    raise
                self.sent += len(data)
                left -= len(data)
        await response.write_eof()
        return response

    async def delete(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        await asyncio.to_thread(self._storage.unlink, name, digest_of(rest))
        return web.Response(status=202)

    # Uploads

    async def begin(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        """Mount, take a whole blob, or begin an upload."""
        query = request.query
        if rest:
            raise Fault(405, "UNSUPPORTED", "The operation is unsupported.")
        if "mount" in query and "from" in query:
            digest, source = digest_of(query["mount"]), query["from"]
            if is_path(source) and await asyncio.to_thread(self._storage.has_blob, source, digest):
                await asyncio.to_thread(self._storage.link, name, digest)
                return self._made(name, digest)
        upload = await asyncio.to_thread(self._storage.begin, name)
        if "digest" in query:
            digest = digest_of(query["digest"])
            await self._append(request, name, upload)
            return await self._finish(name, upload, digest)
        return self._under_way(name, upload, 0, 202)

    async def patch(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        return self._under_way(name, rest, await self._append(request, name, rest), 202)

    async def put(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        digest = digest_of(request.query.get("digest", ""))
        await self._append(request, name, rest)
        return await self._finish(name, rest, digest)

    async def status(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        path = await asyncio.to_thread(self._storage.upload, name, rest)
        return self._under_way(name, rest, path.stat().st_size, 204)

    async def cancel(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        await asyncio.to_thread(self._storage.cancel, name, rest)
        return web.Response(status=204)

    async def _finish(self, name: str, upload: str, digest: Digest) -> web.StreamResponse:
        try:
            await asyncio.to_thread(self._storage.finish, name, upload, digest)
        except InvalidRequest:
            await asyncio.to_thread(self._storage.cancel, name, upload)
            raise
        return self._made(name, digest)

    async def _append(self, request: web.Request, name: str, upload: str) -> int:
        """Add the body to an upload and return its size; one request at a time writes to it.

        A body that breaks off leaves what came: the client asks how much that was, and goes on.
        """
        path = await asyncio.to_thread(self._storage.upload, name, upload)
        if upload in self._busy:
            raise Fault(409, "BLOB_UPLOAD_INVALID", "another request writes to this upload")
        self._busy.add(upload)
        try:
            return await self._write(request, path, upload, name)
        finally:
            self._busy.discard(upload)

    async def _write(self, request: web.Request, path: Path, upload: str, name: str) -> int:
        with open(path, "ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            stated = request.headers.get("Content-Range", "")
            if stated and _start(stated) != size:
                headers = {"Location": f"/v2/{name}/blobs/uploads/{upload}", "Range": f"0-{max(0, size - 1)}"}
                raise Fault(416, "RANGE_INVALID", f"the upload is at byte {size}", headers=headers)
            try:
                async for data in _patiently(request):
                    size += len(data)
                    if size > self._max:
                        await asyncio.to_thread(self._storage.cancel, name, upload)
                        raise Fault(413, "SIZE_INVALID", f"blob is larger than {self._max} bytes")
                    await asyncio.to_thread(_write_all, file.fileno(), data)
                    self.received += len(data)
            except (aiohttp.ClientError, ConnectionError) as error:
                raise Fault(400, "SIZE_INVALID", "the upload broke off") from error
            return size

    @staticmethod
    def _under_way(name: str, upload: str, size: int, status: int) -> web.Response:
        headers = {
            "Location": f"/v2/{name}/blobs/uploads/{upload}", "Range": f"0-{max(0, size - 1)}", "Docker-Upload-UUID": upload,
        }  # fmt: skip
        return web.Response(status=status, headers=headers)

    @staticmethod
    def _made(name: str, digest: Digest) -> web.Response:
        headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
        return web.Response(status=201, headers=headers)


async def _patiently(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body as it comes.  Raises Fault when nothing does, what aiohttp raises when it breaks off."""
    stream, pace = to_the_last(request.content), _Pace()
    try:
        while True:
            data = await pace.kept(anext(stream))
            pace.went(len(data))
            yield data
    except StopAsyncIteration:
        return


class _Pace:
    """How fast a body goes; neither silence nor a byte now and then holds a place for ever."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._bytes = 0

    async def kept(self, step: Awaitable[T], size: int = 0) -> T:
        """Return what `step` gives.  Raises Fault when that takes too long, or the minute brought too little."""
        try:
            async with asyncio.timeout(STALL):
                result = await step
        except TimeoutError:
            raise Fault(408, "UNKNOWN", "the transfer has stalled") from None
        self.went(size)
        return result

    def went(self, size: int) -> None:
        """Count bytes.  Raises Fault."""
        self._bytes += size
        taken = time.monotonic() - self._begun
        if taken > STALL:
            if self._bytes < SLOW * taken / 60:
                raise Fault(408, "UNKNOWN", "the transfer has stalled")
            self._begun, self._bytes = time.monotonic(), 0


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _start(text: str) -> int:
    first = text.removeprefix("bytes ").partition("-")[0]
    if not (first.isascii() and first.isdigit() and len(first) < 19):
        raise Fault(416, "RANGE_INVALID", "invalid content range")
    return int(first)


def _range(text: str, size: int) -> tuple[int, int]:
    """Return (start, end) of a Range header; everything when there is none or it is of another kind.  Raises Fault."""
    if not text.startswith("bytes=") or "," in text:
        return 0, size
    first, _, last = text.removeprefix("bytes=").partition("-")
    if any(part and not (part.isascii() and part.isdigit() and len(part) < 19) for part in (first, last)) or not first + last:
        return 0, size
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= size or start >= end:
        raise Fault(416, "RANGE_INVALID", "the range is beyond the blob", headers={"Content-Range": f"bytes */{size}"})
    return start, end
