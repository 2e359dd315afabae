"""The flags of run and create as the body of POST /containers/create."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from sampan.cli import mounts, ports
from sampan.cli.environment import environment, labels
from sampan.cli.gpus import gpus
from sampan.cli.main import Exit
from sampan.cli.options import Options
from sampan.cli.units import parse_bytes, parse_cpus
from sampan.wire import containers as c

_HEALTH = ("health_cmd", "health_interval", "health_timeout", "health_start_period", "health_start_interval", "health_retries")


def body(o: Options, image: str, command: list[str], *, detach: bool) -> c.CreateBody:
    """Raises Exit with docker's words and 125 for what makes no sense."""
    streams = _streams(o, detach)
    binds, anonymous = mounts.volumes(o.volume)
    published = ports.merged(o.publish)
    exposed: dict[str, dict[str, str]] = {port: {} for text in o.expose for port in ports.expose(text)}
    for port in published:
        exposed[port] = {}
    _check(o, detach)
    return c.CreateBody(
        hostname=o.hostname, domainname=o.domainname, user=o.user, attach_stdin="stdin" in streams,
        attach_stdout="stdout" in streams, attach_stderr="stderr" in streams, exposed_ports=exposed or UNSET, tty=o.tty,
        open_stdin=o.interactive, stdin_once=o.interactive and not detach, env=environment(o.env, o.env_file),
        cmd=command or None, healthcheck=_health(o), image=image, volumes=anonymous or None, working_dir=o.workdir,
        entrypoint=_entrypoint(o), labels=labels(o.label, o.label_file) or None, stop_signal=o.stop_signal or UNSET,
        stop_timeout=UNSET if o.stop_timeout is None else o.stop_timeout,
        host_config=_host(o, binds, published), networking_config=_networking(o),
    )  # fmt: skip


def _streams(o: Options, detach: bool) -> set[str]:
    """Which streams are attached: -a says, else stdout and stderr, and stdin with -i; none with -d."""
    if detach:
        return set()
    wanted = {one.lower() for one in o.attach}
    for one in wanted - {"stdin", "stdout", "stderr"}:
        raise Exit(125, f'invalid argument "{one}" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR')
    return wanted or {"stdout", "stderr", *(["stdin"] if o.interactive else [])}


def _check(o: Options, detach: bool) -> None:
    if detach and o.attach:
        raise Exit(125, "conflicting options: cannot specify both --attach and --detach")
    if o.rm and o.restart not in ("no", ""):
        raise Exit(125, "conflicting options: cannot specify both --restart and --rm")
    if o.no_healthcheck and any(o[key] for key in _HEALTH):
        raise Exit(125, "--no-healthcheck conflicts with --health-* options")
    if o.use_api_socket:
        raise Exit(125, "--use-api-socket is not supported: whoever can write to the daemon's socket is root on the host; "
                        "mount it with -v where that is meant")  # fmt: skip
    if o.memory_swappiness is not None and not -1 <= o.memory_swappiness <= 100:
        raise Exit(125, f"invalid value: {o.memory_swappiness}. Valid memory swappiness range is 0-100")
    if o.pull not in ("always", "missing", "never"):
        raise Exit(125, f'invalid pull option: \'{o.pull}\': must be one of "always", "missing" or "never"')


def _entrypoint(o: Options) -> list[str] | None:
    """An empty --entrypoint resets the image's."""
    if "entrypoint" not in o.given:
        return None
    return [o.entrypoint]


def _health(o: Options) -> Any:
    if o.no_healthcheck:
        return c.HealthConfig(test=["NONE"])
    if not any(o[key] for key in _HEALTH):
        return UNSET
    return c.HealthConfig(
        test=["CMD-SHELL", o.health_cmd] if o.health_cmd else [], interval=o.health_interval or 0, timeout=o.health_timeout or 0,
        start_period=o.health_start_period or 0, start_interval=o.health_start_interval or 0, retries=o.health_retries or 0,
    )  # fmt: skip


def _pairs(given: list[str], name: str) -> dict[str, str]:
    for one in given:
        if "=" not in one:
            raise Exit(125, f'invalid argument "{one}" for "{name}" flag: {one} must be formatted as key=value')
    return dict(one.split("=", 1) for one in given)


