"""Gateway modes of bridge networks, IPv4 and IPv6, as tables: who reaches what, and with which address what leaves."""

from __future__ import annotations

import os
import socket

import pytest

from kernel.net_place import BLOCKED, LAN_HOST, LAN_HOST6, LAN_NEIGHBOUR, LAN_NEIGHBOUR6, World
from sampan.errors import InvalidRequest
from sampan.kernel import netns
from sampan.kernel.fds import Fd
from sampan.network.manager import Networks
from sampan.network.records import BRIDGE, Endpoint, PortBinding, Published

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")
WEB = PortBinding(80, "tcp", "", 8080, 8080)


@pytest.fixture
def manager(world: World) -> Networks:
    return world.manager()


def modes(four: str, six: str) -> dict[str, str]:
    return {f"{BRIDGE}gateway_mode_ipv4": four, f"{BRIDGE}gateway_mode_ipv6": six}


def echoes(space: Fd, address: str) -> bool:
    """Whether the address answers an echo request from the namespace."""
    six = ":" in address
    with netns.inside(space):
        asking = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
    with asking:
        asking.settimeout(BLOCKED)
        # RFC 792 and 4443: type 8 or 128, code 0, sum (the kernel fills in ICMPv6's), id 1, sequence 1
        asking.sendto(b"\x80\0\0\0\0\1\0\1" if six else b"\x08\0\xf7\xfd\0\1\0\1", (address, 0))
        try:
            while True:
                heard = asking.recv(256)
                if heard[0 if six else 20] == (129 if six else 0):
                    return True
        except TimeoutError:
            return False


# mode: (published directly, unpublished directly, by the host's port, from another network directly, echo) from the second
# host, and the address with which the container is seen there
TABLE = {
    "nat": (False, False, True, False, False, "host"),
    "nat-unprotected": (True, True, True, False, True, "host"),
    "routed": (True, False, False, True, True, "own"),
}


@pytest.mark.parametrize(("four", "six"), [("nat", "routed"), ("routed", "nat-unprotected"), ("nat-unprotected", "nat")])
def test_row_74_each_mode_opens_what_it_says_and_each_ip_version_has_its_own(
    world: World, manager: Networks, four: str, six: str
) -> None:
    world.network(manager, "moded", "10.99.10.0/24", "fd00:10::/64", options=modes(four, six))
    world.network(manager, "plain", "10.99.20.0/24", "fd00:20::/64")
    space, endpoint = world.member(manager, "moded", WEB)
    other, _ = world.member(manager, "plain")
    lan = world.add_neighbour()
    for port in (80, 81):
        world.listen(space, port)
    outside = world.listen(lan)

    for mode, own, host, neighbour in (
        (four, endpoint.ip, LAN_HOST, LAN_NEIGHBOUR), (six, endpoint.ip6, LAN_HOST6, LAN_NEIGHBOUR6),
    ):  # fmt: skip
        published, unpublished, by_host, across, echo, seen = TABLE[mode]
        expected = {
            "published": published, "unpublished": unpublished, "by the host": by_host, "another network": across,
            "another network, unpublished": False, "the host itself": True,
        }  # fmt: skip
        asked = {
            "published": (lan, own, 80), "unpublished": (lan, own, 81), "by the host": (lan, host, 8080),
            "another network": (other, own, 80), "another network, unpublished": (other, own, 81),
            "the host itself": (world.host, own, 81),
        }  # fmt: skip
        found = {what: world.reaches(*where, 3 if expected[what] else BLOCKED) for what, where in asked.items()}
        assert found == expected, mode
        assert echoes(lan, own) == echo, mode
        assert world.peer_seen(space, neighbour, 80, outside) == {"host": host, "own": own}[seen], mode


def held(endpoint: Endpoint) -> list[tuple[str, int]]:
    return [(one.host_ip, one.host_port) for one in endpoint.published]


def test_a_routed_port_takes_no_host_port_and_is_opened_and_closed_while_it_runs(world: World, manager: Networks) -> None:
    world.network(manager, "moded", "10.99.10.0/24", "fd00:10::/64", options=modes("routed", "nat"))
    lan = world.add_neighbour()
    space, endpoint = world.member(manager, "moded", WEB)
    world.listen(space)
    with socket.socket() as free:
        free.bind(("0.0.0.0", 8080))  # it is nobody's

    assert held(endpoint) == [("::", 8080), ("0.0.0.0", 0)]
    less = manager.publish_less(endpoint, [Published(80, "tcp", "0.0.0.0", 0)])
    assert held(less) == [("::", 8080)] and not world.reaches(lan, endpoint.ip, 80)
    more = manager.publish_more(less, [PortBinding(80, "tcp", "0.0.0.0")])
    assert held(more) == [("::", 8080), ("0.0.0.0", 0)] and world.opens(lan, endpoint.ip, 80)
    with pytest.raises(InvalidRequest, match="routed"):
        manager.publish_more(more, [PortBinding(81, "tcp", "127.0.0.1", 8081, 8081)])


def test_row_74_a_trusted_interface_reaches_published_ports_directly_and_others_do_not(world: World, manager: Networks) -> None:
    for number, (name, trusted) in enumerate((("trusting", "other0:lan0"), ("careful", "other0"))):
        options = {f"{BRIDGE}trusted_host_interfaces": trusted}
        world.network(manager, name, f"10.99.{number}.0/24", f"fd00:{number}::/64", options=options)
    lan = world.add_neighbour()
    (space, endpoint), (apart, apart_at) = (world.member(manager, name, PortBinding(80)) for name in ("trusting", "careful"))
    for port in (80, 81):
        world.listen(space, port)
        world.listen(apart, port)

    for own, other in ((endpoint.ip, apart_at.ip), (endpoint.ip6, apart_at.ip6)):
        assert world.opens(lan, own, 80) and not world.reaches(lan, own, 81) and not world.reaches(lan, other, 80)
    manager.publish_less(endpoint, endpoint.published)
    assert not world.reaches(lan, endpoint.ip, 80)


def test_row_81_an_isolated_network_is_closed_to_the_host_itself(world: World, manager: Networks) -> None:
    world.network(manager, "alone", "10.99.10.0/24", "fd00:10::/64", options=modes("isolated", "isolated"), internal=True)
    space, endpoint = world.member(manager, "alone")
    peer, _ = world.member(manager, "alone")
    world.listen(space)

    assert world.opens(peer, endpoint.ip, 80) and world.opens(peer, endpoint.ip6, 80)
    assert not world.reaches(world.host, endpoint.ip, 80) and not world.reaches(world.host, endpoint.ip6, 80)
    assert manager.repair() == []  # the bridge lacks nothing
