"""The daemon's configuration file, with the keys of docker's daemon.json: each is honoured, means nothing here, or is refused.

Read by the command at the start, and by the daemon again at SIGHUP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sampan.errors import InvalidRequest, Unsupported

KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("data-root", "exec-root", "bridge", "bip", "cgroup-parent", "pidfile", "group", "log-driver", "log-level",
                     "tlscacert", "tlscert", "tlskey", "http-proxy", "https-proxy", "no-proxy", "default-ipc-mode",
                     "default-cgroupns-mode", "seccomp-profile", "bip6", "fixed-cidr", "fixed-cidr-v6", "default-gateway",
                     "default-gateway-v6", "ip", "host-gateway-ip"), (str,)),
    **dict.fromkeys(("init", "debug", "tls", "tlsverify", "no-new-privileges", "ipv6", "icc", "ip-forward", "ip-masq"), (bool,)),
    **dict.fromkeys(("hosts", "labels", "dns", "dns-opts", "dns-search", "insecure-registries", "registry-mirrors",
                     "registry-certs", "default-address-pools", "build-allow", "cdi-spec-dirs"), (list,)),
    "mtu": (int,), "default-stop-timeout": (int,), "default-shm-size": (str, int), "log-opts": (dict,), "proxies": (dict,),
    "default-network-opts": (dict,), "builder": (dict,),
    "default-ulimits": (dict, list),
}  # fmt: skip
RELOADED = ("debug", "labels", "insecure-registries", "registry-mirrors", "log-level")


@dataclass(frozen=True)
class Foreign:
    """A setting of docker's that nothing here reads: what it may be, and why it cannot be anything else."""

    kind: type
    meant: tuple[Any, ...]  # values that ask for what Sampan does anyway; none: whatever it is
    why: str


_OWN_RULES = "Sampan's networks need their own nftables rules and forwarding"
_NO_CONTAINERD = "there is no containerd beneath Sampan"
_NO_SWARM = "Sampan has no swarm"
FOREIGN: dict[str, Foreign] = {
    "live-restore": Foreign(bool, (True,), "containers always outlive the daemon"),
    "shutdown-timeout": Foreign(int, (), ""),
    "userland-proxy": Foreign(bool, (), ""),
    "raw-logs": Foreign(bool, (), ""),
    "iptables": Foreign(bool, (True,), _OWN_RULES), "ip6tables": Foreign(bool, (True,), _OWN_RULES),
    "firewall-backend": Foreign(str, ("", "auto", "nftables"), _OWN_RULES),
    "experimental": Foreign(bool, (False,), "there are no experimental features to switch on"),
    "storage-driver": Foreign(str, ("", "overlay2", "overlayfs"), "layers are kept by overlay"),
    "storage-opts": Foreign(list, ([],), "layers are kept by overlay, which has no options here"),
    "exec-opts": Foreign(list, ([], ["native.cgroupdriver=cgroupfs"]), "control groups are made without systemd"),
    "default-runtime": Foreign(str, ("", "sampan", "runc", "io.containerd.runc.v2"), "the runtime is Sampan's own"),
    "runtimes": Foreign(dict, ({},), "the runtime is Sampan's own"),
    "log-format": Foreign(str, ("", "text"), "the daemon's log is text"),
    "selinux-enabled": Foreign(bool, (False,), "SELinux labels are not supported"),
    "userns-remap": Foreign(str, ("", "default"), "every container has ids of its own already"),
    "rootless": Foreign(bool, (False,), "rootless mode is not there yet"),
    "features": Foreign(dict, ({}, {"buildkit": False}), "there are no features to switch"),
    "authorization-plugins": Foreign(list, ([],), "plugins are not supported"),
    "metrics-addr": Foreign(str, ("",), "the daemon has no metrics endpoint"),
    "init-path": Foreign(str, ("",), "--init is a program of Sampan's own"),
    "containerd": Foreign(str, ("",), _NO_CONTAINERD), "containerd-namespace": Foreign(str, ("", "moby"), _NO_CONTAINERD),
    "containerd-plugin-namespace": Foreign(str, ("", "plugins.moby"), _NO_CONTAINERD),
    "cri-containerd": Foreign(bool, (False,), _NO_CONTAINERD),
    "swarm-default-advertise-addr": Foreign(str, ("",), _NO_SWARM), "node-generic-resources": Foreign(list, ([],), _NO_SWARM),
    "cpu-rt-period": Foreign(int, (0,), "real-time budgets are set by container"),
    "cpu-rt-runtime": Foreign(int, (0,), "real-time budgets are set by container"),
    "max-concurrent-downloads": Foreign(int, (0, 3), "how many at once is not adjustable"),
    "max-concurrent-uploads": Foreign(int, (0, 5), "how many at once is not adjustable"),
    "max-download-attempts": Foreign(int, (0, 5), "how often a download is tried is not adjustable"),
    **{name: Foreign(str, ("",), "it is not supported yet") for name in (
        "resolv-conf", "min-api-version", "api-cors-header", "bridge-accept-fwmark", "nri-opts")},
    **{name: Foreign(kind, (kind(),), "it is not supported yet") for name, kind in (
        ("host-gateway-ips", list),
        ("allow-direct-routing", bool), ("ip-forward-no-drop", bool), ("network-diagnostic-port", int),
        ("network-control-plane-mtu", int), ("allow-nondistributable-artifacts", list), ("oom-score-adjust", int))},
}  # fmt: skip


