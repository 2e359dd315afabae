"""What Sampan adds to Docker's API: the job table, explain, doctor, bootstrap, sbom."""

from __future__ import annotations

from sampan.api import progress
from sampan.api.request import Request, Response, reply
from sampan.api.routes import named, route
from sampan.errors import InvalidRequest


@route("GET", "/sampan/jobs")
async def jobs(request: Request) -> Response:
    """The running jobs, with `all` also the recent ones.  200."""
    return reply(await request.engine.system.jobs(all=request.query.flag("all")))


@route("GET", "/sampan/containers/{}/explain", job="explain")
async def explain(request: Request) -> Response:
    """What the kernel holds for a container.  200; 404."""
    return reply(await request.engine.system.explain(named(request)))


@route("GET", "/sampan/doctor", job="doctor")
async def doctor(request: Request) -> Response:
    """What this host has and lacks.  200."""
    return reply(await request.engine.system.doctor())


@route("POST", "/sampan/system/check", job="check")
async def check(request: Request) -> Response:
    """Every blob, layer and record looked at; with `repair`, what is broken is fetched or dropped.  200."""
    return reply(await request.engine.images.check(repair=request.query.flag("repair")))


@route("GET", "/sampan/images/{}/sbom", job="image_sbom")
async def sbom(request: Request) -> Response:
    """The SPDX document that is attached to an image.  200; 404."""
    return Response(200, await request.engine.images.sbom(named(request)), b"application/spdx+json")


@route("POST", "/sampan/images/bootstrap", job="bootstrap")
async def bootstrap(request: Request) -> None:
    """Make a base image from the distribution's packages.  200 and progress; 400 unknown recipe."""
    recipe = request.query.text("recipe")
    if not recipe:
        raise InvalidRequest("recipe is needed")
    await progress.send(request, request.engine.images.bootstrap(recipe, tag=request.query.text("tag")))
