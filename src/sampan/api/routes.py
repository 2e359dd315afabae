"""From a request to its handler: paths, versions, the job around the work, and refusals on the way back."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from sampan.api import phrases
from sampan.api.query import Query, unescape
from sampan.api.request import Request, Response, refusal
from sampan.errors import InvalidRequest, NotFound
from sampan.wire import versions

Handler = Callable[[Request], Awaitable[Response | None]]

_VERSIONED = re.compile(r"/v([0-9.]+)(/.*)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
ARGUMENT_LIMIT = 120  # characters of a job's argument that are kept


@dataclass(frozen=True, slots=True)
class Route:
    """`prefix` and `suffix` stand around the greedy name; job is None for cheap reads that are not worth an entry."""

    method: str
    path: str
    handler: Handler
    job: str | None
    since: versions.Version


class Pattern(NamedTuple):
    prefix: str
    suffix: str
    route: Route


HIDDEN = frozenset({"buildargs", "remote", "sampan-context"})  # parameters whose values are nobody's business (SECURITY.md row 71)
TABLE: list[Route] = []


def route(method: str, path: str, job: str | None = None, since: str = "1.24") -> Callable[[Handler], Handler]:
    """Register a handler.  `{}` in the path is a name that may hold slashes."""

    def register(handler: Handler) -> Handler:
        TABLE.append(Route(method, path, handler, job, versions.parse(since)))
        return handler

    return register


class Router:
    """The routes, ready for look-up: exact paths first, then names between a prefix and a suffix, longest first."""

    def __init__(self, table: list[Route]) -> None:
        self._exact = {(r.method, r.path): r for r in table if "{}" not in r.path}
        self._named: dict[tuple[str, str], list[Pattern]] = {}
        for r in table:
            if "{}" in r.path:
                prefix, _, suffix = r.path.partition("{}")
                self._named.setdefault((r.method, r.path.split("/")[1]), []).append(Pattern(prefix, suffix, r))
        for patterns in self._named.values():
            patterns.sort(key=lambda p: (-len(p.suffix), -len(p.prefix)))

    def find(self, method: str, path: str) -> tuple[Route, str] | None:
        """Return the route and the name in its path."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, ""
        family = path.split("/", 2)[1]
        for prefix, suffix, found in self._named.get((method, family), ()):
            if path.startswith(prefix) and path.endswith(suffix) and len(path) >= len(prefix) + len(suffix):
                return found, path[len(prefix) : len(path) - len(suffix)]
        return None


def split(target: str) -> tuple[str, str, str]:
    """Return the version ("" when there is none), the path below it, and the query.  Raises InvalidRequest."""
    if not target.startswith("/"):
        target = _origin_form(target)
    path, _, query = target.partition("?")
    path = unescape(path)
    if _CONTROL.search(path):
        raise InvalidRequest("control character in the path")
    found = _VERSIONED.fullmatch(path)
    return (found[1], found[2], query) if found else ("", path, query)


def _origin_form(target: str) -> str:
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise InvalidRequest("malformed request target")
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def prepare(router: Router, request: Request) -> Route | Response:
    """Fill in the request's path, name, version and query; or answer it.  Raises InvalidRequest."""
    if request.method == "OPTIONS":
        return Response(200, plain=True)
    version, path, query = split(request.target)
    found = router.find(request.method, path)
    if found is None:
        return refusal(404, phrases.PAGE_NOT_FOUND, plain=True)
    chosen, request.name = found
    request.path = path
    if version:
        request.version = versions.parse(version)
        if request.version < versions.OLDEST:
            return Response(400, phrases.too_old(version, versions.MINIMUM).encode() + b"\n", b"text/plain; charset=utf-8")
        if request.version > versions.NEWEST:
            raise InvalidRequest(phrases.too_new(version, versions.MAXIMUM))
        if request.version < chosen.since:
            since = ".".join(map(str, chosen.since))
            raise InvalidRequest(phrases.needs_version(request.method, path, since))
    request.query = Query(query)
    return chosen


async def run(chosen: Route, request: Request) -> Response | None:
    """Do the work, as a job."""
    if chosen.job is None:
        return await chosen.handler(request)
    with request.engine.job(chosen.job, arguments(request)):
        return await chosen.handler(request)


def arguments(request: Request) -> dict[str, str]:
    """What of a request is worth showing in the job table: its name and query, never its body."""
    made = {"name": _shown(request.name)} if request.name else {}
    for name, value in request.query.items()[:16]:
        made[_shown(name)] = "..." if name in HIDDEN else _shown(value)
    return made


def _shown(text: str) -> str:
    if len(text) > ARGUMENT_LIMIT:
        text = text[:ARGUMENT_LIMIT] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]


def named(request: Request) -> str:
    """The object a path names.  Raises InvalidRequest when the name is empty."""
    if not request.name or request.name == "/":
        raise InvalidRequest(f'invalid name or ID supplied: "{request.name}"')
    return request.name


def missing(kind: str, name: str) -> NotFound:
    return NotFound(f"No such {kind}: {name}")
