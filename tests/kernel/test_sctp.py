"""SCTP ports, where the kernel has SCTP (tests/kernel/test_parents_vm.py runs this in one that has)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.net_place import LAN_HOST, LAN_NEIGHBOUR, World
from sampan.errors import Broken, Unsupported
from sampan.kernel import netns
from sampan.network.records import PortBinding

SCTP = 132
ASSOCIATION = PortBinding(80, "sctp", "", 8080, 8080)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")


def has() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP).close()
    except OSError:
        return False
    return True


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:  # the machine of test_parents_vm.py has no conftest
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.skipif(has(), reason="needs a kernel without SCTP")
def test_without_sctp_in_the_kernel_such_a_port_is_refused_with_the_reason(world: World) -> None:
    manager = world.manager()
    with pytest.raises(Unsupported, match="this kernel has no sctp"):
        manager.publish_reserve(manager.reserve("bridge", "a" * 64), [ASSOCIATION])


@pytest.mark.skipif(not has(), reason="needs a kernel with SCTP (CONFIG_IP_SCTP)")
def test_row_80_an_sctp_port_is_held_and_leads_there_with_its_clients_address(world: World) -> None:
    manager = world.manager()
    space, _ = world.container(manager, ASSOCIATION)
    lan = world.add_neighbour()
    with netns.inside(space):
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP)
    with netns.inside(lan):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP)
    with server, client:
        server.bind(("0.0.0.0", 80))
        server.listen()
        client.settimeout(20)
        client.connect((LAN_HOST, 8080))
        connection, peer = server.accept()
        with connection:
            client.send(b"ask")
            assert (connection.recv(16), peer[0]) == (b"ask", LAN_NEIGHBOUR)
    with pytest.raises(Broken, match="port is already allocated"):
        manager.publish_reserve(manager.reserve("bridge", "b" * 64), [ASSOCIATION])
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP) as other, pytest.raises(OSError, match="in use"):
        other.bind(("0.0.0.0", 8080))
