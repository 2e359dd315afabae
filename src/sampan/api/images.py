"""Images: read, ask, reply."""

from __future__ import annotations

from sampan.api import progress
from sampan.api.request import Request, Response, empty, reply
from sampan.api.routes import named, route
from sampan.errors import InvalidRequest


async def _provided(request: Request, refs: list[str], since: tuple[int, int], name: str = "platform") -> None:
    """Raise NotFound when the request names platforms that one of the images is not of."""
    texts = request.query.all(name) if request.version >= since else []
    if any(texts):
        await request.engine.images.provides(refs, [text for text in texts if text])


@route("GET", "/images/json", job="images")
async def listing(request: Request) -> Response:
    """ImageList.  200; 400 bad filter."""
    q = request.query
    wanted = q.filters("images")
    old = q.text("filter")  # before 1.41: one reference
    if old and request.version < (1, 41):
        wanted["reference"] = (*wanted.get("reference", ()), old)
    shared = q.flag("shared-size") and request.version >= (1, 42)
    manifests = q.flag("manifests") and request.version >= (1, 47)
    found = await request.engine.images.list(all=q.flag("all"), filters=wanted, shared_size=shared, manifests=manifests)
    return reply([request.lower(one) for one in found])


@route("GET", "/images/{}/json", job="image_inspect")
async def inspect(request: Request) -> Response:
    """ImageInspect.  200; 400, 404."""
    await _provided(request, [named(request)], (1, 49))
    return reply(request.lower(await request.engine.images.inspect(named(request))))


@route("GET", "/images/{}/history", job="image_history")
async def history(request: Request) -> Response:
    """ImageHistory.  200; 400, 404."""
    await _provided(request, [named(request)], (1, 48))
    return reply(await request.engine.images.history(named(request)))


@route("POST", "/images/{}/tag", job="tag")
async def tag(request: Request) -> Response:
    """ImageTag.  201; 400 bad reference, 404, 409."""
    await request.engine.images.tag(named(request), request.query.text("repo"), request.query.text("tag"))
    return empty(201)


@route("DELETE", "/images/{}", job="image_delete")
async def remove(request: Request) -> Response:
    """ImageDelete.  200; 400, 404, 409 in use."""
    q = request.query
    await _provided(request, [named(request)], (1, 50), "platforms")
    return reply(await request.engine.images.remove(named(request), force=q.flag("force"), prune=not q.flag("noprune")))


@route("POST", "/images/prune", job="images_prune", since="1.25")
async def prune(request: Request) -> Response:
    """ImagePrune.  200; 400, 409."""
    return reply(await request.engine.images.prune(request.query.filters("images/prune")))


@route("POST", "/images/load", job="load")
async def load(request: Request) -> None:
    """ImageLoad.  200 and progress; failures in-band."""
    async with progress.uploads.gate():
        only = [text for text in request.query.all("platform") if text] if request.version >= (1, 48) else []
        messages = request.engine.images.load(request.file(), quiet=request.query.flag("quiet", True), only=only)
        await progress.send(request, messages, in_band=True)


@route("POST", "/images/create", job="image_create")
async def create(request: Request) -> None:
    """ImageCreate.  200 and progress: a pull, or an import from the body or an address; 400, 403, 404, 500, 503."""
    q = request.query
    if q.text("fromImage"):
        platform = q.text("platform") if request.version >= (1, 32) else ""
        auth = request.header("x-registry-auth")
        messages = request.engine.images.pull(q.text("fromImage"), tag=q.text("tag"), platform=platform, auth=auth)
        await progress.send(request, messages)
        return
    source = q.text("fromSrc")
    if not source:
        raise InvalidRequest("either fromImage or fromSrc is needed")
    platform = q.text("platform") if request.version >= (1, 32) else ""
    wanted = {"repo": q.text("repo"), "tag": q.text("tag"), "message": q.text("message"), "platform": platform}
    async with progress.uploads.gate():
        images, changes = request.engine.images, q.all("changes")
        if source == "-":
            messages = images.import_(request.file(), changes=changes, **wanted)
        else:
            messages = images.import_from(source, changes=changes, **wanted)
        await progress.send(request, messages)


@route("POST", "/images/{}/push", job="push")
async def push(request: Request) -> None:
    """ImagePush.  200 and progress, failures in-band; 400 bad reference, 404 no such platform."""
    auth, tag = request.header("x-registry-auth"), request.query.text("tag")
    await _provided(request, [f"{named(request)}:{tag}" if tag else named(request)], (1, 46))
    messages = request.engine.images.push(named(request), tag=tag, auth=auth)
    await progress.send(request, messages)


@route("GET", "/images/search", job="search")
async def search(request: Request) -> Response:
    """ImageSearch.  200; 400, 500 the index cannot be reached, 501 registries that cannot be searched."""
    q = request.query
    found = await request.engine.images.search(
        q.text("term"),
        limit=q.number("limit", 0) or 0,
        filters=q.filters("images/search"),
        auth=request.header("x-registry-auth"),
    )
    return reply(found)


@route("GET", "/images/get", job="image_save")
async def save(request: Request) -> None:
    """ImageGetAll.  200 and a tar; 404."""
    names = request.query.all("names")
    if not names:
        raise InvalidRequest("no image names given")
    await _save(request, names)


@route("GET", "/images/{}/get", job="image_save")
async def save_one(request: Request) -> None:
    """ImageGet.  200 and a tar; 404."""
    await _save(request, [named(request)])


async def _save(request: Request, names: list[str]) -> None:
    await _provided(request, names, (1, 48))
    await progress.tar(request, request.engine.images.save(names))