def restart_policy(text: str) -> c.RestartPolicy:
    """Whether there is such a policy is for the daemon to say.  Raises Exit."""
    name, colon, count = text.partition(":")
    if colon and not (count.isascii() and count.isdigit() and len(count) < 10):
        raise Exit(125, "invalid restart policy format: maximum retry count must be an integer")
    return c.RestartPolicy(name=name or "no", maximum_retry_count=int(count or "0"))


def _security(given: list[str]) -> list[str]:
    """A seccomp profile's file is read here, by whom it belongs to."""
    made = []
    for one in given:
        name, sign, value = one.partition("=") if "=" in one else one.partition(":")
        if name == "seccomp" and sign and value not in ("unconfined", "builtin", ""):
            try:
                with open(value, encoding="utf-8") as file:
                    value = file.read()
            except (OSError, UnicodeDecodeError) as error:
                raise Exit(125, f"opening seccomp profile ({value}) failed: {error}") from None
            one = f"seccomp={value}"
        made.append(one)
    return made


def _throttles(given: list[str], name: str, number: Callable[[str], int]) -> list[c.ThrottleDevice] | None:
    made = []
    for one in given:
        path, _, rate = one.rpartition(":")
        try:
            if not path.startswith("/dev/"):
                raise ValueError
            made.append(c.ThrottleDevice(path=path, rate=number(rate)))
        except ValueError:
            raise Exit(125, f'invalid argument "{one}" for "{name}" flag: use PATH:RATE') from None
    return made or None


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(text)
    return int(text)


def _host(o: Options, binds: list[str], published: ports.Bindings) -> c.HostConfig:
    mode = _network(o)
    return c.HostConfig(
        binds=binds or None, container_id_file=o.cidfile, port_bindings=published or {}, network_mode=mode or "default",
        log_config=c.LogConfig(type=o.log_driver, config=_pairs(o.log_opt, "--log-opt")), restart_policy=restart_policy(o.restart),
        auto_remove=o.rm, volume_driver=o.volume_driver, volumes_from=o.volumes_from or None, console_size=None,
        annotations=_pairs(o.annotation, "--annotation") or UNSET, cap_add=o.cap_add or None, cap_drop=o.cap_drop or None,
        cgroupns_mode=o.cgroupns, dns=o.dns, dns_options=o.dns_option, dns_search=o.dns_search, extra_hosts=_hosts(o.add_host),
        group_add=o.group_add or None, ipc_mode=o.ipc, links=o.link or None, oom_score_adj=o.oom_score_adj or 0, pid_mode=o.pid,
        privileged=o.privileged, publish_all_ports=o.publish_all, readonly_rootfs=o.read_only,
        security_opt=_security(o.security_opt) or None, storage_opt=_pairs(o.storage_opt, "--storage-opt") or UNSET,
        tmpfs=mounts.tmpfs(o.tmpfs) or UNSET, uts_mode=o.uts, userns_mode=o.userns, shm_size=o.shm_size or 0,
        sysctls=_pairs(o.sysctl, "--sysctl") or UNSET, runtime=o.runtime, isolation=o.isolation,
        mounts=[mounts.mount(one) for one in o.mount] or UNSET, init=o.init if "init" in o.given else UNSET, **_resources(o),
    )  # fmt: skip


def _resources(o: Options) -> dict[str, Any]:
    return {
        "cpu_shares": o.cpu_shares or 0, "memory": o.memory or 0, "nano_cpus": _cpus(o.cpus), "cgroup_parent": o.cgroup_parent,
        "blkio_weight": o.blkio_weight or 0, "cpu_period": o.cpu_period or 0, "cpu_quota": o.cpu_quota or 0,
        "cpu_realtime_period": o.cpu_rt_period or 0, "cpu_realtime_runtime": o.cpu_rt_runtime or 0,
        "cpuset_cpus": o.cpuset_cpus, "cpuset_mems": o.cpuset_mems, "devices": [mounts.device(one) for one in o.device],
        "device_requests": gpus(o.gpus) if o.gpus else None,
        "device_cgroup_rules": o.device_cgroup_rule or None, "memory_reservation": o.memory_reservation or 0,
        "memory_swap": o.memory_swap or 0, "memory_swappiness": o.memory_swappiness if o.memory_swappiness != -1 else None,
        "oom_kill_disable": o.oom_kill_disable if "oom_kill_disable" in o.given else None, "pids_limit": o.pids_limit,
        "ulimits": [mounts.ulimit(one) for one in o.ulimit] or None,
        "blkio_device_read_bps": _throttles(o.device_read_bps, "--device-read-bps", parse_bytes),
        "blkio_device_write_bps": _throttles(o.device_write_bps, "--device-write-bps", parse_bytes),
        "blkio_device_read_iops": _throttles(o.device_read_iops, "--device-read-iops", _natural),
        "blkio_device_write_iops": _throttles(o.device_write_iops, "--device-write-iops", _natural),
    }  # fmt: skip


