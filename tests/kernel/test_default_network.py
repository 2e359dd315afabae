"""What the daemon's options make of the default network."""

from __future__ import annotations

import os

import pytest
from msgspec import structs

from kernel.net_place import LAN_NEIGHBOUR6, World
from sampan.errors import Conflict, InvalidRequest
from sampan.kernel import netns
from sampan.network.defaults import Defaults
from sampan.network.manager import Networks
from sampan.network.records import BRIDGE, MTU_OPTION, NetworkInfo, PortBinding, Subnet

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")
SIX = Defaults(bridge="smptd1", bip="10.213.1.1/24", ipv6=True, fixed_cidr_v6="fd00:91::/64")


def start(world: World, defaults: Defaults, name: str = "one") -> Networks:
    state = world.state(name)
    world.stack.callback(state.close)
    made = Networks(state, defaults, instance=name)
    made.start()
    world.managers.append(made)
    return made


def test_ipv6_is_given_on_the_default_network_and_stays_over_a_restart(world: World) -> None:
    manager = start(world, SIX)
    space, endpoint = world.container(manager, PortBinding(80, "tcp", "", 8080, 8080))
    server = world.listen(space)
    lan = world.add_neighbour()

    assert (endpoint.ip6, endpoint.prefix6, endpoint.gateway6) == ("fd00:91::2", 64, "fd00:91::1")
    assert [(one.host_ip, one.host_port) for one in endpoint.published] == [("0.0.0.0", 8080), ("::", 8080)]
    assert world.peer_seen(lan, "fd00:213::1", 8080, server) == LAN_NEIGHBOUR6
    manager.stop()
    manager.start()
    assert manager.get("bridge").subnets[1].subnet == "fd00:91::/64" and world.opens(lan, "fd00:213::1", 8080)


def test_without_a_subnet_one_of_the_hosts_own_is_chosen_and_kept(world: World) -> None:
    wanted = structs.replace(SIX, fixed_cidr_v6="")
    manager = start(world, wanted)
    chosen = manager.get("bridge").subnets[1].subnet
    manager.stop(remove=True)
    manager.start()

    assert chosen.startswith("fd") and chosen.endswith("/64") and manager.get("bridge").subnets[1].subnet == chosen


def test_row_77_without_the_option_there_is_no_ipv6_any_more(world: World) -> None:
    manager = start(world, SIX)
    manager.stop(remove=True)
    manager.defaults = structs.replace(SIX, ipv6=False, fixed_cidr_v6="")
    manager.start()
    space, endpoint = world.container(manager)

    assert endpoint.ip6 == "" and len(manager.get("bridge").subnets) == 1
    with netns.inside(space), open("/proc/thread-self/net/if_inet6") as table:
        assert {line.split()[-1] for line in table} == {"lo"}


def test_every_option_is_seen_on_the_network_as_dockerd_shows_it(world: World) -> None:
    """The expected values are those of dockerd 20.10, asked with the same options; it leaves the IPv6 gateway out."""
    manager = start(
        world, Defaults(
            bridge="smptd1", bip="10.88.0.1/16", fixed_cidr="10.88.4.0/24", default_gateway="10.88.0.7", ipv6=True,
            fixed_cidr_v6="fd00:88::/64", default_gateway_v6="fd00:88::7", mtu=1400, icc=False, ip="127.0.0.1",
        ),
    )  # fmt: skip
    info = manager.get("bridge")
    space, endpoint = world.container(manager, PortBinding(80, "tcp", "", 8080, 8080))

    assert info.subnets == (
        Subnet(subnet="10.88.0.0/16", ip_range="10.88.4.0/24", gateway="10.88.0.1", aux={"DefaultGatewayIPv4": "10.88.0.7"}),
        Subnet(subnet="fd00:88::/64", gateway="fd00:88::1", aux={"DefaultGatewayIPv6": "fd00:88::7"}),
    )
    assert info.options == {
        f"{BRIDGE}default_bridge": "true", f"{BRIDGE}enable_icc": "false", f"{BRIDGE}enable_ip_masquerade": "true",
        f"{BRIDGE}host_binding_ipv4": "127.0.0.1", f"{BRIDGE}name": "smptd1", MTU_OPTION: "1400",
    }  # fmt: skip
    assert (endpoint.ip, endpoint.gateway, endpoint.gateway6, endpoint.mtu) == ("10.88.4.0", "10.88.0.7", "fd00:88::7", 1400)
    assert [one.host_ip for one in endpoint.published] == ["127.0.0.1"]
    assert manager.host_gateway([endpoint]) == "10.88.0.1"
    with netns.inside(space), open("/proc/thread-self/net/route") as table:
        gateways = [int(line.split()[2], 16).to_bytes(4, "little") for line in table.readlines()[1:]]
    assert bytes([10, 88, 0, 7]) in gateways


def test_a_fixed_cidr_without_an_address_is_the_subnet(world: World) -> None:
    manager = start(world, Defaults(bridge="smptd1", fixed_cidr="10.89.0.0/24"))

    assert manager.get("bridge").subnets == (Subnet(subnet="10.89.0.0/24", gateway="10.89.0.1"),)


def test_default_options_of_new_networks_are_theirs_unless_they_say_otherwise(world: World) -> None:
    manager = start(world, structs.replace(SIX, default_network_opts={"bridge": {MTU_OPTION: "1300"}}))
    plain = NetworkInfo(id="", name="plain", driver="bridge")
    own = structs.replace(plain, name="own", options={MTU_OPTION: "1200"})

    assert (manager.create(plain).mtu, manager.create(own).mtu) == (1300, 1200)


def test_forwarding_is_left_as_it_is_where_that_is_asked_for(world: World) -> None:
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        netns.write_sysctl(name, "0")
    start(world, structs.replace(SIX, ip_forward=False))

    assert netns.read_sysctl("ipv6/conf/all/forwarding") == netns.read_sysctl("ipv4/ip_forward") == "0"


@pytest.mark.parametrize(
    "said",
    [
        {"fixed_cidr": "10.99.0.0/24"},
        {"fixed_cidr": "fd00::/64"},
        {"fixed_cidr_v6": "10.0.0.0/8"},
        {"default_gateway": "10.9.9.9"},
        {"default_gateway_v6": "fd09::1"},
        {"ip": "::"},
        {"mtu": 12},
        {"default_address_pools": ("base=10.0.0.0/8",)},
        {"dns": ("1.1.1.1\nsearch evil",)},
        {"dns_search": ("a b",)},
        {"dns_opts": ("a\nb",)},
        {"host_gateway_ip": "x"},
        {"ipv6": False},
        {"bip6": "fd00:91::1"},
    ],
    ids=lambda said: "-".join(said),
)  # fmt: skip
def test_options_that_cannot_be_are_refused(world: World, said: dict[str, object]) -> None:
    state = world.state("bad")
    world.stack.callback(state.close)
    with pytest.raises((InvalidRequest, Conflict)):
        Networks(state, structs.replace(SIX, **said)).start()
