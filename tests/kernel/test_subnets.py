"""Several subnets of one network: filled in turn, each with its gateway, all of them one network."""

from __future__ import annotations

import os

import pytest

from kernel.net_place import LAN_NEIGHBOUR, World
from sampan.errors import Unavailable
from sampan.network.manager import Networks
from sampan.network.records import PortBinding, Wanted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")


@pytest.fixture
def manager(world: World) -> Networks:
    made = world.manager()
    world.network(made, "wide", "10.99.10.0/30", "10.99.20.0/29", "fd00:10::/64", "fd00:20::/64")
    return made


def test_a_full_subnet_is_followed_by_the_next_and_both_meet_the_world(world: World, manager: Networks) -> None:
    lan = world.add_neighbour()
    outside = world.listen(lan)
    first, first_at = world.member(manager, "wide")
    second, second_at = world.member(manager, "wide", PortBinding(80, "tcp", "", 8080, 8080))
    world.listen(first)
    server = world.listen(second)

    assert [(one.ip, one.prefix, one.gateway) for one in (first_at, second_at)] == [
        ("10.99.10.2", 30, "10.99.10.1"), ("10.99.20.2", 29, "10.99.20.1"),
    ]  # fmt: skip
    assert world.opens(second, first_at.ip, 80) and world.opens(second, first_at.ip6, 80)  # by way of the bridge
    assert world.peer_seen(lan, "10.213.200.1", 8080, server) == LAN_NEIGHBOUR
    assert world.peer_seen(second, LAN_NEIGHBOUR, 80, outside) == "10.213.200.1"


def test_addresses_of_either_may_be_asked_for_and_are_free_again(world: World, manager: Networks) -> None:
    _, endpoint = world.member(manager, "wide", wanted=Wanted(ipv4="10.99.20.6", ipv6="fd00:20::6"))
    assert (endpoint.gateway, endpoint.gateway6) == ("10.99.20.1", "fd00:20::1")
    manager.detach(endpoint)
    leased = [manager.reserve("wide", f"{number:064x}") for number in range(6)]
    with pytest.raises(Unavailable):
        manager.reserve("wide", "f" * 64)

    assert [one.ip for one in leased] == ["10.99.10.2", *(f"10.99.20.{last}" for last in range(2, 7))]


def test_a_restarted_daemon_has_them_all(world: World, manager: Networks) -> None:
    _, endpoint = world.member(manager, "wide", wanted=Wanted(ipv4="10.99.20.4"))
    manager.stop()
    manager.start()

    assert manager.repair() == [] and manager.adopt(endpoint).ip == "10.99.20.4"
    assert [one.gateway for one in manager.get("wide").subnets] == ["10.99.10.1", "10.99.20.1", "fd00:10::1", "fd00:20::1"]
