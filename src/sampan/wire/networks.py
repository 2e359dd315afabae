"""Networks (engine-api 4.12)."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from sampan.wire.shape import Shape


class IpamPool(Shape, frozen=True, kw_only=True, omit_defaults=True):
    subnet: str = ""
    ip_range: str = field(name="IPRange", default="")
    gateway: str = ""


class Ipam(Shape, frozen=True, kw_only=True):
    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IpamPool] | None = None


class NetworkEndpoint(Shape, frozen=True, kw_only=True):
    """A container on a network."""

    name: str
    endpoint_id: str = field(name="EndpointID")
    mac_address: str = ""
    i_pv4_address: str = field(name="IPv4Address", default="")
    i_pv6_address: str = field(name="IPv6Address", default="")


class ConfigFrom(Shape, frozen=True, kw_only=True):
    network: str = ""


class Network(Shape, frozen=True, kw_only=True):
    name: str
    id: str
    created: str
    scope: str = "local"
    driver: str
    enable_ipv4: bool = field(name="EnableIPv4", default=True)
    enable_ipv6: bool = field(name="EnableIPv6", default=False)
    ipam: Ipam = field(name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigFrom = ConfigFrom()
    config_only: bool = False
    containers: dict[str, NetworkEndpoint] | UnsetType = UNSET
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
