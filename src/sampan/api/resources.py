"""What containers use and may use: stats and update."""

from __future__ import annotations

import msgspec
from msgspec import structs

from sampan.api.request import Request, Response, reply
from sampan.api.routes import named, route
from sampan.wire import resources as r


@route("GET", "/containers/{}/stats", job="stats")
async def stats(request: Request) -> Response | None:
    """ContainerStats.  200, one sample or one a second; 404."""
    query, ref = request.query, named(request)
    containers = request.engine.containers
    if not query.flag("stream", default=True):
        one_shot = query.flag("one-shot") and request.version >= (1, 41)
        return reply(await containers.stats(ref, one_shot=one_shot))
    source = containers.stats_stream(ref)
    request.cancellable = True
    stream = await request.begin(200, b"application/json")
    try:
        async for found in source:
            await stream.send(msgspec.json.encode(found) + b"\n")
        stream.end()
    finally:
        await source.aclose()
    return None


@route("POST", "/containers/{}/update", job="update")
async def update(request: Request) -> Response:
    """ContainerUpdate.  200; 400 bad values, 404, 409 what contradicts the container's own."""
    body = await request.json(r.UpdateBody)
    if request.version < (1, 40):
        body = structs.replace(body, pids_limit=None)
    return reply(await request.engine.containers.update(named(request), body))
