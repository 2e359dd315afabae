"""Capabilities, filter, masked paths and sysctls of a container (caps.md 1-3, 7)."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from msgspec import UNSET

from sampan.errors import InvalidRequest
from sampan.kernel import caps
from sampan.kernel.calls import kernel_version
from sampan.oci.defaults import MASKED, READONLY
from sampan.oci.runtime import Capabilities, Seccomp
from sampan.oci.seccomp_profile import default_profile, parse_profile
from sampan.wire.containers import HostConfig

DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
)
_IPC = ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
_KERNEL, _MACHINE = kernel_version(), platform.machine()
_APPARMOR, _SELINUX = Path("/sys/module/apparmor"), Path("/sys/fs/selinux")
_profiles: dict[tuple[str, ...], Seccomp] = {}


def normalise(names: Sequence[str] | None, option: str) -> list[str]:
    """Return capability names as CAP_X or ALL, once each.  Raises InvalidRequest."""
    made = []
    for name in names or ():
        word = name.upper()
        word = word if word == "ALL" or word.startswith("CAP_") else f"CAP_{word}"
        if word != "ALL" and word not in caps.NAMES:
            raise InvalidRequest(f'invalid {option}: unknown capability: "{word[:64]}"')
        made.append(word)
    return list(dict.fromkeys(made))


def all_capabilities() -> tuple[str, ...]:
    """Return what the daemon itself holds."""
    held = caps.get()[1]
    return tuple(name for name, bit in caps.NAMES.items() if held >> bit & 1)


def bounding(host: HostConfig) -> tuple[str, ...]:
    """Return the capabilities of the container."""
    if host.privileged:
        return all_capabilities()
    add, drop = normalise(host.cap_add, "CapAdd"), normalise(host.cap_drop, "CapDrop")
    base = () if "ALL" in drop else all_capabilities() if "ALL" in add else DEFAULT_CAPABILITIES
    wanted = dict.fromkeys((*base, *(name for name in add if name != "ALL")))
    if "ALL" in drop and "ALL" in add:
        wanted = dict.fromkeys(all_capabilities())
    return tuple(name for name in wanted if name not in drop or "ALL" in drop)


def capability_sets(names: tuple[str, ...]) -> Capabilities:
    """Inheritable and ambient stay empty (CVE-2022-24769, SECURITY.md row 20)."""
    return Capabilities(bounding=names, effective=names, permitted=names)


def _no_label(asked: str, module: str, sign: Path, without: str) -> str:
    """Say why a label is refused: a protection is never silently missing (P17)."""
    lacks = f"Sampan does not apply {module} labels; --security-opt {without} says that none is needed"
    return f"{asked} asked for, and {lacks if sign.exists() else f'this host has no {module}'}"


class Options:
    """HostConfig.SecurityOpt, understood.  Raises InvalidRequest."""

    def __init__(self, host: HostConfig) -> None:
        self.no_new_privileges = False
        self.all_paths = False
        self.seccomp = "unconfined" if host.privileged else "builtin"
        self.writable_cgroups = host.privileged
        for option in host.security_opt or ():
            key, _, value = option.partition("=") if "=" in option else option.partition(":")
            if key == "no-new-privileges" and value in ("", "true", "false"):
                self.no_new_privileges = value != "false"
            elif key == "seccomp" and value:
                self.seccomp = value
            elif key == "apparmor" and value == "unconfined":
                pass
            elif key == "apparmor":
                raise InvalidRequest(_no_label(f"AppArmor profile {value!r} was", "AppArmor", _APPARMOR, "apparmor=unconfined"))
            elif key == "label" and value == "disable":
                pass
            elif key == "label":
                raise InvalidRequest(_no_label("SELinux labels were", "SELinux", _SELINUX, "label=disable"))
            elif key == "systempaths" and value == "unconfined":
                self.all_paths = True
            elif key == "writable-cgroups" and value in ("true", "false"):
                self.writable_cgroups = value == "true"
            else:
                raise InvalidRequest(f'invalid --security-opt 2: "{option[:64]}"')

    def filter(self, names: tuple[str, ...]) -> Seccomp | None:
        """Return the seccomp filter for a bounding set.  Raises InvalidRequest."""
        if self.seccomp == "unconfined":
            return None
        if self.seccomp == "builtin":
            if names not in _profiles:
                if len(_profiles) > 64:
                    _profiles.clear()
                _profiles[names] = default_profile(names, _KERNEL, _MACHINE)
            return _profiles[names]
        return parse_profile(self.seccomp, names, _KERNEL, _MACHINE)


def masked_paths(host: HostConfig) -> tuple[str, ...]:
    if host.masked_paths is not None:
        return tuple(host.masked_paths)
    return () if host.privileged else MASKED


def readonly_paths(host: HostConfig) -> tuple[str, ...]:
    if host.readonly_paths is not None:
        return tuple(host.readonly_paths)
    return () if host.privileged else READONLY


def sysctls(host: HostConfig, ids: int = 2**31) -> dict[str, str]:
    """Return the sysctls to set; only namespaced ones.  ids: how many group ids there are inside.  Raises InvalidRequest."""
    own_network = host.network_mode != "host" and not host.network_mode.startswith("container:")
    made: dict[str, str] = {}
    if own_network:  # so that nobody needs a capability to ping or to listen below 1024, as with Docker
        made = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0\t{ids - 1}"}
    for key, value in ({} if host.sysctls is UNSET else host.sysctls or {}).items():
        name = key.replace("/", ".") if "/" in key and "." not in key else key
        if any(ord(sign) < 33 for sign in name) or ".." in name or "\n" in value or "\0" in value:
            raise InvalidRequest(f"invalid sysctl {key[:64]!r}")
        if name.startswith("net."):
            if not own_network:
                raise InvalidRequest(f"sysctl {key!r} is not allowed with host or container networking")
        elif name.startswith("fs.mqueue.") or (name.startswith("kernel.") and name[7:] in _IPC):
            if host.ipc_mode == "host":
                raise InvalidRequest(f"sysctl {key!r} is not allowed with the host's IPC namespace")
        else:
            raise InvalidRequest(f"sysctl {key[:64]!r} is not in a separate kernel namespace")
        made[name] = value
    return made
