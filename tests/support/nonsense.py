"""Requests that decode and mean nothing: every field of the API with values that nobody should send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

WORDS = (
    "", " ", ".", "..", "/", "../..", "/..", "a/../../b", "a\nb", "a\tb", "\x7f", "\u0660", "\u202e", "x" * 5000, "-1", "=", "a=",
    "=b", ":", "::", ":::", "a:b:c:d:e", "%s%n", "$(id)", "container:", "container:nosuch", "host", "private", "none", "default",
    "18446744073709551616", "1.5", "0x1", "1e3", "nan", "/proc", "/proc/self/fd/1:/x", "/sys:/proc/sys", "a,b,c", "b 8:0 rwm",
    "tcp://", "80/tcp", "[::]:1", "999.1.1.1", "\ufeff", "a" * 255, "seccomp=", "seccomp={}", "apparmor=x", "label=x",
    "no-new-privileges=maybe", "CAP_ALL", "ALL", "cap_nosuch", "name:0.0.0.0", "name:x", "ro,rw", "z,Z", "shared",
)  # fmt: skip
NUMBERS = (-(2**63), -1001, -2, -1, 0, 1, 2, 3, 7, 1000, 1001, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1)
TOP_WORDS = ("Hostname", "Domainname", "User", "Image", "WorkingDir", "StopSignal", "MacAddress")
TOP_LISTS = ("Env", "Cmd", "Entrypoint", "Shell", "OnBuild")
TOP_SETS = ("ExposedPorts", "Volumes")
HOST_WORDS = (
    "NetworkMode", "IpcMode", "PidMode", "UTSMode", "UsernsMode", "CgroupnsMode", "Cgroup", "CgroupParent", "Runtime", "Isolation",
    "VolumeDriver", "CpusetCpus", "CpusetMems", "ContainerIDFile",
)  # fmt: skip
HOST_LISTS = (
    "Binds", "VolumesFrom", "CapAdd", "CapDrop", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd", "Links", "SecurityOpt",
    "MaskedPaths", "ReadonlyPaths", "DeviceCgroupRules",
)  # fmt: skip
HOST_MAPS = ("Tmpfs", "Sysctls", "Annotations", "StorageOpt")
HOST_NUMBERS = (
    "OomScoreAdj", "ShmSize", "CpuShares", "Memory", "NanoCpus", "BlkioWeight", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod",
    "CpuRealtimeRuntime", "MemoryReservation", "MemorySwap", "MemorySwappiness", "PidsLimit", "CpuCount", "CpuPercent",
    "IOMaximumIOps", "IOMaximumBandwidth",
)  # fmt: skip


def _structures(word: str) -> Iterator[tuple[str, Any]]:
    yield "PortBindings", {word: [{"HostPort": "0"}]}
    yield "PortBindings", {"80/tcp": [{"HostIp": word}]}
    yield "PortBindings", {"80/tcp": [{"HostPort": word}]}
    yield "RestartPolicy", {"Name": word, "MaximumRetryCount": -5}
    yield "LogConfig", {"Type": word}
    yield "LogConfig", {"Type": "json-file", "Config": {word: word}}
    yield "LogConfig", {"Type": "json-file", "Config": {"max-size": word, "max-file": word}}
    yield "Devices", [{"PathOnHost": word, "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]
    yield "Devices", [{"PathOnHost": "/dev/null", "PathInContainer": word, "CgroupPermissions": word}]
    yield "DeviceRequests", [{"Driver": word, "Count": -1, "DeviceIDs": [word], "Capabilities": [[word]]}]
    yield "Ulimits", [{"Name": word, "Soft": 1, "Hard": 0}]
    yield "BlkioWeightDevice", [{"Path": word, "Weight": 1}]
    yield "BlkioDeviceReadBps", [{"Path": word, "Rate": 1}]
    yield "Mounts", [{"Type": word, "Target": "/m"}]
    yield "Mounts", [{"Type": "bind", "Source": word, "Target": "/m", "BindOptions": {"Propagation": word}}]
    yield "Mounts", [{"Type": "tmpfs", "Target": word, "TmpfsOptions": {"SizeBytes": -1, "Mode": 2**40}}]
    yield "Mounts", [{"Type": "volume", "Source": word, "Target": "/m", "VolumeOptions": {"Subpath": word}}]


def bodies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (what it is, body); each has one thing wrong, some have nothing wrong."""
    for word in WORDS:
        for key in TOP_WORDS:
            yield f"{key} {word[:20]!r}", {key: word}
        for key in TOP_LISTS:
            yield f"{key} {word[:20]!r}", {key: [word]}
        for key in TOP_SETS:
            yield f"{key} {word[:20]!r}", {key: {word: {}}}
        yield f"Labels {word[:20]!r}", {"Labels": {word: word}}
        for key in HOST_WORDS:
            yield f"{key} {word[:20]!r}", {"HostConfig": {key: word}}
        for key in HOST_LISTS:
            yield f"{key} {word[:20]!r}", {"HostConfig": {key: [word]}}
        for key in HOST_MAPS:
            yield f"{key} {word[:20]!r}", {"HostConfig": {key: {word: word}}}
            yield f"{key} /m {word[:20]!r}", {"HostConfig": {key: {"/m": word}}}
        for key, value in _structures(word):
            yield f"{key} {str(value)[:60]}", {"HostConfig": {key: value}}
        yield f"endpoint {word[:20]!r}", {"NetworkingConfig": {"EndpointsConfig": {word: {"MacAddress": word}}}}
        yield f"address {word[:20]!r}", {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": word}}}}}
    for number in NUMBERS:
        for key in HOST_NUMBERS:
            yield f"{key} {number}", {"HostConfig": {key: number}}
        yield f"StopTimeout {number}", {"StopTimeout": number}
        yield f"ConsoleSize {number}", {"Tty": True, "HostConfig": {"ConsoleSize": [number, number]}}
        yield f"Ulimit {number}", {"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": number, "Hard": number}]}}
        yield f"Rate {number}", {"HostConfig": {"BlkioDeviceWriteIOps": [{"Path": "/dev/null", "Rate": number}]}}
        yield (
            f"tmpfs {number}",
            {"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": number}}]}},
        )
        yield f"Health {number}", {"Healthcheck": {"Test": ["CMD", "true"], "Interval": number, "Retries": number}}


