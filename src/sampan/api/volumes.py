"""Volumes: read, ask, reply."""

from __future__ import annotations

from sampan.api import phrases
from sampan.api.request import Request, Response, empty, reply
from sampan.api.routes import named, route
from sampan.errors import Unavailable
from sampan.wire import volumes as v


@route("GET", "/volumes", job="volumes")
async def listing(request: Request) -> Response:
    """VolumeList.  200; 400 bad filter."""
    return reply(await request.engine.volumes.list(request.query.filters("volumes")))


@route("POST", "/volumes/create", job="volume_create")
async def create(request: Request) -> Response:
    """VolumeCreate.  201, also for one that is there; 400 bad name or option, 404 no such driver."""
    return reply(await request.engine.volumes.create(await request.json(v.CreateBody)), 201)


@route("GET", "/volumes/{}", job="volume_inspect")
async def inspect(request: Request) -> Response:
    """VolumeInspect.  200; 404."""
    return reply(await request.engine.volumes.inspect(named(request)))


@route("PUT", "/volumes/{}", job="volume_update", since="1.42")
async def update(request: Request) -> Response:
    """VolumeUpdate, of swarm's cluster volumes only.  404, 503 no swarm."""
    await request.engine.volumes.inspect(named(request))
    raise Unavailable(phrases.NOT_A_MANAGER)


@route("DELETE", "/volumes/{}", job="volume_delete")
async def remove(request: Request) -> Response:
    """VolumeDelete.  204; 404 unless forced, 409 in use."""
    await request.engine.volumes.remove(named(request), force=request.query.flag("force"))
    return empty(204)


@route("POST", "/volumes/prune", job="volumes_prune", since="1.25")
async def prune(request: Request) -> Response:
    """VolumePrune.  200; 400 bad filter, 409 another prune runs.  Before 1.42 named volumes went too."""
    filters = request.query.filters("volumes/prune")
    if request.version < (1, 42):
        filters = {**filters, "all": ("true",)}
    return reply(await request.engine.volumes.prune(filters))
