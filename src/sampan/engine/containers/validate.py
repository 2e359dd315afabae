"""Everything a create body may say, judged before anything is made (engine-api 5.1).

Each field is honoured or refused by name; nothing is dropped in silence.
"""

from __future__ import annotations

import os
import re

from msgspec import UNSET, structs

from sampan.engine import spec_resources, spec_security
from sampan.engine.containers import healthcheck, legacy_links, log_target
from sampan.engine.containers.signals import number_of
from sampan.errors import InvalidRequest
from sampan.network import names
from sampan.oci.defaults import MASKED, READONLY
from sampan.wire import containers as c

_MIB6 = 6 << 20
_PIDS_MAX = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h
_PARENT = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}(?:/[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}){0,7}/?", re.ASCII)
_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}", re.ASCII)


def name(text: str) -> str:
    """Return a container's name without its slash.  Raises InvalidRequest (row 91)."""
    if not _NAME.fullmatch(text):
        raise InvalidRequest(f"Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return text.removeprefix("/")


def config(body: c.ContainerConfig, host: c.HostConfig) -> None:
    """Judge the top level of a body.  Raises InvalidRequest."""
    if body.hostname:
        if len(body.hostname) > 64:
            raise InvalidRequest(f"invalid hostname: {body.hostname[:80]}: more than 64 characters")
        names.check_hostname(body.hostname)
        if host.uts_mode == "host":
            raise InvalidRequest("conflicting options: hostname and the UTS mode")
        if host.network_mode.startswith("container:"):
            raise InvalidRequest("conflicting options: hostname and the network mode")
    names.check_domainname(body.domainname)
    healthcheck.validate(body.healthcheck)
    if body.working_dir and (not body.working_dir.startswith("/") or "\0" in body.working_dir):
        raise InvalidRequest(f"the working directory '{body.working_dir[:128]}' is invalid, it needs to be an absolute path")
    if body.stop_signal is not UNSET and body.stop_signal:
        number_of(body.stop_signal)
    for entry in body.env or ():
        if "\0" in entry or not entry or entry.startswith("="):
            raise InvalidRequest(f"invalid environment variable: {entry[:64]}")
    for port in {} if body.exposed_ports is UNSET else body.exposed_ports or {}:
        port_of(port)
    for word in (*words(body.cmd), *words(body.entrypoint)):
        if "\0" in word:
            raise InvalidRequest("a command's word holds a NUL")
    if body.stop_timeout is not UNSET and body.stop_timeout is not None and body.stop_timeout < -1:
        raise InvalidRequest(f"invalid stop timeout: {body.stop_timeout}")


def words(value: list[str] | str | None) -> list[str]:
    """A command as a list; older clients send one string."""
    return [value] if isinstance(value, str) else list(value or ())


def port_of(text: str) -> tuple[int, str]:
    """Return (port, protocol) of "80/tcp".  Raises InvalidRequest."""
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if not (number.isascii() and number.isdigit() and len(number) < 6 and 0 < int(number) < 65536):
        raise InvalidRequest(f'invalid port specification: "{text[:32]}"')
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidRequest(f"invalid proto: {protocol[:16]}")
    return int(number), protocol


def host(value: c.HostConfig) -> c.HostConfig:
    """Judge a HostConfig; return it with defaults filled in.  Raises InvalidRequest, Unsupported."""
    restart(value)
    limits(value)
    _modes(value)
    _impossible(value)
    spec_security.bounding(value)
    options = spec_security.Options(value)
    options.filter(spec_security.DEFAULT_CAPABILITIES)
    spec_security.sysctls(value)
    spec_resources.devices(value)
    spec_resources.rlimits(value)
    spec_resources.resources(value, ())
    for path in (*(value.masked_paths or ()), *(value.readonly_paths or ())):
        if len(os.fsencode(path)) > 4095 or "\0" in path or any(len(os.fsencode(part)) > 255 for part in path.split("/")):
            raise InvalidRequest(f"invalid masked or read-only path: {path[:80]!r}")
    for entry in value.extra_hosts or ():
        names.extra_host(entry)
    for text in value.dns or ():
        names.check_address(text)
    for text in value.dns_search or ():
        names.check_search(text)
    for text in value.dns_options or ():
        names.check_option(text)
    for port, bindings in (value.port_bindings or {}).items():
        port_of(port)
        for binding in bindings or ():
            port_range(binding.host_port)
            if binding.host_ip:
                names.check_address(binding.host_ip)
    unmasked = value.privileged
    swap = value.memory_swap or (2 * value.memory if value.memory else 0)
    pids = value.pids_limit
    return structs.replace(
        value, network_mode="bridge" if value.network_mode in ("", "default") else value.network_mode,
        ipc_mode=value.ipc_mode or "private", shm_size=value.shm_size or 67108864, memory_swap=swap,
        restart_policy=value.restart_policy if value.restart_policy and value.restart_policy.name else c.RestartPolicy(name="no"),
        runtime=value.runtime or "sampan", cgroupns_mode=value.cgroupns_mode or "private",
        cap_add=spec_security.normalise(value.cap_add, "CapAdd") or None,
        cap_drop=spec_security.normalise(value.cap_drop, "CapDrop") or None,
        port_bindings=value.port_bindings or {}, console_size=value.console_size or [0, 0],
        pids_limit=None if pids is None or pids <= 0 else pids,
        memory_swappiness=None if value.memory_swappiness == -1 else value.memory_swappiness,
        masked_paths=[] if options.all_paths
        else value.masked_paths if value.masked_paths is not None or unmasked else list(MASKED),
        readonly_paths=[] if options.all_paths
        else value.readonly_paths if value.readonly_paths is not None or unmasked else list(READONLY),
    )  # fmt: skip


def host_addresses(host: c.HostConfig) -> list[str]:
    """Return the host addresses at which ports are to be published, as they are written but for brackets."""
    return [one.host_ip.strip("[]") for rows in (host.port_bindings or {}).values() for one in rows or ()]


def port_range(text: str) -> tuple[int, int]:
    """Return the first and last host port of "", "80" or "8000-8010"; (0, 0) is any.  Raises InvalidRequest."""
    if not text or text == "0":
        return 0, 0
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not all(part.isascii() and part.isdigit() and len(part) < 6 and 0 < int(part) < 65536 for part in (first, last)):
        raise InvalidRequest(f'invalid port specification: "{text[:32]}"')
    if int(last) < int(first):
        raise InvalidRequest(f'invalid port specification: "{text[:32]}"')
    return int(first), int(last)


def restart(value: c.HostConfig) -> None:
    """Judge the restart policy.  Raises InvalidRequest."""
    policy = value.restart_policy or c.RestartPolicy()
    if policy.name not in ("", "no", "always", "on-failure", "unless-stopped", "on-unhealthy"):
        raise InvalidRequest(
            f"invalid restart policy: unknown policy '{policy.name[:32]}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name not in ("on-failure", "on-unhealthy"):
        raise InvalidRequest("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidRequest("invalid restart policy: maximum retry count cannot be negative")
    if value.auto_remove and policy.name not in ("", "no"):
        raise InvalidRequest("can't create 'AutoRemove' container with restart policy")


def limits(v: c.HostConfig) -> None:
    """Judge the limits.  Raises InvalidRequest in docker's words."""
    cpus = os.cpu_count() or 1
    checks = (
        (0 < v.memory < _MIB6 or v.memory < 0, "Minimum memory limit allowed is 6MB"),
        (v.memory_swap < -1, "invalid memory swap"),
        (v.memory_swap > 0 and not v.memory, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        (0 < v.memory_swap < v.memory, "Minimum memoryswap limit should be larger than memory limit, see usage"),
        (v.memory_reservation < 0 or 0 < v.memory_reservation < _MIB6, "Minimum memory reservation allowed is 6MB"),
        (v.memory and v.memory_reservation > v.memory,
         "Minimum memory limit can not be less than memory reservation limit, see usage"),
        (v.memory_swappiness is not None and not -1 <= v.memory_swappiness <= 100,
         f"Invalid value: {v.memory_swappiness}, valid memory swappiness range is 0-100"),
        (v.cpu_shares < 0, "shares must not be negative"),
        (v.nano_cpus < 0 or v.nano_cpus > cpus * 10**9 or 0 < v.nano_cpus < 10**7,
         f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"),
        (v.nano_cpus and v.cpu_period, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        (v.nano_cpus and v.cpu_quota, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        (v.cpu_period and not 1000 <= v.cpu_period <= 1000000,
         "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
        (v.cpu_quota > 0 and v.cpu_quota < 1000, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (v.blkio_weight and not 10 <= v.blkio_weight <= 1000, "range of blkio weight is from 10 to 1000"),
        (not -1000 <= v.oom_score_adj <= 1000, f"Invalid value {v.oom_score_adj}, range for oom score adj is [-1000, 1000]"),
        (v.cpu_quota > 2**44, f"CPU cfs quota {v.cpu_quota} is too large"),
        (min(v.cpu_realtime_period, v.cpu_realtime_runtime) < 0, "CPU real-time period and runtime must not be negative"),
        (v.pids_limit is not None and v.pids_limit > _PIDS_MAX, f"pids limit {v.pids_limit} is more than {_PIDS_MAX}"),
        (v.shm_size < 0, "SHM size can not be less than 0"),
        (min(v.console_size or [0]) < 0, "ConsoleSize: a terminal's height and width must not be negative"),
        (bool(v.io_maximum_bandwidth or v.io_maximum_iops), "io maximum limits are not supported on Linux"),
    )  # fmt: skip
    for wrong, text in checks:
        if wrong:
            raise InvalidRequest(text)
    for text, what, count in ((v.cpuset_cpus, "cpus", cpus), (v.cpuset_mems, "mems", 1024)):
        for part in text.split(",") if text else ():
            ends = part.split("-")
            if len(ends) > 2 or not all(end.isascii() and end.isdigit() and len(end) < 5 for end in ends):
                raise InvalidRequest(f"Invalid value {text[:64]} for cpuset {what}: invalid format: {text[:64]}")
            if int(ends[-1]) >= count:
                raise InvalidRequest(f"Requested CPUs are not available - requested {text[:64]}, available: 0-{count - 1}")


def _modes(v: c.HostConfig) -> None:
    plain = {
        "IpcMode": (v.ipc_mode, ("", "none", "private", "shareable", "host")), "PidMode": (v.pid_mode, ("", "host")),
        "UTSMode": (v.uts_mode, ("", "host")), "UsernsMode": (v.userns_mode, ("", "host", "private")),
        "CgroupnsMode": (v.cgroupns_mode, ("", "host", "private")),
        "Cgroup": (v.cgroup, ("",)), "Isolation": (v.isolation, ("", "default")),
    }  # fmt: skip
    for field, (value, known) in plain.items():
        if value not in known and not (field in ("IpcMode", "PidMode") and value.startswith("container:")):
            raise InvalidRequest(f"invalid {field}: {value[:64]}")
    if v.cgroup_parent and (not _PARENT.fullmatch(v.cgroup_parent) or ".." in v.cgroup_parent.split("/")):
        raise InvalidRequest(f"invalid cgroup parent: {v.cgroup_parent[:64]!r}")
    if v.runtime not in ("", "sampan", "runc", "io.containerd.runc.v2"):
        raise InvalidRequest(f"unknown or invalid runtime name: {v.runtime[:64]}")
    if v.network_mode.startswith("container:"):
        conflicts = (
            (v.port_bindings, "port publishing and the container type network mode"),
            (v.publish_all_ports, "port publishing and the container type network mode"),
            (v.dns, "dns and the network mode"), (v.extra_hosts, "custom host-to-IP mapping and the network mode"),
            (v.links, "container type network can't be used with links. This would result in undefined behavior"),
        )  # fmt: skip
        for set_, text in conflicts:
            if set_:
                raise InvalidRequest(f"conflicting options: {text}")
    log_target.validate(v.log_config or c.LogConfig(type="json-file"))


def _impossible(v: c.HostConfig) -> None:
    """What this host or this engine cannot do is refused with the reason."""
    if v.device_requests:
        first = v.device_requests[0]
        if first.driver == "cdi":
            raise InvalidRequest(
                f"CDI device injection failed: unresolvable CDI devices {', '.join(first.device_i_ds or ())[:128]}"
            )
        wanted = " ".join("[" + " ".join(one) + "]" for one in first.capabilities or ())
        raise InvalidRequest(f'could not select device driver "{first.driver[:32]}" with capabilities: [{wanted[:128]}]')
    for name in {} if v.storage_opt is UNSET else v.storage_opt or {}:
        if name != "size":
            raise InvalidRequest(f"unknown option for storage driver overlay2: {name[:64]!r}")
        raise InvalidRequest(
            "--storage-opt size is not supported: the overlay driver has no project quotas to limit a container's layer with"
        )
    if v.cpu_count or v.cpu_percent:
        raise InvalidRequest("CpuCount and CpuPercent are settings of Windows containers: use NanoCpus or CpuQuota")
    for text in v.links or ():
        legacy_links.parse(text)
    for field, mode in (("PidMode", v.pid_mode), ("IpcMode", v.ipc_mode)):
        if mode.startswith("container:") and not _NAME.fullmatch(mode.removeprefix("container:")):
            raise InvalidRequest(f"invalid {field}")
