"""Disk usage."""

from __future__ import annotations

from msgspec import UNSET, structs

from sampan.api.request import Request, Response, reply
from sampan.api.routes import route


@route("GET", "/system/df", job="system_df", since="1.25")
async def df(request: Request) -> Response:
    """SystemDataUsage.  200; 400 unknown type.  Before 1.42 everything is told, whatever type says."""
    kinds = tuple(request.query.all("type")) if request.version >= (1, 42) else ()
    found = await request.engine.system.usage(kinds)
    if found.build_cache is not UNSET:
        found = structs.replace(found, build_cache=await request.engine.builder.usage())
    return reply(found)
