"""Networks by the real docker client: create, connect, disconnect, inspect, remove, prune."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.daemon import Daemon
from support.inside import listens, reaches


@pytest.fixture(autouse=True)
def no_networks_left(daemon: Daemon) -> Iterator[None]:
    yield
    daemon.remove_all()
    daemon.docker("network", "prune", "-f")


def network(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker("network", "inspect", name).stdout)[0]
    return found


def settings(daemon: Daemon, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker("inspect", container).stdout)[0]["NetworkSettings"]
    return found


def test_a_network_is_made_shown_and_removed(daemon: Daemon) -> None:
    made = daemon.docker(
        "network", "create", "--subnet", "10.61.0.0/16", "--ip-range", "10.61.4.0/24", "--gateway", "10.61.0.9",
        "--aux-address", "printer=10.61.4.0", "--label", "a=b", "-o", "com.docker.network.driver.mtu=1400", "net1",
    ).stdout.decode().strip()  # fmt: skip
    found = network(daemon, "net1")

    assert found["Id"] == made and len(made) == 64
    assert found["IPAM"] == {
        "Driver": "default", "Options": {},
        "Config": [{"Subnet": "10.61.0.0/16", "IPRange": "10.61.4.0/24", "Gateway": "10.61.0.9",
                    "AuxiliaryAddresses": {"printer": "10.61.4.0"}}],
    }  # fmt: skip
    assert (found["Driver"], found["Scope"], found["Internal"], found["EnableIPv6"]) == ("bridge", "local", False, False)
    assert found["Labels"] == {"a": "b"} and found["Options"] == {"com.docker.network.driver.mtu": "1400"}
    assert found["Containers"] == {}
    assert daemon.docker("network", "rm", "net1").stdout == b"net1\n"
    assert daemon.docker("network", "inspect", "net1", check=False).returncode == 1


@pytest.mark.docker_client(28)
def test_a_container_on_it_is_shown_on_both_sides(daemon: Daemon) -> None:
    daemon.docker("network", "create", "--subnet", "10.62.0.0/24", "net2")
    daemon.docker(
        "run", "-d", "--name", "web", "--network", "net2", "--ip", "10.62.0.77", "--mac-address", "02:42:00:00:00:77",
        "--network-alias", "www", "busybox", "sleep", "60",
    )  # fmt: skip
    (container,) = [one["Id"] for one in daemon.ok("GET", "/containers/json")]
    shown = settings(daemon, "web")
    endpoint = shown["Networks"]["net2"]
    inside = network(daemon, "net2")

    assert list(shown["Networks"]) == ["net2"]
    assert endpoint["IPAMConfig"] == {"IPv4Address": "10.62.0.77"}
    assert endpoint["Aliases"] == ["www"] and endpoint["NetworkID"] == inside["Id"]
    assert (endpoint["IPAddress"], endpoint["IPPrefixLen"], endpoint["Gateway"]) == ("10.62.0.77", 24, "10.62.0.1")
    assert endpoint["MacAddress"] == "02:42:00:00:00:77"
    assert endpoint["DNSNames"] == ["web", "www", container[:12]]
    assert inside["Containers"] == {
        container: {
            "Name": "web", "EndpointID": endpoint["EndpointID"], "MacAddress": "02:42:00:00:00:77",
            "IPv4Address": "10.62.0.77/24", "IPv6Address": "",
        }
    }  # fmt: skip
    link = daemon.docker("exec", "web", "ip", "addr", "show", "eth0").stdout.decode()
    assert "10.62.0.77/24" in link and "02:42:00:00:00:77" in link
    assert "default via 10.62.0.1 dev eth0" in daemon.docker("exec", "web", "ip", "route").stdout.decode()


@pytest.mark.docker_client(28)
def test_connect_and_disconnect_while_running_move_links_and_routes(daemon: Daemon) -> None:
    for number, name in ((63, "neta"), (64, "netb")):
        daemon.docker("network", "create", "--subnet", f"10.{number}.0.0/24", name)
    daemon.docker("run", "-d", "--name", "c1", "--network", "neta", "busybox", "sleep", "60")
    daemon.docker("network", "connect", "--ip", "10.64.0.50", "--alias", "x", "netb", "c1")

    links = daemon.docker("exec", "c1", "ip", "-o", "-4", "addr").stdout.decode()
    assert "eth0    inet 10.63.0.2/24" in links and "eth1    inet 10.64.0.50/24" in links
    assert settings(daemon, "c1")["Networks"]["netb"]["Aliases"] == ["x"]
    again = daemon.docker("network", "connect", "netb", "c1", check=False)
    assert again.returncode == 1 and b"endpoint with name c1 already exists in network netb" in again.stderr

    daemon.docker("network", "disconnect", "neta", "c1")
    links = daemon.docker("exec", "c1", "ip", "-o", "-4", "addr").stdout.decode()
    assert "eth0" not in links and "10.64.0.50" in links
    assert "default via 10.64.0.1 dev eth1" in daemon.docker("exec", "c1", "ip", "route").stdout.decode()
    assert list(settings(daemon, "c1")["Networks"]) == ["netb"]
    gone = daemon.docker("network", "disconnect", "neta", "c1", check=False)
    assert b"is not connected to the network neta" in gone.stderr


def test_connect_while_stopped_is_remembered(daemon: Daemon) -> None:
    daemon.docker("network", "create", "later")
    daemon.docker("create", "--name", "c2", "busybox", "sleep", "60")
    daemon.docker("network", "connect", "later", "c2")
    daemon.docker("network", "connect", "later", "c2")  # again is no error while it does not run
    assert set(settings(daemon, "c2")["Networks"]) == {"bridge", "later"}
    assert settings(daemon, "c2")["Networks"]["later"]["IPAddress"] == ""
    daemon.docker("start", "c2")

    assert settings(daemon, "c2")["Networks"]["later"]["IPAddress"]
    assert {b"eth0", b"eth1"} <= set(daemon.docker("exec", "c2", "ls", "/sys/class/net").stdout.split())


@pytest.mark.docker_client(28)
def test_several_networks_at_create_and_the_priority_that_chooses_the_way_out(daemon: Daemon) -> None:
    for number, name in ((65, "one"), (66, "two")):
        daemon.docker("network", "create", "--subnet", f"10.{number}.0.0/24", name)
    daemon.docker(
        "run", "-d", "--name", "c3", "--network", "one", "--network", "name=two,gw-priority=5,alias=zwei", "busybox", "sleep", "60"
    )

    assert set(settings(daemon, "c3")["Networks"]) == {"one", "two"}
    assert "default via 10.66.0.1 dev eth1" in daemon.docker("exec", "c3", "ip", "route").stdout.decode()
    assert settings(daemon, "c3")["Networks"]["two"]["GwPriority"] == 5


@pytest.mark.docker_client(28)
def test_refusals_have_dockers_words(daemon: Daemon) -> None:
    daemon.docker("network", "create", "--subnet", "10.67.0.0/24", "taken")
    daemon.docker("create", "--name", "c4", "busybox", "true")
    daemon.docker("run", "-d", "--name", "c5", "--network", "taken", "busybox", "sleep", "60")
    cases = {
        ("network", "create", "taken"): b"network with name taken already exists",
        ("network", "create", "bridge"): b"operation is not permitted on predefined bridge network",
        ("network", "create", "--subnet", "10.67.0.0/25", "over"): b"Pool overlaps with other one on this address space",
        ("network", "create", "-d", "nosuch", "n"): b'plugin "nosuch" not found',
        ("network", "create", "--subnet", "10.68.0.0/24", "--gateway", "10.69.0.1", "n"): b"",
        ("network", "create", "--subnet", "10.68.0.5/24", "n"): b"invalid subnet 10.68.0.5/24: it should be 10.68.0.0/24",
        ("network", "create", "-o", "com.docker.network.driver.mtu=x", "n"): b"com.docker.network.driver.mtu",
        ("network", "rm", "bridge"): b"bridge is a pre-defined network and cannot be removed",
        ("network", "rm", "nosuch"): b"network nosuch not found",
        ("network", "rm", "taken"): b'network taken has active endpoints (name:"c5" id:"',
        ("network", "connect", "host", "c4"): b"cannot connect container to host network",
        ("network", "connect", "--alias", "x", "bridge", "c4"): b"network-scoped aliases are only supported for user-defined",
        ("network", "connect", "--ip", "10.70.0.1", "taken", "c4"): b"",
        ("run", "--rm", "--network", "nosuch", "busybox", "true"): b"network nosuch not found",
        ("run", "--rm", "--network", "taken", "--ip", "10.67.0.2", "busybox", "true"): b"Address already in use",
        ("create", "--ip", "10.9.0.1", "busybox", "true"): b"user specified IP address is supported",
    }  # fmt: skip
    for command, words in cases.items():
        done = daemon.docker(*command, check=False)
        if command[:2] == ("network", "connect") and command[2] == "--ip":
            assert daemon.docker("start", "c4", check=False).returncode == 1  # told at the start
        else:
            assert done.returncode != 0 and words in done.stderr, (command, done)
    assert {"n", "over"}.isdisjoint(daemon.docker("network", "ls", "--format", "{{.Name}}").stdout.decode().split())


def test_filters_and_prune(daemon: Daemon) -> None:
    daemon.docker("network", "create", "--label", "keep=1", "used")
    daemon.docker("network", "create", "unused")
    daemon.docker("create", "--name", "c6", "--network", "used", "busybox", "true")

    def names(*filters: str) -> set[str]:
        flags = [word for one in filters for word in ("--filter", one)]
        return set(daemon.docker("network", "ls", "--format", "{{.Name}}", *flags).stdout.decode().split())

    assert names("type=custom") == {"used", "unused"}
    assert names("type=builtin") == {"bridge", "host", "none"}
    assert names("label=keep=1") == {"used"} and names("name=nus") == {"unused"}
    assert names("dangling=true") == {"unused"}
    assert names("driver=host") == {"host"}
    assert daemon.docker("network", "prune", "-f").stdout == b"Deleted Networks:\nunused\n\n"


def test_events_tell_of_networks(daemon: Daemon) -> None:
    daemon.docker("network", "create", "told")
    daemon.docker("run", "--rm", "--network", "told", "busybox", "true")
    daemon.docker("network", "rm", "told")
    shown = daemon.docker(
        "events", "--since", "1h", "--until", str(int(time.time()) + 1), "--filter", "type=network", "--format", "{{json .}}"
    ).stdout
    every = [json.loads(line) for line in shown.splitlines()]
    seen = [one for one in every if one["Actor"]["Attributes"].get("name") == "told"]

    assert [one["Action"] for one in seen] == [
        "create", "connect", "disconnect", "destroy",
    ]  # fmt: skip
    assert all(one["Actor"]["Attributes"]["type"] == "bridge" for one in seen if "type" in one["Actor"]["Attributes"])


def test_networks_containers_and_leases_come_back_after_a_kill(daemon: Daemon) -> None:
    daemon.docker("network", "create", "--subnet", "10.71.0.0/24", "kept")
    daemon.docker("run", "-d", "--name", "c7", "--network", "kept", "-p", "8080", "busybox", "sleep", "60")
    server = listens(daemon, "c7", 8080)
    before, shown = network(daemon, "kept"), settings(daemon, "c7")
    daemon.restart()

    assert network(daemon, "kept") == before
    assert settings(daemon, "c7") == shown
    daemon.docker("run", "-d", "--name", "c8", "--network", "kept", "busybox", "sleep", "60")
    assert settings(daemon, "c8")["Networks"]["kept"]["IPAddress"] == "10.71.0.3"
    with server:
        assert reaches(daemon, "c8", "10.71.0.2", 8080)
        ((bound, *_),) = shown["Ports"].values()
        socket.create_connection(("127.0.0.1", int(bound["HostPort"])), 5).close()
