"""Networks: read, ask, reply."""

from __future__ import annotations

from sampan.api.request import Request, Response, empty, reply
from sampan.api.routes import named, route
from sampan.wire import networks as n


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


@route("POST", "/networks/create", job="network_create")
async def create(request: Request) -> Response:
    """NetworkCreate.  201; 400 bad name or addresses, 403 predefined or overlap, 404 no such driver, 409 name in use."""
    return reply(await request.engine.networks.create(await request.json(n.NetworkCreate)), 201)


@route("POST", "/networks/{}/connect", job="network_connect")
async def connect(request: Request) -> Response:
    """NetworkConnect.  200; 400 bad settings, 403 there already, 404."""
    body = await request.json(n.NetworkConnect)
    await request.engine.networks.connect(named(request), body)
    return empty(200)


@route("POST", "/networks/{}/disconnect", job="network_disconnect")
async def disconnect(request: Request) -> Response:
    """NetworkDisconnect.  200; 404, 500 not connected."""
    body = await request.json(n.NetworkDisconnect)
    await request.engine.networks.disconnect(named(request), body)
    return empty(200)


@route("DELETE", "/networks/{}", job="network_delete")
async def remove(request: Request) -> Response:
    """NetworkDelete.  204; 403 predefined or in use, 404."""
    await request.engine.networks.remove(named(request))
    return empty(204)


@route("GET", "/sampan/networks/audit", job="network_audit")
async def audit(request: Request) -> Response:
    """What is reachable from where.  200."""
    return reply(await request.engine.networks.audit())


@route("POST", "/sampan/networks/repair", job="network_repair")
async def repair(request: Request) -> Response:
    """Make again what somebody took from the host.  200."""
    return reply(await request.engine.networks.repair())


@route("POST", "/networks/prune", job="networks_prune", since="1.25")
async def prune(request: Request) -> Response:
    """NetworkPrune.  200; 400 bad filter."""
    return reply(await request.engine.networks.prune(request.query.filters("networks/prune")))
