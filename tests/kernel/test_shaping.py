"""Bandwidth limits, measured."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel.net_place import World
from sampan.errors import InvalidRequest
from sampan.kernel import netns, rtnl
from sampan.kernel.fds import Fd
from sampan.network import shaping
from sampan.network.records import Wanted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def megabits(world: World, sender: Fd, receiver: Fd, address: str, port: int) -> float:
    """Return the rate of one TCP stream, without its first half second."""
    server = world.listen(receiver, port)
    with netns.inside(sender):
        client = socket.socket()
    ending = threading.Event()

    def send() -> None:
        with client:
            client.connect((address, port))
            client.settimeout(0.2)
            while not ending.is_set():
                try:
                    client.send(bytes(65536))
                except TimeoutError:
                    continue

    thread = threading.Thread(target=send)
    thread.start()
    with server, server.accept()[0] as connection:
        connection.settimeout(5)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            connection.recv(1 << 20)
        began, total = time.monotonic(), 0
        while time.monotonic() < began + 2:
            total += len(connection.recv(1 << 20))
        took = time.monotonic() - began
        ending.set()
        thread.join()
    return total * 8 / took / 1e6


def limited(limit: float, measure: Callable[[int], float], port: int) -> None:
    """See that a limit holds, always, and is reached: a machine that is busy elsewhere may miss it in two tries of three."""
    for attempt in range(3):
        seen = measure(port + attempt)
        assert seen <= limit * 1.1
        if seen >= limit * 0.9:
            return
    pytest.fail(f"{seen} Mbit/s of {limit} in the last of three tries")


@pytest.mark.alone
@pytest.mark.slow
def test_both_directions_are_limited_within_a_tenth_and_change_while_it_runs(world: World) -> None:
    manager = world.manager()
    limits = {shaping.IN: "20mbit", shaping.OUT: "10mbit"}
    space, endpoint = world.member(manager, "bridge", wanted=Wanted(options=limits))
    peer, peer_at = world.container(manager)

    limited(20, lambda port: megabits(world, peer, space, endpoint.ip, port), 8100)
    limited(10, lambda port: megabits(world, space, peer, peer_at.ip, port), 8200)
    endpoint = manager.limit(endpoint, {shaping.OUT: "40mbit", shaping.IN: "0"})
    limited(40, lambda port: megabits(world, space, peer, peer_at.ip, port), 8300)
    assert megabits(world, peer, space, endpoint.ip, 84) > 60


def test_a_limited_link_leaves_nothing(world: World) -> None:
    manager = world.manager()
    _, endpoint = world.member(manager, "bridge", wanted=Wanted(options={shaping.IN: "1gbit", shaping.OUT: "1gbit"}))
    route = rtnl.Route()
    world.stack.callback(route.close)
    assert route.link(shaping.ifb(endpoint.veth_host)) is not None
    manager.detach(manager.limit(endpoint, {shaping.IN: "2gbit"}))
    manager.settle()

    assert [link.name for link in route.links() if link.name.startswith(("ifb", "veth"))] in ([], ["ifb0", "ifb1"])


def test_a_limit_that_is_taken_away_takes_its_block_along(world: World) -> None:
    manager = world.manager()
    _, endpoint = world.member(manager, "bridge", wanted=Wanted(options={shaping.OUT: "1gbit"}))
    endpoint = manager.limit(endpoint, {shaping.OUT: "0"})
    route = rtnl.Route()
    world.stack.callback(route.close)

    assert route.link(shaping.ifb(endpoint.veth_host)) is None
    manager.limit(manager.limit(endpoint, {shaping.OUT: "5mbit"}), {shaping.OUT: "none"})


@pytest.mark.parametrize("text", ["10", "mbit", "-1mbit", "1e3mbit", "1.mbit", "7kbit", "200gbit", "10mbit ", "9" * 20 + "bit"])
def test_rates_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        shaping.rate(text)


def test_rates_are_read_as_tc_writes_them() -> None:
    assert [shaping.rate(text) for text in ("10mbit", "1.5gbit", "800kbps", "0", "9000BIT")] == [
        10_000_000, 1_500_000_000, 6_400_000, 0, 9000,
    ]  # fmt: skip
