"""Networks (engine-api 4.12)."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from sampan.wire.containers import EndpointSettings
from sampan.wire.shape import Shape, StringMap


class IpamPool(Shape, frozen=True, kw_only=True, omit_defaults=True):
    subnet: str = ""
    ip_range: str = field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: StringMap = None


class Ipam(Shape, frozen=True, kw_only=True):
    driver: str = "default"
    options: StringMap = None
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


class NetworkCreate(Shape, frozen=True, kw_only=True):
    """The body of POST /networks/create.  CheckDuplicate is accepted and means nothing: it is always done."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | UnsetType | None = field(name="EnableIPv4", default=UNSET)
    enable_ipv6: bool | UnsetType | None = field(name="EnableIPv6", default=UNSET)
    ipam: Ipam | None = field(name="IPAM", default=None)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFrom | None = None
    options: StringMap = None
    labels: StringMap = None


class NetworkCreated(Shape, frozen=True, kw_only=True):
    id: str
    warning: str = ""


class NetworkConnect(Shape, frozen=True, kw_only=True):
    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnect(Shape, frozen=True, kw_only=True):
    container: str = ""
    force: bool = False


class NetworksPruned(Shape, frozen=True, kw_only=True):
    networks_deleted: list[str] | None = None


class Reach(Shape, frozen=True, kw_only=True):
    """GET /sampan/networks/audit: a port of a container, where it is, and from where it is reached."""

    container: str
    network: str
    address: str
    port: str
    reached_from: list[str] = []


class Repaired(Shape, frozen=True, kw_only=True):
    """POST /sampan/networks/repair: what was found wanting and made again."""

    done: list[str] = []
    problems: list[str] = []
