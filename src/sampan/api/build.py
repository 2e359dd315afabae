"""The builder's door: the classic `POST /build`, and prune (engine-api: /build; dockerfile.md 8)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from typing import TypeVar

import msgspec

from sampan.api import progress
from sampan.api.query import Query
from sampan.api.request import Request, Response, reply
from sampan.api.routes import route
from sampan.build.exchange import parse_cache_from, parse_cache_to
from sampan.build.options import CacheTo, Options
from sampan.build.prune import Wanted
from sampan.build.scope import Request as Asked
from sampan.engine.images import platforms
from sampan.errors import InvalidRequest, Unsupported
from sampan.wire import containers as c

T = TypeVar("T")
_MAX_JSON = 4 << 20
PREFIXED = "application/vnd.sampan.build"  # a length, JSON with secrets, then the tar


@route("POST", "/build", job="build")
async def build(request: Request) -> None:
    """ImageBuild.  200 and progress; 400 for what is wrong with the request or the Dockerfile; later failures in-band."""
    q = request.query
    _refuse(q)
    prefixed = request.header("content-type").split(";")[0].strip().lower() == PREFIXED
    options = replace(options_of(q), auth=_auth(request.header("x-registry-config")), prefixed=prefixed)
    remote = q.text("remote")
    async with progress.uploads.gate():
        messages = request.engine.builder.build(request.file(), options, remote)
        await progress.send(request, messages)


@route("POST", "/sampan/context", job="build_context")
async def context(request: Request) -> Response:
    """Tell what a context has; the answer is what the build has to bring.  200; 400, 409 while a build has it."""
    async with progress.uploads.gate():
        return reply(await request.engine.builder.tell(request.query.text("key"), request.file()))


@route("POST", "/build/prune", job="build_prune", since="1.31")
async def prune(request: Request) -> Response:
    """BuildPrune.  200; 400 bad filter."""
    q = request.query
    reserved, used, free = (q.number(name, 0) or 0 for name in ("reserved-space", "max-used-space", "min-free-space"))
    reserved = max(reserved, q.number("keep-storage", 0) or 0)  # its name before 1.48
    wanted = Wanted(all=q.flag("all"), filters=q.filters("build/prune"), reserved=reserved, max_used=used, min_free=free)
    return reply(await request.engine.builder.prune(wanted))


@route("POST", "/sampan/cache", job="build_export")
async def exported(request: Request) -> None:
    """Cached steps as an OCI layout; the body lists their keys.  200 and a tar; 404."""
    keys = await request.json(list[str])
    await progress.tar(request, request.engine.builder.exported(keys))


@route("POST", "/build/cancel", job="build_cancel")
async def cancel(request: Request) -> Response:
    """Only for sessions of BuildKit: a classic build ends with its connection."""
    if not request.query.text("id"):
        raise InvalidRequest("build ID not provided")
    return Response(200)


def _refuse(q: Query) -> None:
    """What this builder does not do is said before the context is read."""
    version = q.text("version")
    if version not in ("", "1"):
        if version == "2":
            raise Unsupported("BuildKit sessions are not supported; this builder knows the whole language: DOCKER_BUILDKIT=0")
        raise InvalidRequest(f'invalid version "{version[:20]}"')
    if q.text("securityopt"):
        raise InvalidRequest("security options are not supported on linux")
    if q.text("isolation") not in ("", "default"):
        raise InvalidRequest(f"isolation {q.text('isolation')[:20]!r} is for Windows")


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    type: str = msgspec.field(name="Type", default="")
    attrs: dict[str, str] | None = msgspec.field(name="Attrs", default=None)


def _outputs(q: Query) -> tuple[str, ...]:
    """Return the names that `outputs` gives the image; it is kept here whatever they say.

    Raises InvalidRequest, Unsupported for what has no way back to the client, or would not be done.
    """
    names: list[str] = []
    for one in _json(q, "outputs", list[_Output]) or ():
        if one.type != "moby":
            raise Unsupported(
                f"output of type {one.type[:40]!r}: only moby, an image; `sampan build -o` writes folders and archives"
            )
        for name, value in (one.attrs or {}).items():
            if name == "name":
                names += [text for text in value.split(",") if text]
            elif (name, value) != ("type", "image"):
                raise Unsupported(f"output: {name[:40]}={value[:40]} is not supported: an image is compressed and pushed by push")
    return tuple(names)


def options_of(q: Query) -> Options:
    """Return what the query asks for.  Raises InvalidRequest, Unsupported."""
    arguments = _json(q, "buildargs", dict[str, str | None]) or {}
    labels = _json(q, "labels", dict[str, str]) or {}
    asked = Asked(
        target=q.text("target"), arguments=arguments, labels=labels, platform=_platform(q.text("platform")),
        build_platform=_platform(""), strict_platform=bool(q.text("platform")),
    )  # fmt: skip
    return Options(
        dockerfile=q.text("dockerfile") or "Dockerfile", tags=(*(t for t in q.all("t") if t), *_outputs(q)), request=asked,
        host=_host(q), no_cache=q.flag("nocache"), pull=q.flag("pull"), quiet=q.flag("q"), squash=q.flag("squash"),
        explain=q.flag("sampan-explain"), live=q.flag("sampan-live"), epoch=q.number("sampan-epoch"),
        check=q.flag("sampan-check"), plan=q.flag("sampan-plan"), no_cache_stages=frozenset(q.all("sampan-no-cache-filter")),
        contexts=_contexts(q), allow=frozenset(q.all("sampan-allow")), cache_from=_cache_from(q),
        cache_to=_cache_to(q, arguments), shown=q.text("sampan-file"),
    )  # fmt: skip


def _platform(text: str) -> str:
    """Return the platform that is meant, in full; this machine's for none.  Raises InvalidRequest."""
    found = platforms.parse(text)
    if found.os != "linux":
        raise InvalidRequest(f'operating system "{found.os[:40]}" is not supported')
    return "/".join(part for part in (found.os, found.architecture, found.variant) if part)


