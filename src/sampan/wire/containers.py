"""Containers: what POST /containers/create takes and what inspect and list answer (engine-api 4.1 to 4.13)."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from sampan.wire.execs import ExecCreate as ExecCreate
from sampan.wire.execs import ExecCreated as ExecCreated
from sampan.wire.execs import ExecInspect as ExecInspect
from sampan.wire.execs import ExecProcess as ExecProcess
from sampan.wire.execs import ExecStart as ExecStart
from sampan.wire.health import Health as Health
from sampan.wire.health import HealthConfig as HealthConfig
from sampan.wire.health import HealthResult as HealthResult
from sampan.wire.ports import PortBinding as PortBinding
from sampan.wire.ports import PortMap as PortMap
from sampan.wire.resources import DeviceMapping as DeviceMapping
from sampan.wire.resources import DeviceRequest as DeviceRequest
from sampan.wire.resources import Resources as Resources
from sampan.wire.resources import RestartPolicy as RestartPolicy
from sampan.wire.resources import ThrottleDevice as ThrottleDevice
from sampan.wire.resources import Ulimit as Ulimit
from sampan.wire.resources import WeightDevice as WeightDevice
from sampan.wire.shape import Empty, Shape, StringMap, Strings


class ContainerConfig(Shape, frozen=True, kw_only=True):
    """The top level of a create body; `Config` of inspect; `config` of an image."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Empty] | UnsetType | None = UNSET
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: Strings = None
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | UnsetType | None = UNSET
    args_escaped: bool | UnsetType = UNSET
    image: str = ""
    volumes: dict[str, Empty] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool | UnsetType = UNSET
    mac_address: str | UnsetType = UNSET
    on_build: Strings | UnsetType = UNSET
    labels: StringMap = None
    stop_signal: str | UnsetType = UNSET
    stop_timeout: int | UnsetType | None = UNSET
    shell: Strings | UnsetType = UNSET


class LogConfig(Shape, frozen=True, kw_only=True):
    type: str = ""
    config: StringMap = None


