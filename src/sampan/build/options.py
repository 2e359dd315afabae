"""What a build is asked for, and how it fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sampan.build.agents import Session
from sampan.build.scope import Request
from sampan.errors import InvalidRequest, SampanError
from sampan.wire.containers import HostConfig

EPOCH = "SOURCE_DATE_EPOCH"


ENTITLEMENTS = ("network.host", "security.insecure", "device")


def allowed(names: Iterable[str]) -> frozenset[str]:
    """Return what the daemon lets steps ask for.  Raises InvalidRequest for a name that means nothing."""
    found = frozenset(names)
    for name in sorted(found - set(ENTITLEMENTS)):
        raise InvalidRequest(f"build-allow: {name[:60]!r} is unknown: {', '.join(ENTITLEMENTS)}")
    return found


class BuildFailed(SampanError):
    """A command of the Dockerfile failed.  code: its exit code; placed: the client was told where it stands."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        self.placed = False


@dataclass(frozen=True)
class CacheTo:
    """Where steps go.

    kind: "inline", "registry" under `reference`, or "local", which the client fetches.  whole: those of all stages, not only
    of what the image consists of.  lenient: failing is a warning.
    """

    kind: str
    reference: str = ""
    whole: bool = False
    lenient: bool = False


@dataclass(frozen=True)
class Options:
    """A build.

    dockerfile: its path in the context.  host: limits and network of RUN steps.  secrets: by id, never written to a disk.
    cache_from: names of caches and images of other daemons, which this build trusts; cache_to: where its own steps go.
    live: the client wants to be told of steps side by side.  check, plan: only say what is to be warned of, or what would be built.
    allow, granted: what steps may ask for, as the client says and as the daemon says: both must.
    prefixed: the upload begins with what does not belong in a query.  auth: the value of X-Registry-Auth by registry.
    contexts: named ones that are not uploaded, by name.  session: of the agents that the client lends.
    shown: what errors call the Dockerfile when its path in the context is not how the user knows it.
    epoch: the latest time, in seconds, that the image may show; None: real times.
    """

    dockerfile: str = "Dockerfile"
    shown: str = ""
    tags: tuple[str, ...] = ()
    request: Request = field(default_factory=Request)
    host: HostConfig = field(default_factory=HostConfig)
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    pull: bool = False
    quiet: bool = False
    squash: bool = False
    explain: bool = False
    live: bool = False
    check: bool = False
    plan: bool = False
    epoch: int | None = None
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    granted: frozenset[str] = frozenset()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[CacheTo, ...] = ()
    prefixed: bool = False
    contexts: Mapping[str, str] = field(default_factory=dict)
    session: Session | None = None
    auth: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What builds of the same thing have in common, for explaining misses."""
        return self.tags[0] if self.tags else self.dockerfile
