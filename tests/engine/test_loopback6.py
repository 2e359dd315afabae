"""Ports published on ::1: reached from the host alone, carried on while no daemon is there, free again afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from support.daemon import Daemon
from support.inside import listens, pid_of_names, socket_in

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="needs IPv6")


def free_port() -> int:
    with socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def port(daemon: Daemon) -> Iterator[int]:
    yield free_port()
    daemon.remove_all()


def asks(port: int, server: socket.socket) -> str:
    """Connect to the port on ::1, be heard and answered; return whom the server sees."""
    with socket.create_connection(("::1", port), 5) as client:
        served, peer = server.accept()
        with served:
            client.sendall(b"ask")
            assert served.recv(3) == b"ask"
            served.sendall(b"answer")
            assert client.recv(6) == b"answer"
    return str(peer[0])


def refused(port: int) -> bool:
    try:
        socket.create_connection(("::1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_row_80_a_port_on_the_ipv6_loopback_leads_to_a_container_of_either_ip_version(daemon: Daemon, port: int) -> None:
    daemon.docker("network", "create", "--ipv6", "--subnet", "fd00:5a:1::/64", "six")
    daemon.docker("run", "-d", "--name", "four", "-p", f"[::1]:{port}:80", "busybox", "sleep", "600")
    daemon.docker("run", "-d", "--name", "both", "--network", "six", "-p", "[::1]::80", "busybox", "sleep", "600")
    other = int(daemon.docker("port", "both", "80").stdout.decode().strip().removeprefix("[::1]:"))
    with listens(daemon, "four", 80) as four, listens(daemon, "both", 80, "::") as both:
        (gateway,) = json.loads(daemon.docker("network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"]
        assert asks(port, four) == gateway["Gateway"]
        assert asks(other, both) == "fd00:5a:1::1"  # never ::1: a container takes that for itself
    daemon.remove_all()
    daemon.docker("network", "rm", "six")
    assert refused(port) and refused(other)


def test_row_74_it_is_open_on_no_other_address(daemon: Daemon, port: int) -> None:
    daemon.docker("run", "-d", "--name", "web", "-p", f"[::1]:{port}:80", "busybox", "sleep", "600")
    with listens(daemon, "web", 80), socket.socket() as elsewhere:
        elsewhere.settimeout(5)
        assert elsewhere.connect_ex(("127.0.0.1", port)) != 0
        rows = daemon.sampan("network", "audit", "--format", "json", check=False).stdout.decode()
    assert "the host itself" in rows


def test_row_85_it_is_held_and_goes_on_without_the_daemon_and_with_the_next(daemon: Daemon, port: int) -> None:
    daemon.docker("run", "-d", "--name", "web", "-p", f"[::1]:{port}:80", "busybox", "sleep", "600")
    with listens(daemon, "web", 80) as server:
        daemon.kill(signal.SIGKILL)
        asks(port, server)
        with socket.socket(socket.AF_INET6) as thief, pytest.raises(OSError, match="in use"):
            thief.bind(("::1", port))
        daemon.start()
        asks(port, server)
        again = daemon.docker("run", "--name", "more", "-p", f"[::1]:{port}:80", "busybox", "true", check=False)
        assert b"port is already allocated" in again.stderr
    daemon.docker("rm", "-f", "more")
    for _ in range(3):  # nothing is in the way of the next one, at once
        daemon.docker("rm", "-f", "web")
        daemon.docker("run", "-d", "--name", "web", "-p", f"[::1]:{port}:80", "busybox", "sleep", "600")
        with listens(daemon, "web", 80) as server:
            asks(port, server)


def test_it_comes_back_when_the_process_that_carries_is_killed(daemon: Daemon, port: int) -> None:
    daemon.docker("run", "-d", "--name", "web", "-p", f"[::1]:{port}:80", "busybox", "sleep", "600")
    carrier = pid_of_names(daemon)
    with listens(daemon, "web", 80) as server:
        os.kill(carrier, signal.SIGKILL)
        asks(port, server)  # the daemon's own copy of the socket takes connections in until the next process is there


def test_datagrams_and_live_changes(daemon: Daemon, port: int) -> None:
    daemon.docker("run", "-d", "--name", "web", "busybox", "sleep", "600")
    daemon.sampan("update", "--publish-add", f"[::1]:{port}:53/udp", "web")
    with socket_in(daemon, "web", socket.SOCK_DGRAM) as server, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        server.bind(("0.0.0.0", 53))
        client.settimeout(5)
        client.sendto(b"ask", ("::1", port))
        asked, peer = server.recvfrom(16)
        server.sendto(b"answer", peer)
        assert (asked, client.recv(16)) == (b"ask", b"answer")
        daemon.sampan("update", "--publish-rm", "53/udp", "web")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
            free.bind(("::1", port))
