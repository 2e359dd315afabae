"""Containers: read, ask, reply."""

from __future__ import annotations

import asyncio

from sampan.api import hijack, phrases, query
from sampan.api.request import Request, Response, empty, refuse, reply
from sampan.api.routes import named, route
from sampan.errors import InvalidRequest, SampanError, Unsupported
from sampan.wire import containers as c
from sampan.wire import system as s


@route("GET", "/containers/json", job="containers")
async def listing(request: Request) -> Response:
    """ContainerList.  200; 400 bad filter or limit."""
    q = request.query
    found = await request.engine.containers.list(
        all=q.flag("all"), limit=q.number("limit") or 0, size=q.flag("size"), filters=q.filters("containers")
    )
    return reply([request.lower(one) for one in found])


@route("POST", "/containers/create", job="create")
async def create(request: Request) -> Response:
    """ContainerCreate.  201; 400 bad body or name, 404 no such image, 409 name in use."""
    name = query.container_name(request.query.text("name"))
    body = await request.json(c.CreateBody)
    if body == c.CreateBody():
        raise InvalidRequest(phrases.EMPTY_CONFIG)
    platform = request.query.text("platform") if request.version >= (1, 41) else ""
    return reply(await request.engine.containers.create(name or None, body, platform), 201)


@route("GET", "/containers/{}/json", job="container_inspect")
async def inspect(request: Request) -> Response:
    """ContainerInspect.  200; 404."""
    found = await request.engine.containers.inspect(named(request), size=request.query.flag("size"))
    return reply(request.lower(found))


