"""Container record to OCI config: what runtime/ will do, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import UNSET

from sampan.engine import spec_mounts, spec_resources, spec_security
from sampan.engine.records import ContainerRecord
from sampan.engine.userns import SIZE
from sampan.errors import InvalidRequest
from sampan.oci.runtime import Box, IdMapping, Linux, Mount, Namespace, Process, Root, Spec, User

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Joined:
    """Namespaces of others to join: type -> index among the descriptors of the Launch."""

    fds: Mapping[str, int]


def shares_host(record: ContainerRecord) -> bool:
    """Return whether the container is asked to be in the host's user namespace (by name, or by what implies it)."""
    host = record.host
    return (
        host.privileged or host.userns_mode == "host" or host.pid_mode == "host" or host.network_mode == "host"
        or host.ipc_mode == "host" or host.cgroupns_mode == "host"  # cgroup mounts need their namespace's own user namespace
    )  # fmt: skip


def joins(record: ContainerRecord) -> bool:
    """Return whether it joins another container's namespaces, and with them that one's user namespace."""
    host = record.host
    return any(mode.startswith("container:") for mode in (host.network_mode, host.pid_mode, host.ipc_mode))


def environment(record: ContainerRecord) -> tuple[str, ...]:
    """Return the process's environment: built from nothing, never from the daemon's own (SECURITY.md row 25)."""
    config = record.config
    made: dict[str, str] = {"PATH": PATH}
    if config.hostname:
        made["HOSTNAME"] = f"HOSTNAME={config.hostname}"
    if config.tty:
        made["TERM"] = "TERM=xterm"
    for entry in config.env or ():
        made[entry.partition("=")[0]] = entry
    return tuple(made.values())


def process(record: ContainerRecord) -> Process:
    """Return the first process.  Raises InvalidRequest."""
    config, host = record.config, record.host
    names = spec_security.bounding(host)
    size = host.console_size
    return Process(
        args=(record.path, *record.args), cwd=config.working_dir or "/", env=environment(record), terminal=config.tty,
        console_size=Box(height=size[0], width=size[1]) if size and len(size) == 2 and any(size) else None,
        user=User(), capabilities=spec_security.capability_sets(names), rlimits=spec_resources.rlimits(host),
        no_new_privileges=spec_security.Options(host).no_new_privileges, oom_score_adj=host.oom_score_adj or None,
    )  # fmt: skip


def build(record: ContainerRecord, mounts: list[Mount], joined: Joined, cgroups_path: str) -> Spec:
    """Return the whole config.  Raises InvalidRequest."""
    host, config = record.host, record.config
    first = process(record)
    options = spec_security.Options(host)
    nodes, rules = spec_resources.devices(host)
    base = record.uid_base
    maps = (IdMapping(container_id=0, host_id=base, size=SIZE),) if base is not None and "user" not in joined.fds else ()
    annotations = {} if host.annotations is UNSET else dict(host.annotations or {})
    mapped = base is not None or "user" in joined.fds
    sysctl = spec_security.sysctls(host, SIZE) if mapped else spec_security.sysctls(host)
    return Spec(
        process=first, root=Root(readonly=host.readonly_rootfs),
        hostname="" if host.uts_mode == "host" else config.hostname,
        domainname="" if host.uts_mode == "host" else config.domainname,
        mounts=(*spec_mounts.defaults(record, cgroup_writable=options.writable_cgroups), *mounts),
        linux=Linux(
            namespaces=_namespaces(record, joined), uid_mappings=maps, gid_mappings=maps, devices=nodes,
            cgroups_path=cgroups_path, resources=spec_resources.resources(host, rules),
            seccomp=options.filter(first.capabilities.bounding), masked_paths=spec_security.masked_paths(host),
            readonly_paths=spec_security.readonly_paths(host), sysctl=sysctl,
        ),
        annotations=annotations,
    )  # fmt: skip


def _namespaces(record: ContainerRecord, joined: Joined) -> tuple[Namespace, ...]:
    host = record.host
    wanted = ["mount"]
    if host.network_mode != "host":
        wanted.append("network")
    if host.uts_mode != "host":
        wanted.append("uts")
    if host.pid_mode != "host":
        wanted.append("pid")
    if host.ipc_mode != "host":
        wanted.append("ipc")
    if host.cgroupns_mode == "private":
        wanted.append("cgroup")
    if record.uid_base is not None or "user" in joined.fds:
        wanted.append("user")
    if any(name not in wanted for name in joined.fds):
        raise InvalidRequest(f"namespaces {sorted(joined.fds)} cannot be joined together with the host's")
    return tuple(Namespace(type=name, fd=joined.fds.get(name)) for name in wanted)
