"""A container's files: read, ask, reply."""

from __future__ import annotations

import asyncio
import base64

import msgspec

from sampan.api.backend import ByteStream
from sampan.api.request import Request, Response, empty, reply
from sampan.api.routes import named, route
from sampan.errors import InvalidRequest
from sampan.wire.archive import CommitOptions, PathStat
from sampan.wire.containers import ContainerConfig

TAR = b"application/x-tar"


def _header(stat: PathStat) -> bytes:
    return b"X-Docker-Container-Path-Stat: " + base64.b64encode(msgspec.json.encode(stat)) + b"\r\n"


@route("HEAD", "/containers/{}/archive", job="container_archive_info")
async def info(request: Request) -> Response:
    """ContainerArchiveInfo.  200 and a header; 400 no path, 404."""
    found = await request.engine.containers.path_stat(named(request), request.query.text("path"))
    return Response(200, headers=_header(found))


@route("GET", "/containers/{}/archive", job="container_archive")
async def copy_out(request: Request) -> None:
    """ContainerArchive.  200 and a tar; 400 no path or no folder, 404."""
    request.cancellable = True
    found = await request.engine.containers.copy_out(named(request), request.query.text("path"))
    await _send(request, found, TAR, _header(found.stat))


@route("PUT", "/containers/{}/archive", job="container_extract")
async def copy_in(request: Request) -> Response:
    """PutContainerArchive.  200; 400 not a folder, a bad archive, 403 read-only, 404."""
    q = request.query
    await request.engine.containers.copy_in(
        named(request), q.text("path"), request.file(),
        keep_kinds=q.flag("noOverwriteDirNonDir"), as_user=q.flag("copyUIDGID"),
    )  # fmt: skip
    return empty(200)


@route("GET", "/containers/{}/export", job="export")
async def export(request: Request) -> None:
    """ContainerExport.  200 and a tar; 404."""
    request.cancellable = True
    await _send(request, await request.engine.containers.export(named(request)), b"application/octet-stream")


@route("GET", "/containers/{}/changes", job="container_changes")
async def changes(request: Request) -> Response:
    """ContainerChanges.  200, null for none; 404."""
    request.cancellable = True
    return reply(await request.engine.containers.changes(named(request)) or None)


@route("POST", "/commit", job="commit")
async def commit(request: Request) -> Response:
    """ImageCommit.  201; 400 bad reference or changes, 404, 409 being removed."""
    q = request.query
    ref = q.text("container")
    if not ref:
        raise InvalidRequest("the container to commit is not given")
    options = CommitOptions(
        repo=q.text("repo"), tag=q.text("tag"), comment=q.text("comment"), author=q.text("author"),
        pause=q.flag("pause", True), changes=[line for text in q.all("changes") for line in text.split("\n") if line.strip()],
    )  # fmt: skip
    body = await request.json(ContainerConfig, ContainerConfig())
    return reply(await request.engine.containers.commit(ref, options, body), 201)


async def _send(request: Request, found: ByteStream, kind: bytes, headers: bytes = b"") -> None:
    chunks = found.chunks()
    try:
        stream = await request.begin(200, kind, headers)
        async for chunk in chunks:
            await stream.send(chunk)
        stream.end()
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await asyncio.shield(close())
        await asyncio.shield(found.close())
