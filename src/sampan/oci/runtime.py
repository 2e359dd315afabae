"""The part of the OCI runtime configuration that Sampan makes and walks (runtime-spec 1.2, config.md, config-linux.md).

Field names on the wire are the specification's camelCase; attributes are snake_case.  Unknown fields are ignored on
reading, as the specification asks.  What a value may be is checked by runtime/, not here.
"""

from __future__ import annotations

import msgspec


class Oci(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """Base of every object here: immutable, camelCase on the wire, defaults left out."""


class Box(Oci, frozen=True, kw_only=True):
    """A terminal's size in characters."""

    height: int = 0
    width: int = 0


class User(Oci, frozen=True, kw_only=True):
    """Whose identity the process takes, in the container's own numbers."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class Capabilities(Oci, frozen=True, kw_only=True):
    """The five sets, names such as "CAP_CHOWN"."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Oci, frozen=True, kw_only=True):
    """type is "RLIMIT_NOFILE" and so on; 2**64-1 means unlimited."""

    type: str
    soft: int
    hard: int


class Process(Oci, frozen=True, kw_only=True):
    """The program that is started, for a container or for an exec."""

    args: tuple[str, ...]
    cwd: str = "/"
    env: tuple[str, ...] = ()
    terminal: bool = False
    console_size: Box | None = None
    user: User = User()
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""


class Root(Oci, frozen=True, kw_only=True):
    """The root file system; the path is for people, the tree comes as a descriptor."""

    path: str = ""
    readonly: bool = False


class Mount(Oci, frozen=True, kw_only=True):
    """A mount, in the order of the list.

    type: "bind", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", ...
    source: for people; when `tree` is set, the mount is the descriptor with that index of those that go with the config.
    options: mount(8)'s words; runtime/mount_options.py has the table.
    """

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    tree: int | None = None


class Namespace(Oci, frozen=True, kw_only=True):
    """A namespace to make (no path) or to join.

    type: "mount", "pid", "network", "ipc", "uts", "user", "cgroup", "time".
    path: for people; when `fd` is set, the descriptor with that index is joined.
    """

    type: str
    path: str = ""
    fd: int | None = None


class IdMapping(Oci, frozen=True, kw_only=True):
    """`size` ids from `container_id` up are `host_id` up outside.  The wire calls them containerID and hostID."""

    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Device(Oci, frozen=True, kw_only=True):
    """A device node to make under /dev.  type is "c", "b" or "p"; major and minor -1 mean any (cgroup rules only).

    source: its name on the host where that is another; ours, not OCI's.
    """

    type: str
    path: str
    source: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceRule(Oci, frozen=True, kw_only=True):
    """A line of the device cgroup; the last that matches wins.  type "a" is every device."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class Memory(Oci, frozen=True, kw_only=True):
    """Bytes; -1 is unlimited; None is untouched.  swap counts memory plus swap, as v1 does."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(name="disableOOMKiller", default=None)


class Cpu(Oci, frozen=True, kw_only=True):
    """shares are v1's (2..262144); quota and period are microseconds; cpus and mems are lists such as "0-3,7"."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""


class Pids(Oci, frozen=True, kw_only=True):
    """At most `limit` tasks; -1 is unlimited."""

    limit: int


class WeightDevice(Oci, frozen=True, kw_only=True):
    major: int
    minor: int
    weight: int


class ThrottleDevice(Oci, frozen=True, kw_only=True):
    major: int
    minor: int
    rate: int


class BlockIo(Oci, frozen=True, kw_only=True):
    """weight 10..1000; rates are bytes or operations a second."""

    weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(name="throttleReadIOPSDevice", default=())
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(name="throttleWriteIOPSDevice", default=())


class Resources(Oci, frozen=True, kw_only=True):
    """Limits, as cgroups/ sets them."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIo | None = msgspec.field(name="blockIO", default=None)


class SyscallArgument(Oci, frozen=True, kw_only=True):
    """op is "SCMP_CMP_EQ" and so on."""

    index: int
    value: int
    value_two: int = 0
    op: str


class SyscallRule(Oci, frozen=True, kw_only=True):
    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SyscallArgument, ...] = ()


class Seccomp(Oci, frozen=True, kw_only=True):
    """A filter; kernel/seccomp.py compiles it to BPF."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    syscalls: tuple[SyscallRule, ...] = ()


class Linux(Oci, frozen=True, kw_only=True):
    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    cgroups_path: str = ""
    resources: Resources = Resources()
    rootfs_propagation: str = ""
    seccomp: Seccomp | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctl: dict[str, str] = {}
    mount_label: str = ""


class Spec(Oci, frozen=True, kw_only=True):
    """config.json."""

    oci_version: str = "1.2.0"
    process: Process
    root: Root = Root()
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    linux: Linux = Linux()
    annotations: dict[str, str] = {}