class BindOptions(Shape, frozen=True, kw_only=True, omit_defaults=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(Shape, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    options: StringMap = None


class VolumeOptions(Shape, frozen=True, kw_only=True, omit_defaults=True):
    no_copy: bool = False
    labels: StringMap = None
    subpath: str = ""
    driver_config: DriverConfig | None = None


class ImageOptions(Shape, frozen=True, kw_only=True, omit_defaults=True):
    subpath: str = ""


class TmpfsOptions(Shape, frozen=True, kw_only=True, omit_defaults=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class Mount(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """A `--mount`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(Resources, frozen=True, kw_only=True):
    """What the host does for the container; includes the Resources fields."""

    binds: Strings = None
    container_id_file: str = field(name="ContainerIDFile", default="")
    log_config: LogConfig | None = None
    network_mode: str = ""
    port_bindings: PortMap | None = None
    restart_policy: RestartPolicy | None = None
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: Strings = None
    console_size: list[int] | None = None
    annotations: StringMap | UnsetType = UNSET
    cap_add: Strings = None
    cap_drop: Strings = None
    cgroupns_mode: str = ""
    dns: Strings = None
    dns_options: Strings = None
    dns_search: Strings = None
    extra_hosts: Strings = None
    group_add: Strings = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: Strings = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: Strings = None
    storage_opt: StringMap | UnsetType = UNSET
    tmpfs: StringMap | UnsetType = UNSET
    uts_mode: str = field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: StringMap | UnsetType = UNSET
    runtime: str = ""
    isolation: str = ""
    mounts: list[Mount] | UnsetType | None = UNSET
    masked_paths: Strings = None
    readonly_paths: Strings = None
    init: bool | UnsetType | None = UNSET


class EndpointIpam(Shape, frozen=True, kw_only=True, omit_defaults=True):
    i_pv4_address: str = field(name="IPv4Address", default="")
    i_pv6_address: str = field(name="IPv6Address", default="")
    link_local_ips: Strings = field(name="LinkLocalIPs", default=None)


class EndpointSettings(Shape, frozen=True, kw_only=True):
    """One network of a container: what is wanted (create) and what is (inspect)."""

    ipam_config: EndpointIpam | None = field(name="IPAMConfig", default=None)
    links: Strings = None
    aliases: Strings = None
    mac_address: str = ""
    driver_opts: StringMap = None
    gw_priority: int = 0
    network_id: str = field(name="NetworkID", default="")
    endpoint_id: str = field(name="EndpointID", default="")
    gateway: str = ""
    ip_address: str = field(name="IPAddress", default="")
    ip_prefix_len: int = field(name="IPPrefixLen", default=0)
    ipv6_gateway: str = field(name="IPv6Gateway", default="")
    global_ipv6_address: str = field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field(name="GlobalIPv6PrefixLen", default=0)
    dns_names: Strings = field(name="DNSNames", default=None)


class NetworkingConfig(Shape, frozen=True, kw_only=True):
    endpoints_config: dict[str, EndpointSettings | None] | None = None


class CreateBody(ContainerConfig, frozen=True, kw_only=True):
    """The body of POST /containers/create: ContainerConfig at the top level, and two more."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class Created(Shape, frozen=True, kw_only=True):
    id: str
    warnings: list[str] = []


class ContainerState(Shape, frozen=True, kw_only=True):
    """4.7.  Times are RFC 3339 with nanoseconds."""

    status: str
    running: bool
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = field(name="OOMKilled", default=False)
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str
    finished_at: str
    health: Health | UnsetType = UNSET


class MountPoint(Shape, frozen=True, kw_only=True):
    type: str
    name: str | UnsetType = UNSET
    source: str = ""
    destination: str
    driver: str | UnsetType = UNSET
    mode: str = ""
    rw: bool = field(name="RW", default=True)
    propagation: str = ""


class NetworkSettings(Shape, frozen=True, kw_only=True):
    """The flat copies of the default bridge's endpoint are what clients before 1.52 read."""

    bridge: str = ""
    sandbox_id: str = field(name="SandboxID", default="")
    sandbox_key: str = ""
    ports: PortMap = {}
    hairpin_mode: bool = False
    link_local_ipv6_address: str = field(name="LinkLocalIPv6Address", default="")
    link_local_ipv6_prefix_len: int = field(name="LinkLocalIPv6PrefixLen", default=0)
    secondary_ip_addresses: None = field(name="SecondaryIPAddresses", default=None)
    secondary_ipv6_addresses: None = field(name="SecondaryIPv6Addresses", default=None)
    endpoint_id: str = field(name="EndpointID", default="")
    gateway: str = ""
    global_ipv6_address: str = field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field(name="GlobalIPv6PrefixLen", default=0)
    ip_address: str = field(name="IPAddress", default="")
    ip_prefix_len: int = field(name="IPPrefixLen", default=0)
    ipv6_gateway: str = field(name="IPv6Gateway", default="")
    mac_address: str = ""
    networks: dict[str, EndpointSettings] = {}


class GraphDriver(Shape, frozen=True, kw_only=True):
    data: StringMap = None
    name: str = "overlay2"


class ContainerInspect(Shape, frozen=True, kw_only=True):
    """4.6."""

    id: str
    created: str
    path: str
    args: list[str]
    state: ContainerState
    image: str
    resolv_conf_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    log_path: str = ""
    name: str
    restart_count: int = 0
    driver: str = "overlay2"
    platform: str = "linux"
    mount_label: str = ""
    process_label: str = ""
    app_armor_profile: str = ""
    exec_i_ds: Strings = field(name="ExecIDs", default=None)
    host_config: HostConfig
    graph_driver: GraphDriver = GraphDriver()
    size_rw: int | UnsetType = UNSET
    size_root_fs: int | UnsetType = UNSET
    mounts: list[MountPoint] = []
    config: ContainerConfig
    network_settings: NetworkSettings


class PortSummary(Shape, frozen=True, kw_only=True):
    """A row of `Ports` in the list; a private port that is not published has no public one."""

    ip: str | UnsetType = field(name="IP", default=UNSET)
    private_port: int
    public_port: int | UnsetType = UNSET
    type: str


class SummaryHostConfig(Shape, frozen=True, kw_only=True):
    network_mode: str = ""
    annotations: StringMap | UnsetType = UNSET


class SummaryNetworks(Shape, frozen=True, kw_only=True):
    networks: dict[str, EndpointSettings] = {}


class ContainerSummary(Shape, frozen=True, kw_only=True):
    """4.13."""

    id: str
    names: list[str]
    image: str
    image_id: str = field(name="ImageID")
    command: str
    created: int
    ports: list[PortSummary] = []
    size_rw: int | UnsetType = UNSET
    size_root_fs: int | UnsetType = UNSET
    labels: dict[str, str] = {}
    state: str
    status: str
    host_config: SummaryHostConfig
    network_settings: SummaryNetworks
    mounts: list[MountPoint] = []


class WaitError(Shape, frozen=True, kw_only=True):
    message: str


class WaitResult(Shape, frozen=True, kw_only=True):
    status_code: int
    error: WaitError | UnsetType | None = UNSET


class PruneResult(Shape, frozen=True, kw_only=True):
    containers_deleted: list[str] | None = None
    space_reclaimed: int = 0
