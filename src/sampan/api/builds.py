"""Builds that were: Sampan's own part of the API."""

from __future__ import annotations

from sampan.api.request import Request, Response, empty, reply
from sampan.api.routes import named, route


@route("GET", "/sampan/builds", job="build_list")
async def listed(request: Request) -> Response:
    """Every build that is remembered, the newest first.  200."""
    return reply(await request.engine.builder.builds())


@route("GET", "/sampan/builds/{}", job="build_inspect")
async def one(request: Request) -> Response:
    """A build with its steps, by the begin of its id.  200; 400, 404."""
    return reply(await request.engine.builder.inspect(named(request)))


@route("GET", "/sampan/builds/{}/log", job="build_log")
async def log(request: Request) -> Response:
    """What a build said.  200 and text; 400, 404."""
    return Response(200, await request.engine.builder.said(named(request)), b"text/plain; charset=utf-8")


@route("DELETE", "/sampan/builds/{}", job="build_forget")
async def forget(request: Request) -> Response:
    """204; 400 while it runs, 404."""
    await request.engine.builder.forget(named(request))
    return empty(204)
