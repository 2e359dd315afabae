"""Execs: read, ask, reply."""

from __future__ import annotations

import base64

from msgspec import structs

from sampan.api import hijack, phrases, query
from sampan.api.errors import message_of
from sampan.api.request import Request, Response, empty, reply
from sampan.api.routes import named, route
from sampan.errors import InvalidRequest, SampanError
from sampan.wire import containers as c


@route("POST", "/containers/{}/exec", job="exec_create")
async def create(request: Request) -> Response:
    """ContainerExec.  201; 400 no command, 404, 409 not running or paused."""
    body = await request.json(c.ExecCreate)
    if not body.cmd:
        raise InvalidRequest(phrases.NO_EXEC_COMMAND)
    query.detach_keys(body.detach_keys)
    return reply(await request.engine.execs.create(named(request), body), 201)


@route("POST", "/exec/{}/start", job="exec_start")
async def start(request: Request) -> Response | None:
    """ExecStart.  200 when detached, else 101 or 200 and the streams; 404, 409 before that, later failures in the stream."""
    body = await request.json(c.ExecStart, c.ExecStart())
    name = named(request)
    await request.engine.execs.prepare(name)
    if body.detach:
        await request.engine.execs.start(name, body)
        return empty(200)
    taken = hijack.take(request, body.tty, with_common=True)
    try:
        stream = await request.engine.execs.start(name, body)
    except SampanError as error:
        taken.fail(message_of(error))
        return None
    except BaseException:
        taken.fail("internal error")
        raise
    if stream is None:
        taken.fail("")
        return None
    keys = getattr(stream, "detach_keys", "")
    await taken.pump(stream, query.detach_keys(keys) if stream.tty else b"")
    return None


@route("POST", "/exec/{}/resize", job="exec_resize")
async def resize(request: Request) -> Response:
    """ExecResize.  200; 400, 404."""
    height, width = request.query.uint32("h"), request.query.uint32("w")
    await request.engine.execs.resize(named(request), height=height, width=width)
    return empty(200)


@route("GET", "/exec/{}/json", job="exec_inspect")
async def inspect(request: Request) -> Response:
    """ExecInspect.  200; 404.  DetachKeys are bytes, so base64 in JSON."""
    found = await request.engine.execs.inspect(named(request))
    keys = query.detach_keys(found.detach_keys) if found.detach_keys else b""
    return reply(structs.replace(found, detach_keys=base64.b64encode(keys).decode()))
