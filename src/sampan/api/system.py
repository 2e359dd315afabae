"""Ping, version, info, events."""

from __future__ import annotations

import msgspec

from sampan.api.query import timestamp
from sampan.api.request import Request, Response, reply
from sampan.api.routes import route
from sampan.errors import InvalidRequest

_PING = b"Builder-Version: 1\r\nSwarm: inactive\r\nCache-Control: no-cache, no-store, must-revalidate\r\nPragma: no-cache\r\n"
_OK = Response(200, b"OK", b"text/plain; charset=utf-8", _PING)


@route("GET", "/_ping")
@route("HEAD", "/_ping")
async def ping(request: Request) -> Response:
    """SystemPing.  200, also as HEAD."""
    return _OK


@route("GET", "/version")
async def version(request: Request) -> Response:
    """SystemVersion.  200."""
    return reply(await request.engine.system.version())


@route("GET", "/info", job="info")
async def info(request: Request) -> Response:
    """SystemInfo.  200."""
    return reply(request.lower(await request.engine.system.info()))


@route("GET", "/events", job="events")
async def events(request: Request) -> None:
    """SystemEvents.  200 and a stream of JSON lines until `until`, or until the client leaves; 400 bad times or filters."""
    query = request.query
    since, until = query.text("since"), query.text("until")
    start, end = timestamp(since), timestamp(until)
    if start and end and start > end:
        raise InvalidRequest(f"`since` time ({since}) cannot be after `until` time ({until})")
    source = request.engine.system.events(since=since, until=until, filters=query.filters("events"))
    kind, before = _events_kind(request)
    stream = await request.begin(200, kind)
    encode = msgspec.json.encode
    async for event in source:
        await stream.send(before + encode(event) + b"\n")
    stream.end()


def _events_kind(request: Request) -> tuple[bytes, bytes]:
    """The content type and what stands before each record (2.5; RFC 7464 for json-seq)."""
    accepted = [item.split(";")[0].strip().lower() for item in request.header("accept").split(",")]
    for kind in ("application/json-seq", "application/x-ndjson", "application/jsonl"):
        if kind in accepted:
            return kind.encode(), b"\x1e" if kind.endswith("seq") else b""
    return b"application/json", b""
