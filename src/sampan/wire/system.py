"""Info, version, events, jobs and what Sampan adds (engine-api 4.18 to 4.20)."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from sampan.wire.shape import Shape


class Component(Shape, frozen=True, kw_only=True):
    name: str
    version: str
    details: dict[str, str] | None = None


class Platform(Shape, frozen=True, kw_only=True):
    name: str


class Version(Shape, frozen=True, kw_only=True):
    platform: Platform
    components: list[Component] = []
    version: str
    api_version: str
    min_api_version: str = field(name="MinAPIVersion")
    git_commit: str = ""
    go_version: str = ""
    os: str = "linux"
    arch: str
    kernel_version: str
    build_time: str = ""


class SwarmInfo(Shape, frozen=True, kw_only=True):
    """Outside a swarm."""

    node_id: str = field(name="NodeID", default="")
    node_addr: str = ""
    local_node_state: str = "inactive"
    control_available: bool = False
    error: str = ""
    remote_managers: None = None


class Commit(Shape, frozen=True, kw_only=True):
    id: str = field(name="ID", default="")


class Info(Shape, frozen=True, kw_only=True):
    """The fields that clients read; the engine fills every one."""

    id: str = field(name="ID")
    containers: int = 0
    containers_running: int = 0
    containers_paused: int = 0
    containers_stopped: int = 0
    images: int = 0
    driver: str = "overlay2"
    driver_status: list[list[str]] = []
    docker_root_dir: str = ""
    plugins: dict[str, list[str] | None] = {}
    memory_limit: bool = True
    swap_limit: bool = True
    cpu_cfs_period: bool = True
    cpu_cfs_quota: bool = True
    cpu_shares: bool = field(name="CPUShares", default=True)
    cpu_set: bool = field(name="CPUSet", default=True)
    pids_limit: bool = True
    i_pv4_forwarding: bool = field(name="IPv4Forwarding", default=True)
    debug: bool = False
    n_fd: int = 0
    oom_kill_disable: bool = True
    n_goroutines: int = 0
    system_time: str = ""
    logging_driver: str = "json-file"
    cgroup_driver: str = "cgroupfs"
    cgroup_version: str = "1"
    n_events_listener: int = 0
    kernel_version: str = ""
    operating_system: str = ""
    os_version: str = field(name="OSVersion", default="")
    os_type: str = field(name="OSType", default="linux")
    architecture: str = ""
    index_server_address: str = "https://index.docker.io/v1/"
    registry_config: dict[str, Any] | None = None
    ncpu: int = field(name="NCPU", default=1)
    mem_total: int = 0
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    name: str = ""
    labels: list[str] = []
    experimental_build: bool = False
    server_version: str = ""
    runtimes: dict[str, dict[str, str]] = {}
    default_runtime: str = "sampan"
    swarm: SwarmInfo | dict[str, Any] = SwarmInfo()
    live_restore_enabled: bool = True
    isolation: str = ""
    init_binary: str = ""
    containerd_commit: Commit = Commit()
    runc_commit: Commit = Commit()
    init_commit: Commit = Commit()
    generic_resources: None = None
    cdi_spec_dirs: list[str] = field(name="CDISpecDirs", default=[])
    security_options: list[str] = []
    warnings: list[str] | None = None


class Actor(Shape, frozen=True, kw_only=True):
    id: str = field(name="ID")
    attributes: dict[str, str] = {}


class EventMessage(Shape, frozen=True, kw_only=True):
    """time is seconds, timeNano nanoseconds since the epoch; status, id and from are the old spelling for containers and images."""

    status: str | UnsetType = field(name="status", default=UNSET)
    id: str | UnsetType = field(name="id", default=UNSET)
    from_: str | UnsetType = field(name="from", default=UNSET)
    type: str
    action: str
    actor: Actor
    scope: str = field(name="scope", default="local")
    time: int = field(name="time")
    time_nano: int = field(name="timeNano")


class LogOptions(Shape, frozen=True, kw_only=True):
    """Of GET logs, already parsed; times are nanoseconds since the epoch, 0 unset; tail -1 is all."""

    follow: bool = False
    stdout: bool = False
    stderr: bool = False
    since: int = 0
    until: int = 0
    timestamps: bool = False
    tail: int = -1
    details: bool = False


class Top(Shape, frozen=True, kw_only=True):
    titles: list[str]
    processes: list[list[str]]


class Job(Shape, frozen=True, kw_only=True):
    """An entry of the job table (GET /sampan/jobs).  Times are RFC 3339; duration is seconds, null while it runs."""

    id: str
    name: str
    arguments: dict[str, str]
    started: str
    duration: float | None = None
    result: str = ""  # "" while it runs, "OK (0)", "ERR (text)"


class Fact(Shape, frozen=True, kw_only=True):
    """One thing the kernel holds, and the plain command that shows it by hand."""

    name: str
    value: str
    command: str = ""


class Explanation(Shape, frozen=True, kw_only=True):
    """GET /sampan/containers/{id}/explain: sections in order, each a list of facts."""

    id: str
    name: str
    sections: dict[str, list[Fact]]


class Finding(Shape, frozen=True, kw_only=True):
    """GET /sampan/doctor.  level is "ok", "note", "warning" or "error"."""

    level: str
    subject: str
    text: str
