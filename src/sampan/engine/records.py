"""What is kept of a container across restarts of the daemon and of the host."""

from __future__ import annotations

import msgspec

from sampan.wire import containers as c


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A mount of the container.  source: a host folder or file; kind "bind", "volume", "tmpfs" or "image"
    (source: what the image was called, volume: its id).

    mode: the words that inspect shows.  recursive: with what is mounted below the source; recursive_readonly: and that
    read-only too.  listed: whether inspect shows it.  create: a bind's missing source is made.
    """

    kind: str
    source: str
    target: str
    options: tuple[str, ...] = ()
    mode: str = ""
    readonly: bool = False
    recursive: bool = True
    propagation: str = ""
    volume: str = ""
    anonymous: bool = False
    copy: bool = False
    subpath: str = ""
    recursive_readonly: bool = True
    listed: bool = True
    create: bool = True


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A container.  Times are nanoseconds since the epoch, 0 for never; status: created, running, exited, dead, removing."""

    id: str
    name: str
    created: int
    image: str
    image_ref: str
    path: str
    args: tuple[str, ...]
    config: c.ContainerConfig
    host: c.HostConfig
    networking: dict[str, c.EndpointSettings] = {}
    uid_base: int | None = None
    places: tuple[Place, ...] = ()
    status: str = "created"
    paused: bool = False
    restarting: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started: int = 0
    finished: int = 0
    restart_count: int = 0
    lost_lines: int = 0  # of the last run's output, that its log did not take
    backoff: float = 0.0  # seconds from `finished` to the next start, while `restarting`
    stopped_by_hand: bool = False
    bound: dict[str, list[c.PortBinding]] = {}
    build: bool = False  # of a build step: gone when its daemon is

    @property
    def images(self) -> tuple[str, ...]:
        """The images it needs: its own, and those it mounts."""
        return (self.image, *(place.volume for place in self.places if place.kind == "image"))

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def state(self) -> str:
        """The word that users see (engine-api 4.7)."""
        if self.status == "running":
            return "paused" if self.paused else "running"
        return "restarting" if self.restarting else self.status

    @property
    def labels(self) -> dict[str, str]:
        return self.config.labels or {}