def _cache_from(q: Query) -> tuple[str, ...]:
    return tuple(parse_cache_from(one) for one in _json(q, "cachefrom", list[str]) or () if one)


def _cache_to(q: Query, arguments: dict[str, str | None]) -> tuple[CacheTo, ...]:
    inline = (arguments.get("BUILDKIT_INLINE_CACHE") or "").lower() in ("1", "true")
    return (*(parse_cache_to(one) for one in q.all("sampan-cache-to")), *([CacheTo("inline")] if inline else []))


def _contexts(q: Query) -> dict[str, str]:
    found = {}
    for one in q.all("sampan-context"):
        name, equals, source = one.partition("=")
        if not equals or name in found:
            raise InvalidRequest(f"invalid build context {one[:200]!r}: NAME=SOURCE is expected, each name once")
        found[name] = source
    return found


def _host(q: Query) -> c.HostConfig:
    def number(name: str) -> int:
        text = q.text(name)
        bare = text.removeprefix("-")
        return int(text) if bare.isascii() and bare.isdigit() and len(bare) < 19 else 0

    shm = q.text("shmsize")
    if shm and not (shm.isascii() and shm.isdigit() and len(shm) < 19):
        raise InvalidRequest(f"invalid shmsize: {shm[:40]}")
    return c.HostConfig(
        memory=number("memory"), memory_swap=number("memswap"), cpu_shares=number("cpushares"), cpu_period=number("cpuperiod"),
        cpu_quota=number("cpuquota"), cpuset_cpus=q.text("cpusetcpus"), cpuset_mems=q.text("cpusetmems"),
        cgroup_parent=q.text("cgroupparent"), shm_size=int(shm or 0), ulimits=_json(q, "ulimits", list[c.Ulimit]) or None,
        network_mode=q.text("networkmode") or "default", extra_hosts=[one for one in q.all("extrahosts") if one] or None,
    )  # fmt: skip


def _json(q: Query, name: str, kind: type[T]) -> T | None:
    text = q.text(name)
    if not text:
        return None
    if len(text) > _MAX_JSON:
        raise InvalidRequest(f"{name} is too long")
    try:
        return msgspec.json.decode(text, type=kind | None)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidRequest(f"error reading {name}: {str(error)[:200]}") from None


def _auth(header: str) -> dict[str, str]:
    """Return X-Registry-Config as the X-Registry-Auth of every registry."""
    if not header:
        return {}
    try:
        content = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        found = msgspec.json.decode(content, type=dict[str, dict[str, str]])
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return {}  # docker ignores what it cannot read
    made = {}
    for registry, config in found.items():
        name = registry.removeprefix("https://").removeprefix("http://").partition("/")[0]
        name = "docker.io" if name == "index.docker.io" else name
        made[name] = base64.urlsafe_b64encode(msgspec.json.encode({"serveraddress": registry, **config})).decode()
    return made
