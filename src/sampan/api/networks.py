"""Networks: read, ask, reply."""

from __future__ import annotations

from sampan.api.request import Request, Response, reply
from sampan.api.routes import named, route


@route("GET", "/networks", job="networks")
@route("GET", "/networks/", job="networks")
async def listing(request: Request) -> Response:
    """NetworkList.  200; 400 bad filter."""
    return reply(await request.engine.networks.list(request.query.filters("networks")))


@route("GET", "/networks/{}", job="network_inspect")
async def inspect(request: Request) -> Response:
    """NetworkInspect.  200; 400 ambiguous, 404."""
    q = request.query
    found = await request.engine.networks.inspect(named(request), verbose=q.strict_flag("verbose"), scope=q.text("scope"))
    return reply(found)
