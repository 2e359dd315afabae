"""VLANs as parents, and ipvlan, where the kernel has them (tests/kernel/test_parents_vm.py runs this in one that has)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from contracts.network_driver import DriverContract, endpoint, links
from kernel.net_place import LAN_NEIGHBOUR, World, drivers_host, network, new_namespace
from sampan.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unsupported
from sampan.kernel import netns, rtnl
from sampan.kernel.fds import Fd
from sampan.network.driver import Driver
from sampan.network.host import Host
from sampan.network.ipvlan import Ipvlan
from sampan.network.macvlan import Macvlan
from sampan.network.records import NetworkInfo, Wanted


def has(kind: str) -> bool:
    if os.geteuid() != 0:
        return False
    route = rtnl.Route()
    try:
        return route.knows(kind)
    finally:
        route.close()


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")
vlans = pytest.mark.skipif(not has("vlan"), reason="needs a kernel with VLANs (CONFIG_VLAN_8021Q)")
ipvlans = pytest.mark.skipif(not has("ipvlan"), reason="needs a kernel with ipvlan (CONFIG_IPVLAN)")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:  # the machine of test_parents_vm.py has no conftest
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def host(world: World) -> Iterator[Host]:
    with drivers_host(world) as made:
        yield made


def neighbour(world: World, link: str = "eth0", via: str = "") -> Fd:
    """Put a neighbour behind lan0 who has 10.66.0.200 on `link`, or knows a way to `via`."""
    space = world.add_neighbour(via)
    with netns.inside(space):
        route = rtnl.Route()
    if link != "eth0":
        below = route.link("eth0")
        assert below is not None
        route.talk([rtnl.new_vlan(link, below.index, int(link.rpartition(".")[2])), rtnl.link_up(link)])
    found = route.link(link)
    assert found is not None
    if not via:
        route.talk([rtnl.new_address(found.index, IPv4Interface("10.66.0.200/24"))])
    route.close()
    world.listen(space)
    return space


def joined(world: World, driver: Driver, info: NetworkInfo, count: int = 2) -> list[Fd]:
    """Return the namespaces of new endpoints 10.66.0.2 and on, each listening."""
    made = [world.stack.enter_context(new_namespace()) for _ in range(count)]
    for number, space in enumerate(made):
        driver.attach(info, endpoint(info, number + 2), int(space), frozenset({4}))
        world.listen(space)
    return made


@pytest.mark.skipif(has("vlan") or os.geteuid() != 0, reason="needs a kernel without VLANs")
def test_without_vlans_in_the_kernel_such_a_parent_is_refused_with_the_reason(world: World, host: Host) -> None:
    world.add_neighbour()
    driver = Macvlan(host)
    before = links()
    with pytest.raises(Unsupported, match="CONFIG_VLAN_8021Q"):
        driver.create(driver.check(network("macvlan", parent="lan0.50")))
    assert links() == before


@pytest.mark.skipif(has("ipvlan") or os.geteuid() != 0, reason="needs a kernel without ipvlan")
def test_without_ipvlan_in_the_kernel_the_driver_is_refused_with_the_reason(world: World, host: Host) -> None:
    before = links()
    with pytest.raises(Unsupported, match="CONFIG_IPVLAN"):
        Ipvlan(host).check(network("ipvlan"))
    assert links() == before


@pytest.mark.parametrize(
    ("parent", "error", "words"),
    [
        ("nosuch0.50", NotFound, "nor is there nosuch0"), ("nosuch0", NotFound, "its link's and its number: eth0.50"),
        ("lan0.x", NotFound, "no such network device"), ("lan0.5000", InvalidRequest, "must be between 1-4094, received: 5000"),
        ("lan0.0", InvalidRequest, "must be between 1-4094"),
    ],
)  # fmt: skip
def test_parents_that_cannot_be_are_refused(world: World, host: Host, parent: str, error: type[Exception], words: str) -> None:
    world.add_neighbour()
    with pytest.raises(error, match=words):
        Macvlan(host).check(network("macvlan", parent=parent))


@vlans
def test_a_vlan_is_made_carries_its_traffic_alone_and_goes_with_its_last_network(world: World, host: Host) -> None:
    neighbour(world, "eth0.50")
    driver = Macvlan(host)
    infos = []
    for name in ("first", "second"):
        infos.append(driver.check(network("macvlan", name, parent="lan0.50")))
        driver.create(infos[-1])
    link = host.route.link("lan0.50")
    assert link is not None and link.kind == "vlan" and link.up
    assert netns.read_sysctl("ipv6/conf/lan0.50/accept_ra") == "0"
    space, peer = joined(world, driver, infos[0])
    assert world.opens(space, "10.66.0.200", 80) and world.opens(peer, "10.66.0.2", 80)

    untagged = driver.check(network("macvlan", "plain", parent="lan0"))
    driver.create(untagged)
    apart = world.stack.enter_context(new_namespace())
    driver.attach(untagged, endpoint(untagged, 9), int(apart), frozenset())
    assert not world.reaches(apart, "10.66.0.200", 80) and not world.reaches(apart, "10.66.0.2", 80)

    again = Macvlan(host)  # the next daemon
    for info in infos:
        again.create(info)
    again.remove(infos[0])
    assert "lan0.50" in links()
    again.remove(infos[1])
    assert links() == {"lan0"}


@vlans
def test_a_vlan_that_was_there_is_used_and_left(world: World, host: Host) -> None:
    world.add_neighbour()
    below = host.route.link("lan0")
    assert below is not None
    host.route.talk([rtnl.new_vlan("lan0.7", below.index, 7)])
    driver = Macvlan(host)
    info = driver.check(network("macvlan", parent="lan0.7"))
    driver.create(info)
    driver.remove(info)

    assert "lan0.7" in links()


@vlans
def test_a_vlan_that_cannot_be_up_leaves_nothing(world: World, host: Host) -> None:
    here = netns.current()
    with here:
        host.route.talk([rtnl.new_veth(rtnl.Veth("down0", 0, 1500, here.fileno(), "down1", "02:00:00:00:00:01"))])
    driver = Macvlan(host)
    info = driver.check(network("macvlan", parent="down0.5"))
    with pytest.raises(OSError, match="down0.5"):
        driver.create(info)
    assert links() == {"down0", "down1"}


@ipvlans
class TestIpvlan(DriverContract):
    """On a parent of its own (no `parent` option): an internal network."""

    @pytest.fixture
    def driver(self, host: Host) -> Driver:
        return Ipvlan(host)

    @pytest.fixture
    def info(self, driver: Driver) -> NetworkInfo:
        return driver.check(network("ipvlan"))


@ipvlans
@pytest.mark.parametrize(("flag", "meet"), [("bridge", True), ("private", False), ("vepa", False)])
def test_ipvlan_flags_decide_whether_containers_meet(world: World, host: Host, flag: str, meet: bool) -> None:
    neighbour(world)
    driver = Ipvlan(host)
    info = driver.check(network("ipvlan", parent="lan0", ipvlan_flag=flag))
    driver.create(info)
    first, second = joined(world, driver, info)

    assert world.opens(first, "10.66.0.200", 80)  # the LAN
    assert world.reaches(second, "10.66.0.2", 80, 5 if meet else 0.4) == meet
    assert not world.reaches(world.host, "10.66.0.2", 80)
    driver.remove(info)
    assert "lan0" in links()


@ipvlans
@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_ipvlan_in_layer_3_is_routed_by_the_host(world: World, host: Host, mode: str) -> None:
    outside = neighbour(world, via="10.66.0.0/24")
    driver = Ipvlan(host)
    info = driver.check(network("ipvlan", parent="lan0", ipvlan_mode=mode))
    driver.create(info)
    first, second = joined(world, driver, info)

    assert world.opens(first, LAN_NEIGHBOUR, 80) and world.opens(outside, "10.66.0.2", 80)
    assert world.opens(second, "10.66.0.2", 80)


@ipvlans
def test_ipvlan_options_are_judged_and_a_parent_has_one_mode(world: World, host: Host) -> None:
    world.add_neighbour()
    driver = Ipvlan(host)
    for key in ("ipvlan_mode", "ipvlan_flag"):
        with pytest.raises(InvalidRequest, match=key):
            driver.check(network("ipvlan", **{key: "l4"}))
    driver.create(driver.check(network("ipvlan", parent="lan0", ipvlan_mode="l3")))
    with pytest.raises(Conflict, match="in mode l3, flag bridge"):
        driver.check(network("ipvlan", parent="lan0"))


@ipvlans
def test_an_ipvlan_endpoint_has_no_mac_of_its_own_and_its_parent_carries_nothing_else(world: World) -> None:
    world.add_neighbour()
    manager = world.manager()
    made = manager.create(network("ipvlan", "flat", parent="lan0"))
    assert manager.reserve("flat", "a" * 64).mac == ""
    with pytest.raises(InvalidRequest, match="custom mac address"):
        manager.reserve("flat", "b" * 64, Wanted(mac="02:00:00:00:00:09"))
    with pytest.raises(Forbidden, match=f"parent lan0 is already used by network {made.name} of driver ipvlan"):
        manager.create(NetworkInfo(id="", name="other", driver="macvlan", options={"parent": "lan0"}))
