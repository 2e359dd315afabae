"""A network's life and its containers', asked of both daemons."""

from __future__ import annotations

from typing import Any

from table import create, delete, filtered, get, post

# Ours says more of itself (newer API), and a container list has the run's own ids for keys.
_NEWER = frozenset({"EnableIPv4", "DNSNames", "GwPriority"})
_ALL_BUT_NETWORKS = _NEWER | {
    "State", "HostConfig", "Config", "Mounts", "Image", "Path", "Args", "Id", "Name", "AppArmorProfile", "RestartCount", "Platform",
    "MountLabel", "ProcessLabel", "ExecIDs",
}  # fmt: skip


def network(name: str, called: str, *pools: dict[str, Any], **more: Any) -> Any:
    return post(name, "/networks/create", {"Name": called, "CheckDuplicate": True, "IPAM": {"Config": list(pools)}, **more})


def joined(name: str, to: str, container: str = "netted", **config: Any) -> Any:
    return post(name, f"/networks/{to}/connect", {"Container": container, "EndpointConfig": config})


def settings(name: str) -> Any:
    return get(name, "/containers/netted/json", dropped=_ALL_BUT_NETWORKS)


NETWORK_LIFE = (
    network("network life: create", "n1", {"Subnet": "10.231.0.0/24", "IPRange": "10.231.0.128/25", "Gateway": "10.231.0.9",
            "AuxiliaryAddresses": {"printer": "10.231.0.129"}}, Labels={"tier": "x"},
            Options={"com.docker.network.driver.mtu": "1400"}),
    get("network life: inspect", "/networks/n1", dropped=_NEWER),
    network("network life: create again", "n1"),
    network("network life: overlap", "n2", {"Subnet": "10.231.0.0/16"}),
    network("network life: gateway elsewhere", "n2", {"Subnet": "10.232.0.0/24", "Gateway": "10.233.0.1"}),
    network("network life: bad option", "n2", Options={"com.docker.network.bridge.enable_icc": "maybe"}),
    network("network life: bad mtu", "n2", Options={"com.docker.network.driver.mtu": "x"}),
    network("network life: both ip versions", "n3", {"Subnet": "10.234.0.0/24"}, {"Subnet": "fd00:234::/64"}, EnableIPv6=True,
            Internal=True, Attachable=True),
    get("network life: inspect both", "/networks/n3", dropped=_NEWER),
    network("network life: subnet of the pools", "n4"),
    create("network life: create container", "netted", HostConfig={"NetworkMode": "n1"}, NetworkingConfig={"EndpointsConfig": {
        "n1": {"IPAMConfig": {"IPv4Address": "10.231.0.77"}, "Aliases": ["www"], "MacAddress": "02:42:0a:e7:00:77"}}}),
    post("network life: start container", "/containers/netted/start"),
    settings("network life: container"),
    get("network life: inspect used", "/networks/n1", dropped=_NEWER),
    joined("network life: connect", "n3", Aliases=["inner"],
           IPAMConfig={"IPv4Address": "10.234.0.7", "IPv6Address": "fd00:234::7"}),
    settings("network life: container on both"),
    joined("network life: connect again", "n3"),
    joined("network life: address of nobody's choice", "n4", IPAMConfig={"IPv4Address": "10.235.0.7"}),
    joined("network life: connect to a bad address", "n4", IPAMConfig={"IPv4Address": "x"}),
    delete("network life: remove used", "/networks/n1"),
    post("network life: disconnect", "/networks/n3/disconnect", {"Container": "netted"}),
    settings("network life: container on one"),
    post("network life: disconnect again", "/networks/n3/disconnect", {"Container": "netted"}),
    create("network life: address taken", "second", HostConfig={"NetworkMode": "n1"}, NetworkingConfig={"EndpointsConfig": {
        "n1": {"IPAMConfig": {"IPv4Address": "10.231.0.77"}}}}),
    post("network life: start with a taken address", "/containers/second/start"),
    create("network life: address elsewhere", "third", HostConfig={"NetworkMode": "n1"}, NetworkingConfig={"EndpointsConfig": {
        "n1": {"IPAMConfig": {"IPv4Address": "10.99.0.77"}}}}),
    post("network life: start with an address elsewhere", "/containers/third/start"),
    get("network life: list by label", filtered("/networks", '{"label":["tier=x"]}'), dropped=_NEWER),
    get("network life: list by driver and type", filtered("/networks", '{"driver":["bridge"],"type":["custom"]}'), dropped=_NEWER
        | {"IPAM"}, sorted_by=lambda one: one["Name"]),
    get("network life: list unused", filtered("/networks", '{"dangling":["true"]}'), dropped=_NEWER | {"IPAM"},
        sorted_by=lambda one: one["Name"]),
    post("network life: prune by label", filtered("/networks/prune", '{"label":["nope"]}')),
    *(delete(f"network life: remove {name}", f"/containers/{name}?force=1") for name in ("netted", "second", "third")),
    *(delete(f"network life: remove {name}", f"/networks/{name}") for name in ("n1", "n3", "n4")),
)  # fmt: skip
