"""What every network driver promises.  Drivers subclass and give fixtures; they add nothing to the promises."""

from __future__ import annotations

import os

import pytest

from kernel.net_place import World, new_namespace
from sampan.errors import SampanError
from sampan.kernel import netns, rtnl
from sampan.kernel.fds import Fd
from sampan.network.driver import Driver
from sampan.network.host import Host
from sampan.network.records import Endpoint, NetworkInfo


def links(space: Fd | None = None) -> set[str]:
    """Return the links of a namespace (the test's own by default), loopback left out."""
    if space is not None:
        with netns.inside(space):
            return links()
    route = rtnl.Route()
    try:
        return {link.name for link in route.links()} - {"lo"}
    finally:
        route.close()


def endpoint(info: NetworkInfo, number: int = 2) -> Endpoint:
    key = os.urandom(32).hex()
    return Endpoint(
        id=key, network_id=info.id, container_id=os.urandom(32).hex(), ip=f"10.66.0.{number}", prefix=24, gateway="10.66.0.1",
        mac=f"02:42:0a:42:00:{number:02x}", veth_host=f"veth{key[:8]}",
    )  # fmt: skip


class DriverContract:
    """Fixtures of the subclass: world, host (in the world's namespace), driver, info (checked)."""

    def test_what_is_created_twice_is_one_and_what_is_removed_twice_is_gone(
        self, world: World, host: Host, driver: Driver, info: NetworkInfo
    ) -> None:
        before = links()
        driver.create(info)
        made = links()
        driver.create(info)
        assert links() == made
        driver.remove(info)
        driver.remove(info)
        assert host.upkeep is not None
        host.upkeep.settle()  # a bridge goes soon, not at once
        assert links() == before

    def test_an_attached_endpoint_has_its_address_and_the_default_route(
        self, world: World, host: Host, driver: Driver, info: NetworkInfo
    ) -> None:
        driver.create(info)
        one = endpoint(info)
        space = world.stack.enter_context(new_namespace())
        driver.attach(info, one, int(space), frozenset({4}))
        assert driver.present(one) and links(space) == {"eth0"}
        with netns.inside(space):
            route = rtnl.Route()
            assert f"{one.ip}/24" in {str(address) for address in route.addresses()}
            route.talk([rtnl.no_default_route(4)])  # ESRCH when there is none
            route.close()
            assert netns.read_sysctl("ipv6/conf/eth0/disable_ipv6") == "1"
        driver.detach(info, one)
        driver.detach(info, one)
        driver.leave(info, one, int(space))
        assert links(space) == set()
        driver.remove(info)

    def test_a_failed_attach_leaves_nothing(self, world: World, host: Host, driver: Driver, info: NetworkInfo) -> None:
        driver.create(info)
        first, second = endpoint(info), endpoint(info, 3)
        space = world.stack.enter_context(new_namespace())
        driver.attach(info, first, int(space), frozenset())
        outside = links()
        with pytest.raises((OSError, SampanError)):
            driver.attach(info, second, int(space), frozenset({4}))  # eth0 is taken there
        assert host.upkeep is not None
        host.upkeep.settle()
        assert links() == outside and links(space) == {"eth0"}
        driver.detach(info, first)
        driver.leave(info, first, int(space))
        driver.remove(info)

    def test_two_endpoints_reach_each_other(self, world: World, host: Host, driver: Driver, info: NetworkInfo) -> None:
        driver.create(info)
        spaces = [world.stack.enter_context(new_namespace()) for _ in range(2)]
        ends = [endpoint(info, number) for number in (2, 3)]
        for space, one in zip(spaces, ends, strict=True):
            driver.attach(info, one, int(space), frozenset())
            if driver.publishes:
                host.firewall.open(info.id, one)
        world.listen(spaces[0])
        assert world.opens(spaces[1], ends[0].ip, 80)
        for space, one in zip(spaces, ends, strict=True):
            host.firewall.shut(one.id)
            driver.detach(info, one)
            driver.leave(info, one, int(space))
        driver.remove(info)