Sent = tuple[str, str, dict[str, Any] | bytes | None]


def _networks(word: str) -> Iterator[Sent]:
    path = "/networks/create"
    for key in ("Name", "Driver", "Scope"):
        yield "POST", path, {"Name": "nn", key: word}
    for key in ("Subnet", "Gateway", "IPRange"):
        yield "POST", path, {"Name": "nn", "EnableIPv6": True, "IPAM": {"Config": [{key: word}]}}
    yield "POST", path, {"Name": "nn", "IPAM": {"Driver": word, "Options": {word: word}}}
    yield "POST", path, {"Name": "nn", "IPAM": {"Config": [{"Subnet": "10.1.0.0/16", "AuxiliaryAddresses": {word: word}}]}}
    yield "POST", path, {"Name": "nn", "Options": {word: word}, "Labels": {word: word}}
    for option in ("bridge.name", "driver.mtu", "bridge.enable_icc", "bridge.host_binding_ipv4"):
        yield "POST", path, {"Name": "nn", "Options": {f"com.docker.network.{option}": word}}
    yield "POST", "/networks/bridge/connect", {"Container": word}
    settings = {
        "IPAMConfig": {"IPv4Address": word},
        "Aliases": [word],
        "MacAddress": word,
        "Links": [word],
        "DriverOpts": {word: word},
    }
    yield "POST", "/networks/bridge/connect", {"Container": "web", "EndpointConfig": settings}
    yield "POST", "/networks/bridge/disconnect", {"Container": word, "Force": True}


