"""What the network room remembers and tells: networks, endpoints, bindings that are wanted, ports that are published."""

from __future__ import annotations

import ipaddress

from msgspec import Struct

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class NetworkInfo(Struct, frozen=True, kw_only=True):
    """A network.  subnet and gateway are "" where the driver gives no addresses."""

    id: str
    name: str
    driver: str
    scope: str = "local"
    subnet: str = ""
    gateway: str = ""
    mtu: int = 1500
    internal: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    created: str = ""


class PortBinding(Struct, frozen=True):
    """A port to be published: any host port of first..last that is free, or of the ephemeral range when first is 0."""

    container_port: int
    proto: str = "tcp"
    host_ip: str = ""
    first: int = 0
    last: int = 0


class Published(Struct, frozen=True):
    """A host port that leads to a container's port."""

    container_port: int
    proto: str
    host_ip: str
    host_port: int


class Endpoint(Struct, frozen=True, kw_only=True):
    """A container's place on a network: its lease, its link, its published ports.  Durable."""

    id: str
    network_id: str
    container_id: str
    ip: str
    prefix: int
    gateway: str
    mac: str
    veth_host: str
    mtu: int = 1500
    published: tuple[Published, ...] = ()

    @property
    def interface(self) -> ipaddress.IPv4Interface:
        return ipaddress.IPv4Interface(f"{self.ip}/{self.prefix}")