def _cpus(text: str | None) -> int:
    try:
        return parse_cpus(text) if text else 0
    except ValueError as error:
        raise Exit(125, f'invalid argument "{text}" for "--cpus" flag: {error}') from None


def _hosts(given: list[str]) -> list[str]:
    made = []
    for one in given:
        name, sign, address = one.partition("=") if "=" in one else one.partition(":")
        if not name or not sign or not address:
            raise Exit(125, f'invalid argument "{one}" for "--add-host" flag: bad format for add-host: "{one}"')
        made.append(f"{name}:{address.removeprefix('[').removesuffix(']')}")
    return made


def _network(o: Options) -> str:
    """The first --network's name; the long form is name=...,alias=..."""
    if not o.network:
        return ""
    first = str(o.network[0])
    if "=" not in first:
        return first
    return str(dict(part.split("=", 1) for part in first.split(",") if "=" in part).get("name", ""))


def _networking(o: Options) -> c.NetworkingConfig | None:
    """Endpoint settings, only when there is something to set."""
    made: dict[str, c.EndpointSettings | None] = {}
    limits = limit_options(o.network_limit)
    for number, text in enumerate(o.network):
        fields: dict[str, list[str]] = {}
        for part in text.split(",") if "=" in text else [f"name={text}"]:
            key, _, value = part.partition("=")
            fields.setdefault(key.strip().lower(), []).append(value)
        name = (fields.get("name") or [""])[0]
        if not number:
            fields.setdefault("alias", []).extend(o.network_alias)
            for key, value in (("ip", o.ip), ("ip6", o.ip6), ("mac-address", o.mac_address)):
                if value:
                    fields.setdefault(key, [value])
            if o.link_local_ip:
                fields.setdefault("link-local-ip", []).extend(o.link_local_ip)
        fields.setdefault("driver-opt", []).extend(limits)
        made[name] = _endpoint(fields)
    if len(made) > 1 and any(name in ("host", "none") or name.startswith("container:") for name in made):
        raise Exit(125, "conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    if not o.network and (o.ip or o.ip6 or o.mac_address or o.network_alias or limits):
        single = {
            "ip": [o.ip],
            "ip6": [o.ip6],
            "mac-address": [o.mac_address],
            "alias": list(o.network_alias),
            "driver-opt": limits,
        }
        made["default"] = _endpoint(single)
    if len(made) == 1 and next(iter(made.values())) == c.EndpointSettings():
        return None
    return c.NetworkingConfig(endpoints_config=made) if made else None


def _endpoint(fields: dict[str, list[str]]) -> c.EndpointSettings:
    def last(key: str) -> str:
        return (fields.get(key) or [""])[-1]

    ipam = c.EndpointIpam(i_pv4_address=last("ip"), i_pv6_address=last("ip6"), link_local_ips=fields.get("link-local-ip"))
    return c.EndpointSettings(
        ipam_config=ipam if ipam != c.EndpointIpam() else None, aliases=fields.get("alias") or None,
        mac_address=last("mac-address"),
        driver_opts=dict(one.split("=", 1) for one in fields.get("driver-opt", ()) if "=" in one) or None,
        gw_priority=_priority(last("gw-priority")),
    )  # fmt: skip


def _priority(text: str) -> int:
    digits = text.removeprefix("-")
    if text and not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise Exit(125, f'invalid argument "{text}" for gw-priority: invalid syntax')
    return int(text or "0")


def limit_options(text: str) -> list[str]:
    """--network-limit as endpoint driver options.  Raises Exit."""
    made = []
    for part in text.split(",") if text else ():
        direction, _, rate = part.partition("=")
        if direction not in ("in", "out") or not rate:
            raise Exit(125, f'invalid argument "{text}" for "--network-limit" flag: use in=RATE,out=RATE')
        made.append(f"sampan.limit.{direction}={rate}")
    return made
