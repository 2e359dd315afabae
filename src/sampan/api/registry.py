"""Registries: logging in, and what one has under a name."""

from __future__ import annotations

from sampan.api.request import Request, Response, reply
from sampan.api.routes import named, route
from sampan.wire.registry import AuthConfig


@route("POST", "/auth", job="auth")
async def auth(request: Request) -> Response:
    """SystemAuth.  200; 400 bad JSON, 401 wrong credentials, 500."""
    return reply(await request.engine.images.login(await request.json(AuthConfig)))


@route("GET", "/distribution/{}/json", job="distribution", since="1.30")
async def distribution(request: Request) -> Response:
    """DistributionInspect.  200; 400, 401, 404."""
    return reply(await request.engine.images.distribution(named(request), auth=request.header("x-registry-auth")))