def _volumes(word: str) -> Iterator[Sent]:
    for key in ("Name", "Driver"):
        yield "POST", "/volumes/create", {key: word}
    for key in ("type", "device", "o", "size", word):
        yield "POST", "/volumes/create", {"Name": "vv", "DriverOpts": {key: word}}
    yield "POST", "/volumes/create", {"Name": "vv", "Labels": {word: word}}


def _containers(word: str) -> Iterator[Sent]:
    for key in ("User", "WorkingDir", "DetachKeys"):
        yield "POST", "/containers/run/exec", {"Cmd": ["true"], key: word}
    yield "POST", "/containers/run/exec", {"Cmd": [word], "Env": [word]}
    for key in ("CpusetCpus", "CpusetMems", "CgroupParent"):
        yield "POST", "/containers/run/update", {key: word}
    yield "POST", "/containers/run/update", {"RestartPolicy": {"Name": word}}
    for key in ("User", "WorkingDir"):
        yield "POST", "/commit?container=web&repo=c", {key: word}
    yield "POST", "/auth", {"username": word, "serveraddress": f"{word}.invalid:1"}


def _targets(word: str) -> Iterator[Sent]:
    text = quote(word, safe="")
    for target in (
        "GET /networks/{}", "DELETE /networks/{}", "GET /volumes/{}", "DELETE /volumes/{}?force={}",
        "POST /containers/run/rename?name={}", "GET /containers/run/archive?path={}", "HEAD /containers/run/archive?path={}",
        "PUT /containers/run/archive?path={}", "GET /containers/run/top?ps_args={}",
        "GET /containers/run/logs?stdout=1&tail={}", "GET /containers/run/stats?stream=0&one-shot={}",
        "POST /commit?container={}&repo=a", "POST /commit?container=web&repo={}", "POST /commit?container=web&changes={}",
        "POST /images/create?fromSrc={}", "GET /images/{}/json", "GET /images/{}/get", "GET /images/{}/history",
        "GET /images/get?names={}", "POST /images/busybox/tag?repo={}&tag={}", "POST /containers/prune?filters={}",
        "POST /images/prune?filters={}", "POST /volumes/prune?filters={}", "POST /networks/prune?filters={}",
        "GET /containers/{}/json?size=1", "GET /system/df?type={}",
    ):  # fmt: skip
        method, _, path = target.partition(" ")
        yield method, path.replace("{}", text), b"x" if method == "PUT" else {} if "/commit" in path else None
    for key in ("t", "dockerfile", "target", "platform", "networkmode", "shmsize", "memory", "cpusetcpus", "buildargs", "labels",
                "cachefrom", "ulimits", "extrahosts", "q", "rm", "cgroupparent", "outputs", "version", "session"):  # fmt: skip
        yield "POST", f"/build?{key}={text}", bytes(1024)
    filters = quote(json.dumps({"label": [word], "name": [word], "id": [word], "until": [word], "ancestor": [word]}))
    for path in ("/containers/json", "/images/json", "/volumes", "/networks"):
        yield "GET", f"{path}?filters={filters}", None


def requests() -> Iterator[Sent]:
    """Yield (method, target, body).  They assume containers `web` (not running) and `run` (running), and an image busybox."""
    for word in WORDS:
        for kind in (_networks, _volumes, _containers, _targets):
            yield from kind(word)
    for number in NUMBERS:
        for key in (*HOST_NUMBERS, "KernelMemory"):
            yield "POST", "/containers/run/update", {key: number}
        yield "POST", "/containers/run/update", {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": number}}
        yield "POST", f"/containers/run/resize?h={number}&w={number}", None
        yield "POST", "/containers/run/exec", {"Cmd": ["true"], "Tty": True, "ConsoleSize": [number, number]}
        yield "POST", f"/build?shmsize={number}&memory={number}&memswap={number}&cpuquota={number}&cpuperiod={number}", bytes(1024)
        yield "POST", "/networks/create", {"Name": "nn", "Options": {"com.docker.network.driver.mtu": str(number)}}
        for key in ("since", "until", "tail"):
            yield "GET", f"/containers/run/logs?stdout=1&{key}={number}", None
