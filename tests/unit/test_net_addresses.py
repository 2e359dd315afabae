"""Subnets and leases."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from sampan.errors import Forbidden, InvalidRequest, Unavailable, Unsupported
from sampan.network import ports
from sampan.network.addresses import POOLS, Pool, choose_network, mac_of, parse_bip
from sampan.network.records import PortBinding, Subnet


def test_the_lowest_free_address_is_taken() -> None:
    pool = Pool(Subnet(subnet="10.213.0.0/29", gateway="10.213.0.1"))
    taken = [str(pool.take()) for _ in range(5)]
    pool.give_back("10.213.0.4")
    pool.give_back("10.213.0.3")
    pool.give_back("10.213.0.1")  # the gateway stays

    assert taken == [f"10.213.0.{n}" for n in range(2, 7)]
    assert [str(pool.take()), str(pool.take())] == ["10.213.0.3", "10.213.0.4"]
    with pytest.raises(Unavailable):
        pool.take()


def test_a_wanted_address_is_given_once_and_only_inside() -> None:
    pool = Pool(Subnet(subnet="10.213.0.0/24", gateway="10.213.0.1"))
    assert str(pool.take("10.213.0.9")) == "10.213.0.9"
    for taken in ("10.213.0.9", "10.213.0.1"):
        with pytest.raises(Forbidden):
            pool.take(taken)
    for outside in ("10.213.1.2", "10.213.0.0", "10.213.0.255", "x"):
        with pytest.raises(InvalidRequest):
            pool.take(outside)


def test_the_first_pool_that_overlaps_no_route_is_chosen() -> None:
    assert choose_network(POOLS, 4, []) == IPv4Network("172.17.0.0/16")
    taken = [IPv4Network("172.17.4.0/24"), IPv4Network("172.18.0.0/15")]
    assert choose_network(POOLS, 4, taken) == IPv4Network("172.20.0.0/16")
    assert choose_network(POOLS, 4, [IPv4Network("172.16.0.0/12")]) == IPv4Network("192.168.0.0/20")
    with pytest.raises(InvalidRequest, match="fully subnetted"):
        choose_network(POOLS, 4, [IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16")])


@pytest.mark.parametrize("text", ["", "10.0.0.1/31", "10.0.0.0/24", "10.0.0.255/24", "127.0.0.1/8", "::1/64", "a/b"])
def test_a_bad_bip_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_bip(text)


def test_a_mac_goes_with_its_address() -> None:
    assert mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "binding",
    [
        PortBinding(0),
        PortBinding(65536),
        PortBinding(80, "icmp"),
        PortBinding(80, "tcp", "x"),
        PortBinding(80, "tcp", "", 5, 4),
        PortBinding(80, "tcp", "", 1, 65536),
    ],
)
def test_a_binding_that_cannot_be_is_refused(binding: PortBinding) -> None:
    with pytest.raises(InvalidRequest):
        ports.check(binding)


def test_bindings_of_ipv6_addresses_need_an_ipv6_address() -> None:
    assert ports.check(PortBinding(80, "tcp", "[::]")) == []
    assert ports.check(PortBinding(80)) == ["0.0.0.0"]
    assert ports.check(PortBinding(80), six=True) == ["0.0.0.0", "::"]
    assert ports.check(PortBinding(80), "127.0.0.1", six=True) == ["127.0.0.1"]
    assert ports.check(PortBinding(80), "::", six=True) == ["::"] and ports.check(PortBinding(80), "::") == []
    assert ports.check(PortBinding(80, "tcp", "0.0.0.0"), "::", six=True) == ["0.0.0.0"]
    assert ports.check(PortBinding(80, "tcp", "2001:db8::1"), six=True) == ["2001:db8::1"]
    with pytest.raises(Unsupported):
        ports.check(PortBinding(80, "tcp", "2001:db8::1"))
    with pytest.raises(Unsupported, match="sctp"):
        ports.check(PortBinding(80, "sctp", "[::1]"), six=True)
    for six in (False, True):  # carried by hand, so whichever address the container has will do
        assert ports.check(PortBinding(80, "tcp", "[::1]"), six=six) == ["::1"]
    with pytest.raises(Unsupported):
        ports.check(PortBinding(80, "tcp", "10.0.0.1"), four=False, six=True)


def test_a_range_hands_out_its_own_addresses_and_auxiliary_ones_never() -> None:
    pool = Pool(Subnet(subnet="10.1.0.0/16", gateway="10.1.0.1", ip_range="10.1.5.0/30", aux={"router": "10.1.5.2"}))

    assert [str(pool.take()) for _ in range(3)] == ["10.1.5.0", "10.1.5.1", "10.1.5.3"]
    assert not pool.free()
    assert str(pool.take("10.1.9.9")) == "10.1.9.9"
    with pytest.raises(Forbidden):
        pool.take("10.1.5.2")
