"""Through iptables' FORWARD chain with the policy DROP, without touching anybody's rules."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.net_place import LAN_NEIGHBOUR, World, eventually
from sampan.network.records import PortBinding

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces"),
    pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables, whose chain it is"),
]
WEB = PortBinding(80, "tcp", "", 8080, 8080)
OURS = "--comment sampan"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def iptables(*words: str) -> str:
    """Run it in the test thread's namespace."""
    return subprocess.run(["iptables", "-w", *words], capture_output=True, text=True, check=True).stdout


def forward() -> list[str]:
    return iptables("-S", "FORWARD").splitlines()


def test_containers_are_reached_through_a_policy_of_drop(world: World) -> None:
    iptables("-P", "FORWARD", "DROP")
    manager = world.manager()
    world.network(manager, "more", "10.99.9.0/24")
    space, endpoint = world.container(manager, WEB)
    peer, _ = world.container(manager)
    far, _ = world.member(manager, "more")
    lan = world.add_neighbour()
    world.listen(space)
    world.listen(lan)

    assert world.opens(lan, "10.213.200.1", 8080) and world.opens(peer, endpoint.ip, 80)
    assert world.opens(space, LAN_NEIGHBOUR, 80) and world.opens(far, LAN_NEIGHBOUR, 80)
    assert not world.reaches(far, endpoint.ip, 80) and not world.reaches(lan, endpoint.ip, 80)  # our own tables decide
    assert forward()[0] == "-P FORWARD DROP" and sum(OURS in line for line in forward()) == 4


def test_what_others_drop_by_a_rule_stays_dropped(world: World) -> None:
    iptables("-P", "FORWARD", "DROP")
    iptables("-A", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP")
    manager = world.manager()
    space, _ = world.container(manager)
    lan = world.add_neighbour()
    world.listen(lan, 80)
    world.listen(lan, 81)

    assert world.opens(space, LAN_NEIGHBOUR, 81) and not world.reaches(space, LAN_NEIGHBOUR, 80)
    assert forward()[1].endswith("--dport 80 -j DROP")


def test_a_rule_that_others_append_later_comes_before_ours(world: World) -> None:
    iptables("-P", "FORWARD", "DROP")
    manager, second = world.manager(), world.manager(2)
    iptables("-A", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP")

    assert eventually(lambda: all(OURS in line for line in forward()[2:]))
    assert forward()[1].endswith("--dport 80 -j DROP") and len(forward()) == 6
    manager.stop(remove=True)
    second.stop(remove=True)
    assert len(forward()) == 2


def test_row_75_a_policy_set_later_and_a_flushed_chain_are_noticed(world: World) -> None:
    manager = world.manager()
    info = world.network(manager, "more", "10.99.9.0/24")
    assert not any(OURS in line for line in forward())
    iptables("-P", "FORWARD", "DROP")
    assert eventually(lambda: sum(OURS in line for line in forward()) == 4)
    iptables("-F", "FORWARD")
    assert eventually(lambda: sum(OURS in line for line in forward()) == 4)
    manager.remove(info.id)
    assert sum(OURS in line for line in forward()) == 2
    manager.stop(remove=True)
    assert forward() == ["-P FORWARD DROP"]


def test_without_such_a_policy_nothing_is_added(world: World) -> None:
    iptables("-A", "FORWARD", "-i", "elsewhere0", "-j", "DROP")
    before = forward()
    world.manager()

    assert forward() == before