@route("POST", "/containers/{}/start", job="start")
async def start(request: Request) -> Response:
    """ContainerStart.  204, 304 already running; 400 a body, 404, 409, 501 a checkpoint."""
    if request.body.chunked or request.body.length > 7:
        raise InvalidRequest("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
    if request.query.text("checkpoint"):
        raise Unsupported("checkpointing is not supported yet")
    await request.engine.containers.start(named(request))
    return empty(204)


def _stop_options(request: Request) -> tuple[int | None, str]:
    """`t` in seconds and `signal`, which is older than 1.42 ignored."""
    seconds = request.query.number("t")
    if seconds is not None and not -1 <= seconds < 2**31:
        raise InvalidRequest(f"invalid timeout: {seconds}")
    text = query.signal_name(request.query.text("signal")) if request.version >= (1, 42) else ""
    return seconds, text


@route("POST", "/containers/{}/stop", job="stop")
async def stop(request: Request) -> Response:
    """ContainerStop.  204, 304 not running; 400 bad t or signal, 404."""
    seconds, text = _stop_options(request)
    await request.engine.containers.stop(named(request), timeout=seconds, signal=text)
    return empty(204)


@route("POST", "/containers/{}/restart", job="restart")
async def restart(request: Request) -> Response:
    """ContainerRestart.  204; 404."""
    seconds, text = _stop_options(request)
    await request.engine.containers.restart(named(request), timeout=seconds, signal=text)
    return empty(204)


@route("POST", "/containers/{}/kill", job="kill")
async def kill(request: Request) -> Response:
    """ContainerKill.  204; 400 bad signal, 404, 409 not running."""
    await request.engine.containers.kill(named(request), signal=query.signal_name(request.query.text("signal")))
    return empty(204)


@route("POST", "/containers/{}/rename", job="rename")
async def rename(request: Request) -> Response:
    """ContainerRename.  204; 400 bad name, 404, 409 name in use."""
    try:
        name = query.container_name(request.query.text("name"))
    except InvalidRequest as error:
        raise InvalidRequest(f"Error when allocating new name: {error}") from None
    if not name:
        raise InvalidRequest("Neither old nor new names may be empty")
    await request.engine.containers.rename(named(request), name)
    return empty(204)


@route("POST", "/containers/{}/pause", job="pause")
async def pause(request: Request) -> Response:
    """ContainerPause.  204; 404, 409."""
    await request.engine.containers.pause(named(request))
    return empty(204)


@route("POST", "/containers/{}/unpause", job="unpause")
async def unpause(request: Request) -> Response:
    """ContainerUnpause.  204; 404, 409."""
    await request.engine.containers.unpause(named(request))
    return empty(204)


@route("DELETE", "/containers/{}", job="delete")
async def remove(request: Request) -> Response:
    """ContainerDelete.  204; 404, 409 running; 501 for its checkpoints, whose path looks like a name."""
    if "/checkpoints/" in request.name:
        raise Unsupported("checkpointing is not supported yet")
    q = request.query
    await request.engine.containers.remove(named(request), force=q.flag("force"), volumes=q.flag("v"), link=q.flag("link"))
    return empty(204)


@route("POST", "/containers/prune", job="containers_prune", since="1.25")
async def prune(request: Request) -> Response:
    """ContainerPrune.  200; 400, 409."""
    return reply(await request.engine.containers.prune(request.query.filters("containers/prune")))


@route("POST", "/containers/{}/resize", job="resize")
async def resize(request: Request) -> Response:
    """ContainerResize.  200; 400 not numbers, 404, 409 not running."""
    height, width = request.query.uint32("h"), request.query.uint32("w")
    await request.engine.containers.resize(named(request), height=height, width=width)
    return empty(200)


@route("GET", "/containers/{}/top", job="top")
async def top(request: Request) -> Response:
    """ContainerTop.  200; 404, 409 not running."""
    return reply(await request.engine.containers.top(named(request), request.query.text("ps_args") or "-ef"))


@route("POST", "/containers/{}/wait", job="wait")
async def wait(request: Request) -> Response | None:
    """ContainerWait.  200 at once, the body when the condition is met; 400 bad condition, 404."""
    condition = request.query.text("condition") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise InvalidRequest(f"invalid condition: {condition[:64]!r}")
    request.cancellable = True
    old = request.version < (1, 30)  # they know no condition, and no head before the exit
    waiting = await request.engine.containers.registered_wait(named(request), "not-running" if old else condition)
    try:
        if old:
            return reply(await waiting.result())
        stream = await request.begin(200, b"application/json")
        await stream.send(reply(await waiting.result()).body)
        stream.end()
    finally:
        waiting.cancel()
    return None


@route("GET", "/containers/{}/logs", job="logs")
async def logs(request: Request) -> None:
    """ContainerLogs.  200 and a stream; 400 no stream chosen, 404."""
    options = _log_options(request.query)
    request.cancellable = True
    found = await request.engine.containers.logs(named(request), options)
    try:
        stream = await request.begin(200, hijack.stream_type(request, found.tty, upgraded=True))
        async for chunk in found.chunks():
            await stream.send(chunk)
        stream.end()
    finally:
        await asyncio.shield(found.close())


def _log_options(q: query.Query) -> s.LogOptions:
    if not (q.flag("stdout") or q.flag("stderr")):
        raise InvalidRequest(phrases.ONE_STREAM)
    tail = q.text("tail", "all")
    digits = tail.isascii() and tail.isdigit() and len(tail) < 19
    return s.LogOptions(
        follow=q.flag("follow"),
        stdout=q.flag("stdout"),
        stderr=q.flag("stderr"),
        since=q.time("since"),
        until=q.time("until"),
        timestamps=q.flag("timestamps"),
        tail=int(tail) if digits else -1,
        details=q.flag("details"),
    )


@route("POST", "/containers/{}/attach", job="attach")
async def attach(request: Request) -> None:
    """ContainerAttach.  101 or 200 and the streams; refusals are plain text on a raw head (2.1)."""
    q = request.query
    try:
        keys = query.detach_keys(q.text("detachKeys"))
        stream = await request.engine.containers.attach(
            named(request),
            stdin=q.flag("stdin"),
            stdout=q.flag("stdout"),
            stderr=q.flag("stderr"),
            stream=q.flag("stream"),
            logs=q.flag("logs"),
        )
    except SampanError as error:
        await hijack.refuse(request, refuse(error).status, str(error))
        return
    await hijack.attach(request, stream, keys if q.flag("stdin") else b"")
