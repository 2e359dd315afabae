"""Endpoints whose answer does not need an engine yet: empty lists, no swarm, and what is still to come."""

from __future__ import annotations

from sampan.api import phrases
from sampan.api.request import Request, Response, reply
from sampan.api.routes import Handler, route
from sampan.errors import NotFound, Unavailable, Unsupported


@route("GET", "/plugins", job="plugins", since="1.25")
async def plugins(request: Request) -> Response:
    """PluginList.  200, none."""
    request.query.filters("plugins")
    return reply([])


@route("GET", "/plugins/{}/json", job="plugin_inspect", since="1.25")
async def plugin(request: Request) -> Response:
    """PluginInspect.  404."""
    raise NotFound(f'plugin "{request.name}" not found')


def _later(what: str) -> Handler:
    async def handler(request: Request) -> Response:
        raise Unsupported(f"{what} is not supported yet")

    return handler


async def _no_swarm(request: Request) -> Response:
    raise Unavailable(phrases.NOT_A_MANAGER)


LATER = (
    ("POST", "/session", "BuildKit's session (DOCKER_BUILDKIT=0 uses the builder that is here)"),
    ("POST", "/grpc", "BuildKit's gRPC (DOCKER_BUILDKIT=0 uses the builder that is here)"),
    ("GET", "/containers/{}/checkpoints", "checkpointing"),
    ("POST", "/containers/{}/checkpoints", "checkpointing"),
    ("POST", "/plugins/pull", "installing plugins"),
    ("POST", "/plugins/create", "installing plugins"),
    ("POST", "/swarm/init", "swarm"),
    ("POST", "/swarm/join", "swarm"),
)

SWARM = (
    ("GET", "/swarm"),
    ("POST", "/swarm/leave"),
    ("POST", "/swarm/update"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/unlock"),
    *((method, f"/{family}") for family in ("nodes", "services", "tasks", "secrets", "configs") for method in ("GET",)),
    *(
        (method, f"/{family}/{{}}")
        for family in ("nodes", "services", "secrets", "configs")
        for method in ("GET", "POST", "DELETE")
    ),
    ("GET", "/tasks/{}"),
)

for _method, _path, _what in LATER:
    route(_method, _path, job="unsupported")(_later(_what))
for _method, _path in SWARM:
    route(_method, _path)(_no_swarm)
