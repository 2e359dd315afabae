"""Network drivers: the contract for each, and what is each one's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Interface

import pytest
from msgspec import structs

from contracts.network_driver import DriverContract, endpoint, links
from kernel.net_place import World, drivers_host, network, new_namespace
from sampan.errors import Conflict, Forbidden, InvalidRequest, NotFound
from sampan.kernel import netns, rtnl
from sampan.network.bridge import Bridge
from sampan.network.driver import Driver, Drivers
from sampan.network.host import Host
from sampan.network.macvlan import Macvlan
from sampan.network.manager import KNOWN
from sampan.network.records import BRIDGE, MTU_OPTION, NetworkInfo, Subnet, Wanted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")


@pytest.fixture
def host(world: World) -> Iterator[Host]:
    with drivers_host(world) as made:
        yield made


class TestBridge(DriverContract):
    @pytest.fixture
    def driver(self, host: Host) -> Driver:
        return Bridge(host)

    @pytest.fixture
    def info(self, driver: Driver) -> NetworkInfo:
        return driver.check(network("bridge"))


class TestMacvlan(DriverContract):
    """On a parent of its own (no `parent` option): an internal network."""

    @pytest.fixture
    def driver(self, host: Host) -> Driver:
        return Macvlan(host)

    @pytest.fixture
    def info(self, driver: Driver) -> NetworkInfo:
        return driver.check(network("macvlan"))

    def test_a_parent_that_cannot_be_brought_up_is_taken_back(
        self, driver: Driver, info: NetworkInfo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = links()

        up = rtnl.link_up("nowhere")  # what the kernel refuses, once it has made the link
        monkeypatch.setattr(rtnl, "link_up", lambda _: up)
        with pytest.raises(OSError, match="[Nn]o such device"):
            driver.create(info)
        assert links() == before


def lan(world: World) -> rtnl.Route:
    """Make lan0 with a neighbour behind it, 10.66.0.200."""
    space = world.add_neighbour()
    with netns.inside(space):
        route = rtnl.Route()
    link = route.link("eth0")
    assert link is not None
    route.talk([rtnl.new_address(link.index, IPv4Interface("10.66.0.200/24"))])
    world.listen(space)
    return route


@pytest.mark.parametrize(("mode", "meet"), [("bridge", True), ("private", False), ("vepa", False)])
def test_macvlan_modes_decide_whether_containers_meet(world: World, host: Host, mode: str, meet: bool) -> None:
    lan(world).close()
    driver = Macvlan(host)
    info = driver.check(network("macvlan", parent="lan0", macvlan_mode=mode))
    driver.create(info)
    spaces = [world.stack.enter_context(new_namespace()) for _ in range(2)]
    for number, space in enumerate(spaces):
        driver.attach(info, endpoint(info, number + 2), int(space), frozenset())
        world.listen(space)

    assert world.opens(spaces[0], "10.66.0.200", 80)  # the LAN
    assert world.reaches(spaces[1], "10.66.0.2", 80, 3 if meet else 0.4) == meet
    driver.remove(info)
    assert "lan0" in links()


def test_macvlan_passthru_has_its_parent_for_itself(world: World, host: Host) -> None:
    lan(world).close()
    driver = Macvlan(host)
    info = driver.check(network("macvlan", parent="lan0", macvlan_mode="passthru"))
    driver.create(info)
    spaces = [world.stack.enter_context(new_namespace()) for _ in range(2)]
    driver.attach(info, endpoint(info, 2), int(spaces[0]), frozenset())
    with netns.inside(spaces[0]):
        route = rtnl.Route()
    link = route.link("eth0")
    route.close()

    assert link is not None and driver.mac(info) == link.mac  # what inspect shows
    assert world.opens(spaces[0], "10.66.0.200", 80)
    for mode in ("passthru", "bridge"):
        with pytest.raises(Conflict, match=r"network n is already using parent interface lan0"):
            driver.check(network("macvlan", parent="lan0", macvlan_mode=mode))
    with pytest.raises(OSError):
        driver.attach(info, endpoint(info, 3), int(spaces[1]), frozenset())
    assert links(spaces[1]) == set()


def test_a_passthru_endpoint_shows_its_parents_mac_and_takes_no_other(world: World) -> None:
    manager = world.manager()
    lan(world).close()
    subnets, options = (Subnet(subnet="10.66.0.0/24"),), {"parent": "lan0", "macvlan_mode": "passthru"}
    manager.create(NetworkInfo(id="", name="through", driver="macvlan", subnets=subnets, options=options))
    with pytest.raises(InvalidRequest, match="do not support custom mac address"):
        manager.reserve("through", "a" * 64, Wanted(mac="02:42:00:00:00:07"))
    space, endpoint = world.member(manager, "through")
    with netns.inside(space):
        route = rtnl.Route()
    link = route.link("eth0")
    route.close()

    assert link is not None and endpoint.mac == link.mac


def test_macvlan_options_are_judged(world: World, host: Host) -> None:
    driver = Macvlan(host)
    with pytest.raises(InvalidRequest, match="mode"):
        driver.check(network("macvlan", macvlan_mode="bonded"))
    with pytest.raises(NotFound, match="nosuch0"):
        driver.check(network("macvlan", parent="nosuch0"))
    with pytest.raises(InvalidRequest):
        driver.check(network("macvlan", parent="a/../b"))
    lan(world).close()
    with pytest.raises(InvalidRequest, match="MTU"):
        driver.check(network("macvlan", **{"parent": "lan0", MTU_OPTION: "9000"}))


def test_bridge_options_are_judged(world: World, host: Host) -> None:
    driver = Bridge(host)
    for key, value in (
        (f"{BRIDGE}enable_icc", "maybe"), (MTU_OPTION, "12"), (f"{BRIDGE}host_binding_ipv4", "x"), (f"{BRIDGE}name", "a b"),
        (f"{BRIDGE}gateway_mode_ipv4", "wild"), ("com.docker.network.host_ipv4", "fd00::1"),
        ("com.docker.network.host_ipv6", "10.0.0.1"),
        (f"{BRIDGE}trusted_host_interfaces", "eth0:a/b"), ("com.docker.network.container_iface_prefix", "far-too-long-a-name"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest):
            driver.check(network("bridge", **{key: value}))
    with pytest.raises(InvalidRequest, match="internal network"):
        driver.check(network("bridge", **{f"{BRIDGE}gateway_mode_ipv4": "isolated"}))
    with pytest.raises(Conflict, match="no bridge"):
        driver.check(network("bridge", **{f"{BRIDGE}name": "lo"}))


def test_a_bridge_that_was_there_is_left(world: World, host: Host) -> None:
    host.route.talk([rtnl.new_bridge("mine0", "02:00:00:00:00:09", 1500)])
    driver = Bridge(host)
    info = driver.check(network("bridge", **{f"{BRIDGE}name": "mine0"}))
    driver.create(info)
    driver.remove(info)

    assert not info.made_link and "mine0" in links()


def test_unknown_drivers_are_not_found_and_there_is_one_host_network(world: World, host: Host) -> None:
    drivers = Drivers(host, KNOWN)
    with pytest.raises(NotFound, match='plugin "weave" not found'):
        drivers.find("weave")
    with pytest.raises(Forbidden, match="only one instance"):
        drivers.find("host").check(network("host"))


def test_a_driver_of_another_package_is_found_by_its_entry_point(world: World, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    entry = metadata.EntryPoint("mine", "sampan.network.macvlan:Macvlan", "sampan.network_drivers")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == "sampan.network_drivers" else [])
    found = Drivers(host, KNOWN).find("mine")

    assert isinstance(found, Macvlan)
    info = found.check(structs.replace(network("mine")))
    assert info.internal
