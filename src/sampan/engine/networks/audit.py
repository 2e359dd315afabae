"""What can be reached from where: the published ports, and what networks leave open between their members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sampan.engine.containers.container import Container
from sampan.network.manager import Networks
from sampan.network.parents import PARENT
from sampan.network.records import Endpoint, NetworkInfo, Published
from sampan.wire import networks as n


def audit(networks: Networks, containers: Iterable[Container]) -> list[n.Reach]:
    """Return a row for each published port, and one for each endpoint's other ports."""
    rows = []
    for container in containers:
        if container.record.host.network_mode == "host" and container.record.running:
            rows.append(n.Reach(container=container.record.name, network="host", address="the host's", port="any",
                                reached_from=["whoever reaches the host"]))  # fmt: skip
        for endpoint in container.endpoints:
            info = networks.network_of(endpoint)
            rows += [_published(container, info, endpoint, port) for port in endpoint.published]
            rows.append(
                n.Reach(
                    container=container.record.name, network=info.name, address=endpoint.ip or endpoint.ip6, port="any",
                    reached_from=list(_others(info)),
                )
            )  # fmt: skip
    return rows


def _published(container: Container, info: NetworkInfo, endpoint: Endpoint, port: Published) -> n.Reach:
    host = port.host_ip
    if not port.host_port:
        own = f"[{endpoint.ip6}]" if ":" in host else endpoint.ip
        return n.Reach(
            container=container.record.name, network=info.name, address=f"{own}:{port.container_port}",
            port=f"{port.container_port}/{port.proto}", reached_from=["whoever has a route to it"],
        )  # fmt: skip
    if host in ("0.0.0.0", "::"):
        sources = ["whoever reaches the host"]
    elif host.startswith("127.") or host == "::1":
        sources = ["the host itself"]
    else:
        sources = [f"whoever reaches {host}"]
    shown = f"[{host}]" if ":" in host else host
    return n.Reach(
        container=container.record.name, network=info.name, address=f"{shown}:{port.host_port}",
        port=f"{port.container_port}/{port.proto}", reached_from=sources,
    )  # fmt: skip


def _others(info: NetworkInfo) -> Iterator[str]:
    if info.driver in ("macvlan", "ipvlan"):
        yield f"the LAN of {info.link}" if info.options.get(PARENT) else f"network {info.name}"
        return
    versions = [version for version, on in ((4, info.ipv4), (6, info.ipv6)) if on]
    if any(info.mode(version) != "isolated" for version in versions):
        yield "the host itself"
    if info.enabled("enable_icc"):
        yield f"network {info.name}"
    if any(info.mode(version) == "nat-unprotected" for version in versions):
        yield "whoever has a route to it"