def read(path: str, *, must_exist: bool) -> dict[str, Any]:
    """Return the file's settings, each of its kind.  Raises InvalidRequest, Unsupported; FileNotFoundError if it must exist."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        if must_exist:
            raise
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(str(error)) from None
    if not isinstance(found, dict):
        raise InvalidRequest("an object is needed")
    unknown = sorted(set(found) - set(KINDS) - set(FOREIGN))
    if unknown:
        raise InvalidRequest(f"the following directives don't match any configuration option: {', '.join(unknown)}")
    for key, value in found.items():
        _check_kind(key, value, KINDS.get(key) or (FOREIGN[key].kind,))
    return normal(without_foreign(found))


def _check_kind(key: str, value: Any, kinds: tuple[type, ...]) -> None:
    right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    if isinstance(value, list) and key != "default-address-pools":
        right = right and all(isinstance(one, str) for one in value)
    if not right:
        raise InvalidRequest(f"{key}: a {kinds[0].__name__} is needed")


def without_foreign(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those that mean nothing here.  Raises Unsupported for one that asks for something else."""
    for key, value in found.items():
        one = FOREIGN.get(key)
        if one is not None and one.meant and value not in one.meant:
            raise Unsupported(f"{key}: {value if value != '' else repr(value)} cannot be: {one.why}")
    return {key: value for key, value in found.items() if key not in FOREIGN}


def normal(found: dict[str, Any]) -> dict[str, Any]:
    """Return the file's objects as the flags write them: pools and ulimits as words, proxies as settings of their own."""
    made = {key: value for key, value in found.items() if key != "proxies"}
    for key, value in found.get("proxies", {}).items():
        if key not in ("http-proxy", "https-proxy", "no-proxy") or not isinstance(value, str):
            raise InvalidRequest(f"proxies: {key[:32]}: http-proxy, https-proxy and no-proxy are known, each a string")
        made[key] = value
    if "default-address-pools" in found:
        made["default-address-pools"] = [_pool(one) for one in found["default-address-pools"]]
    if isinstance(found.get("default-ulimits"), dict):
        made["default-ulimits"] = [_ulimit(name, one) for name, one in found["default-ulimits"].items()]
    if "builder" in found:
        made["build-allow"] = _entitlements(made.pop("builder"))
    return made


def _entitlements(builder: dict[str, Any]) -> list[str]:
    """Return what the daemon lets steps of builds ask for: `builder.entitlements`, with docker's defaults."""
    allowed = {"network-host": True, "security-insecure": False, "device": True}
    given = builder.get("entitlements", {})
    if set(builder) - {"entitlements"} or not isinstance(given, dict) or set(given) - set(allowed):
        raise Unsupported("builder: only entitlements are known here: network-host, security-insecure and device")
    if not all(isinstance(value, bool) for value in given.values()):
        raise InvalidRequest("builder: entitlements: true or false is needed")
    return [name.replace("-", ".") for name, value in {**allowed, **given}.items() if value]


def _pool(one: Any) -> str:
    if not isinstance(one, dict | str):
        raise InvalidRequest("default-address-pools: objects with base and size are needed")
    return one if isinstance(one, str) else ",".join(f"{key}={value}" for key, value in one.items())


def _ulimit(name: str, one: Any) -> str:
    members = {str(key).lower(): value for key, value in one.items()} if isinstance(one, dict) else {}
    soft, hard = members.get("soft"), members.get("hard")
    if not isinstance(soft, int) or not isinstance(hard, int) or members.get("name", name) != name:
        raise InvalidRequest(f"default-ulimits: {name[:32]}: an object with Name, Soft and Hard is needed")
    return f"{name}={soft}:{hard}"
