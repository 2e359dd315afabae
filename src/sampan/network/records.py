"""What the network room remembers and tells: networks, endpoints, bindings that are wanted, ports that are published."""

from __future__ import annotations

import ipaddress

from msgspec import Struct

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
BRIDGE = "com.docker.network.bridge."
LOOPBACK6 = ipaddress.IPv6Address("::1")
WAY_OUT = "DefaultGatewayIPv"  # an auxiliary address of this name, and 4 or 6: the containers' gateway instead of the bridge
MTU_OPTION = "com.docker.network.driver.mtu"


class Subnet(Struct, frozen=True, kw_only=True):
    """One subnet of a network: as CIDR text; what is handed out comes from `ip_range` when there is one.

    chosen: by whoever made the network (only then may containers ask for addresses of their own).
    """

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    aux: dict[str, str] = {}
    chosen: bool = True

    @property
    def way_out(self) -> str:
        """Return what containers' default route leads to."""
        return self.aux.get(f"{WAY_OUT}{6 if ':' in self.subnet else 4}") or self.gateway


class NetworkInfo(Struct, frozen=True, kw_only=True):
    """A network.  subnets is empty where the driver gives no addresses.  link: the bridge's or the parent's
    name, made_link: whether it was made for the network."""

    id: str
    name: str
    driver: str
    scope: str = "local"
    subnets: tuple[Subnet, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    link: str = ""
    made_link: bool = True
    mtu: int = 1500
    internal: bool = False
    attachable: bool = False
    config_only: bool = False
    config_from: str = ""
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    created: str = ""

    @property
    def predefined(self) -> bool:
        return self.name in ("bridge", "host", "none")

    @property
    def default(self) -> bool:
        """Whether it is the one that containers join when nothing is said."""
        return self.name == "bridge"

    def mode(self, version: int) -> str:
        """Return how an IP version of it meets the world: "nat", "nat-unprotected", "routed" or "isolated"."""
        return self.options.get(f"{BRIDGE}gateway_mode_ipv{version}", "") or "nat"

    def enabled(self, option: str, *, default: bool = True) -> bool:
        """Return whether an option of the bridge driver (its last word) is on."""
        text = self.options.get(f"{BRIDGE}{option}", "")
        return default if not text else text.lower() in ("1", "t", "true")


class PortBinding(Struct, frozen=True):
    """A port to be published: any host port of first..last that is free, or of the ephemeral range when first is 0."""

    container_port: int
    proto: str = "tcp"
    host_ip: str = ""
    first: int = 0
    last: int = 0


class Published(Struct, frozen=True):
    """A host port that leads to a container's port; host_port 0: the container's own is open (a routed network)."""

    container_port: int
    proto: str
    host_ip: str
    host_port: int


class Wanted(Struct, frozen=True, kw_only=True):
    """What is asked for an endpoint; "" and empty leave the choice to the network."""

    mac: str = ""
    ipv4: str = ""
    ipv6: str = ""
    link_local: tuple[str, ...] = ()
    ifname: str = ""
    options: dict[str, str] = {}
    priority: int = 0
    names: tuple[str, ...] = ()
    links: dict[str, str] = {}
    servers: tuple[str, ...] = ()


class Endpoint(Struct, frozen=True, kw_only=True):
    """A container's place on a network: its lease, its link, its published ports.  Durable.

    ip, ip6: "" where the network gives none.  gateway, gateway6: "" on internal networks.  names: what others on the
    network call it.  links: what the container itself calls others (name -> container's name).  servers: whom to ask for
    names that nobody has here, empty for the host's.
    """

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
    ip6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    ifname: str = "eth0"
    priority: int = 0
    options: dict[str, str] = {}
    names: tuple[str, ...] = ()
    links: dict[str, str] = {}
    link_local: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()

    @property
    def addresses(self) -> list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]:
        """Return its addresses with their prefixes."""
        made: list[ipaddress.IPv4Interface | ipaddress.IPv6Interface] = []
        if self.ip:
            made.append(ipaddress.IPv4Interface(f"{self.ip}/{self.prefix}"))
        if self.ip6:
            made.append(ipaddress.IPv6Interface(f"{self.ip6}/{self.prefix6}"))
        for text in self.link_local:
            made.append(ipaddress.ip_interface(f"{text}/{16 if ':' not in text else 64}"))
        return made
