"""Ports, limits and rules of running containers: changed, flushed, and found again."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from engine.test_restarts_engine import reboot, until_running
from sampan.kernel.nftables import Nftables
from support.daemon import Daemon
from support.inside import listens, reaches


@pytest.fixture
def web(daemon: Daemon) -> Iterator[str]:
    """A container that listens at 80 and 81 (sockets of the test's), with 80 published at a port of the kernel's choice."""
    daemon.docker("run", "-d", "--name", "web", "-p", "80", "busybox", "sleep", "600")
    with listens(daemon, "web", 80), listens(daemon, "web", 81):
        yield "web"


def ports(daemon: Daemon) -> dict[str, list[int]]:
    found = daemon.ok("GET", "/containers/web/json")["NetworkSettings"]["Ports"]
    return {key: [int(one["HostPort"]) for one in value or ()] for key, value in found.items() if value}


def opens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 3).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_ports_are_published_and_closed_while_it_runs(daemon: Daemon, web: str) -> None:
    ((first,),) = ports(daemon).values()
    second = free_port()
    daemon.sampan("update", "--publish-add", f"{second}:81", web)
    assert ports(daemon) == {"80/tcp": [first], "81/tcp": [second]} and opens(first) and opens(second)

    third = free_port()
    body = {
        "PublishRemove": [f"{second}:81/tcp"],
        "PublishAdd": {"81/tcp": [{"HostPort": str(third)}]},
        "NetworkLimit": {"In": "1gbit"},
    }
    daemon.ok("POST", f"/containers/{web}/update", body)
    assert ports(daemon) == {"80/tcp": [first], "81/tcp": [third]} and opens(third) and not opens(second)
    options = daemon.ok("GET", f"/containers/{web}/json")["NetworkSettings"]["Networks"]["bridge"]["DriverOpts"]
    assert options == {"sampan.limit.in": "1gbit"}
    second = third

    daemon.sampan("update", "--publish-rm", f"{first}:80", web)
    assert ports(daemon) == {"81/tcp": [second]} and opens(second) and not opens(first)
    daemon.restart(signal.SIGKILL)
    assert ports(daemon) == {"81/tcp": [second]} and opens(second)
    daemon.docker("restart", "-t", "0", web)
    assert ports(daemon) == {"81/tcp": [second]}


def test_a_change_of_ports_that_fails_changes_nothing(daemon: Daemon, web: str) -> None:
    ((first,),) = ports(daemon).values()
    with socket.socket() as thief:
        thief.bind(("0.0.0.0", 0))
        thief.listen()
        taken = thief.getsockname()[1]
        done = daemon.sampan("update", "--publish-rm", "80", "--publish-add", f"{taken}:81", web, check=False)

    assert done.returncode == 1 and b"address already in use" in done.stderr
    assert ports(daemon) == {"80/tcp": [first]} and opens(first)
    gone = daemon.sampan("update", "--publish-rm", "99", web, check=False)
    assert b"is not published" in gone.stderr


def test_limits_are_given_at_creation_and_changed_while_it_runs(daemon: Daemon) -> None:
    daemon.sampan("run", "-d", "--name", "slow", "--network-limit", "in=10mbit,out=5mbit", "busybox", "sleep", "600")

    def buckets() -> list[int]:
        shown = json.loads(subprocess.run(["tc", "-j", "qdisc"], capture_output=True, check=True).stdout)
        return sorted(one["options"]["rate"] * 8 for one in shown if one["kind"] == "tbf")

    before = buckets()
    assert before.count(10_000_000) >= 1 and before.count(5_000_000) >= 1
    daemon.sampan("update", "--network-limit", "in=7mbit,out=0", "slow")
    after = buckets()
    assert after.count(7_000_000) == before.count(7_000_000) + 1
    assert after.count(5_000_000) == before.count(5_000_000) - 1
    options = daemon.ok("GET", "/containers/slow/json")["NetworkSettings"]["Networks"]["bridge"]["DriverOpts"]
    assert options == {"sampan.limit.in": "7mbit", "sampan.limit.out": "0"}
    assert daemon.sampan("update", "--network-limit", "in=fast", "slow", check=False).returncode == 1


def test_docker_limits_by_driver_options(daemon: Daemon) -> None:
    daemon.docker("network", "create", "shaped")
    daemon.docker("run", "-d", "--network", "name=shaped,driver-opt=sampan.limit.in=3mbit", "busybox", "sleep", "600")
    bad = daemon.docker("run", "--rm", "--network", "name=shaped,driver-opt=sampan.limit.in=3", "busybox", "true", check=False)

    assert b"invalid bandwidth" in bad.stderr
    shown = subprocess.run(["tc", "qdisc"], capture_output=True, text=True, check=True).stdout
    assert "rate 3Mbit" in shown
    daemon.remove_all()
    daemon.docker("network", "rm", "shaped")


def test_row_55_an_image_cannot_limit_or_open_anything(daemon: Daemon) -> None:
    labels = {"sampan.limit.in": "1mbit", "sampan.guard": "false", "com.docker.network.bridge.enable_icc": "false"}
    container = daemon.create("sleep", "600", Labels=labels)
    daemon.ok("POST", f"/containers/{container}/start")
    endpoint = daemon.ok("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"]["bridge"]

    assert endpoint["DriverOpts"] is None


@pytest.mark.parametrize("family", ["ip", "bridge"])
def test_row_75_flushed_tables_are_back_within_two_seconds(daemon: Daemon, web: str, family: str) -> None:
    table = f"sampan_{daemon.bridge}"
    before = subprocess.run(["nft", "list", "table", family, table], capture_output=True, check=True).stdout
    subprocess.run(["nft", "delete", "table", family, table], check=True)
    deadline = time.monotonic() + 2
    while subprocess.run(["nft", "list", "table", family, table], capture_output=True, check=False).stdout != before:
        assert time.monotonic() < deadline
    ((port,),) = ports(daemon).values()
    assert opens(port)


def test_repair_makes_again_what_somebody_took(daemon: Daemon, web: str) -> None:
    daemon.docker("network", "create", "--subnet", "10.85.0.0/24", "broken")
    daemon.docker("run", "-d", "--name", "one", "--network", "broken", "busybox", "sleep", "600")
    daemon.docker("run", "-d", "--name", "two", "--network", "broken", "busybox", "sleep", "600")
    identity = daemon.ok("GET", "/networks/broken")["Id"]
    server = listens(daemon, "one", 80)
    for link in (f"br-{identity[:12]}", daemon.bridge):
        subprocess.run(["ip", "link", "delete", link], check=True)
    ((port,),) = ports(daemon).values()
    assert not reaches(daemon, "two", "10.85.0.2", 80, 0.3) and not opens(port)

    done = daemon.sampan("network", "repair").stdout.decode()

    assert "made again: network bridge" in done and "made again: network broken" in done
    with server:
        assert reaches(daemon, "two", "10.85.0.2", 80) and opens(port)
    assert daemon.sampan("network", "repair").stdout == b""
    daemon.remove_all()
    daemon.docker("network", "rm", "broken")


def test_networks_leases_and_ports_come_back_after_a_reboot(daemon: Daemon) -> None:
    port, kept = free_port(), ("--network", "kept", "--ip")
    daemon.docker("network", "create", "--subnet", "10.86.0.0/24", "--ipv6", "kept")
    daemon.docker(
        "run", "-d", "--restart", "always", *kept, "10.86.0.9", "-p", f"{port}:80", "--name", "web", "busybox", "sleep", "600"
    )
    daemon.docker("run", "-d", *kept, "10.86.0.10", "--name", "ended", "busybox", "sleep", "600")
    network, web = (
        daemon.ok("GET", "/networks/kept"),
        daemon.ok("GET", "/containers/web/json")["NetworkSettings"]["Networks"]["kept"],
    )
    reboot(daemon)
    for link in (f"br-{network['Id'][:12]}", daemon.bridge):
        subprocess.run(["ip", "link", "delete", link], check=True)
    for family in ("ip", "ip6", "bridge"):
        subprocess.run(["nft", "delete", "table", family, f"sampan_{daemon.bridge}"], check=True)
    daemon.start()
    until_running(daemon, "web")

    after = daemon.ok("GET", "/containers/web/json")["NetworkSettings"]["Networks"]["kept"]
    same = ("IPAddress", "GlobalIPv6Address", "Gateway", "MacAddress", "Aliases", "NetworkID")
    assert {key: after[key] for key in same} == {key: web[key] for key in same}
    assert {**daemon.ok("GET", "/networks/kept"), "Containers": {}} == {**network, "Containers": {}}
    with listens(daemon, "web", 80):
        assert opens(port) and ports(daemon) == {"80/tcp": [port, port]}
    daemon.docker("run", "-d", *kept, "10.86.0.10", "--name", "next", "busybox", "sleep", "600")  # nobody's any more
    nft = Nftables()
    held = {socket.inet_ntoa(key) for key in nft.elements(f"sampan_{daemon.bridge}", "addresses")}
    nft.close()
    assert held == {"10.86.0.9", "10.86.0.10"}
    daemon.remove_all()
    daemon.docker("network", "rm", "kept")


def test_audit_tells_what_is_reached_from_where(daemon: Daemon, web: str) -> None:
    daemon.sampan("update", "--publish-add", "127.0.0.1::81", web)
    daemon.sampan("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "quiet")
    daemon.sampan("run", "-d", "--name", "mute", "--network", "quiet", "busybox", "sleep", "600")
    rows = json.loads(daemon.call("GET", "/sampan/networks/audit").body)
    found = {(row["Container"], row["Port"]): row["ReachedFrom"] for row in rows}

    assert found == {
        ("web", "80/tcp"): ["whoever reaches the host"], ("web", "81/tcp"): ["the host itself"],
        ("web", "any"): ["the host itself", "network bridge"], ("mute", "any"): ["the host itself"],
    }  # fmt: skip
    assert b"REACHED FROM" in daemon.sampan("network", "audit").stdout
    daemon.remove_all()
    daemon.sampan("network", "rm", "quiet")
