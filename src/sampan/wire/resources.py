"""What a container may use: part of HostConfig, and the body of update (engine-api 4.3)."""

from __future__ import annotations

from msgspec import field

from sampan.wire.ports import PortMap
from sampan.wire.shape import Shape, StringMap, Strings


class RestartPolicy(Shape, frozen=True, kw_only=True):
    name: str = ""
    maximum_retry_count: int = 0


class WeightDevice(Shape, frozen=True, kw_only=True):
    path: str = ""
    weight: int = 0


class ThrottleDevice(Shape, frozen=True, kw_only=True):
    path: str = ""
    rate: int = 0


class DeviceMapping(Shape, frozen=True, kw_only=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Shape, frozen=True, kw_only=True):
    driver: str = ""
    count: int = 0
    device_i_ds: Strings = field(name="DeviceIDs", default=None)
    capabilities: list[list[str]] | None = None
    options: StringMap = None


class Ulimit(Shape, frozen=True, kw_only=True):
    name: str = ""
    hard: int = 0
    soft: int = 0


class Resources(Shape, frozen=True, kw_only=True):
    """The limits; in an update zero and absent mean as it is."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field(name="BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: list[ThrottleDevice] | None = field(name="BlkioDeviceWriteIOps", default=None)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: Strings = None
    device_requests: list[DeviceRequest] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = field(name="IOMaximumBandwidth", default=0)


class NetworkLimit(Shape, frozen=True, kw_only=True):
    """Bandwidth towards the container and from it, as "10mbit"; "" leaves it, "0" takes it away."""

    inwards: str = field(name="In", default="")
    outwards: str = field(name="Out", default="")


class UpdateBody(Resources, frozen=True, kw_only=True):
    """The body of POST /containers/{id}/update.  The last three are Sampan's own: ports and bandwidth while it runs."""

    restart_policy: RestartPolicy | None = None
    publish_add: PortMap | None = None
    publish_remove: Strings = None
    network_limit: NetworkLimit | None = None


class Updated(Shape, frozen=True, kw_only=True):
    warnings: Strings = None
