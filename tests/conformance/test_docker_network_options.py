"""The docker client's options of bridge networks and of endpoints that have no other test, as containers and host see them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from support.daemon import Daemon
from support.inside import listens, reaches

BRIDGE = "com.docker.network.bridge."


@pytest.fixture(autouse=True)
def no_networks_left(daemon: Daemon) -> Iterator[None]:
    yield
    daemon.remove_all()
    daemon.docker("network", "prune", "-f")


def test_the_host_keeps_out_interfaces_have_their_prefix_and_ports_their_address(daemon: Daemon) -> None:
    options = {
        f"{BRIDGE}inhibit_ipv4": "true", f"{BRIDGE}host_binding_ipv4": "127.0.0.1", f"{BRIDGE}name": "smptopt0",
        "com.docker.network.container_iface_prefix": "lan",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    daemon.docker("network", "create", "--subnet", "10.74.0.0/24", *words, "odd")
    daemon.docker("run", "-d", "--name", "one", "--network", "odd", "-p", "80", "busybox", "sleep", "60")
    daemon.docker("run", "-d", "--name", "two", "--network", "odd", "busybox", "sleep", "60")
    links = daemon.docker("run", "--rm", "--network", "host", "busybox", "ip", "-o", "-4", "addr").stdout.decode()
    (bound,) = json.loads(daemon.docker("inspect", "one").stdout)[0]["NetworkSettings"]["Ports"]["80/tcp"]

    assert b"lan0" in daemon.docker("exec", "one", "ls", "/sys/class/net").stdout
    assert "smptopt0" not in links and "10.74.0.1" not in links
    assert bound["HostIp"] == "127.0.0.1"
    with listens(daemon, "one", 80):
        assert reaches(daemon, "two", "10.74.0.2", 80)


@pytest.mark.docker_client(28)
def test_an_endpoint_has_its_name_and_settings(daemon: Daemon) -> None:
    settings = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=33"
    daemon.docker("network", "create", "--ipv6", "--subnet", "fd00:75::/64", "tuned")
    options = f'"driver-opt=com.docker.network.endpoint.sysctls={settings}",driver-opt=com.docker.network.endpoint.ifname=wan7'
    look = "cat /proc/sys/net/ipv4/conf/wan7/log_martians /proc/sys/net/ipv6/conf/wan7/hop_limit"
    shown = daemon.docker("run", "--rm", "--network", f"name=tuned,{options}", "busybox", "sh", "-c", look).stdout
    bad = '"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1"'
    refused = daemon.docker("run", "--rm", "--network", f"name=tuned,{bad}", "busybox", "true", check=False)

    assert shown == b"1\n33\n"
    assert refused.returncode == 125 and b"sysctl setting" in refused.stderr


def test_a_template_network_lends_its_settings(daemon: Daemon) -> None:
    daemon.docker("network", "create", "--config-only", "--subnet", "10.76.0.0/24", "-o", f"{BRIDGE}enable_icc=false", "pattern")
    daemon.docker("network", "create", "--config-from", "pattern", "real")
    found = json.loads(daemon.docker("network", "inspect", "real").stdout)[0]
    refused = daemon.docker("run", "--rm", "--network", "pattern", "busybox", "true", check=False)

    assert found["ConfigFrom"] == {"Network": "pattern"} and found["IPAM"]["Config"][0]["Subnet"] == "10.76.0.0/24"
    assert found["Options"][f"{BRIDGE}enable_icc"] == "false"
    assert refused.returncode != 0 and b"pattern" in refused.stderr


def test_ports_in_ranges_of_both_protocols_and_addresses(daemon: Daemon) -> None:
    def free(count: int) -> int:
        """Return the first of some neighbouring ports that nobody has."""
        for first in range(41000, 60000, 50):
            try:
                for port in range(first, first + count):
                    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
                        tcp.bind(("0.0.0.0", port))
                        udp.bind(("0.0.0.0", port))
            except OSError:
                continue
            return first
        raise AssertionError("every port is taken")

    first = free(4)
    daemon.docker("run", "-d", "--name", "ranged", "-p", f"{first}-{first + 1}:80-81", "-p", f"127.0.0.1:{first + 2}:53/udp",
                  "-p", f"{first}-{first + 3}:90/udp", "busybox", "sleep", "60")  # fmt: skip
    again = daemon.docker("run", "--rm", "-p", f"{first}:9/tcp", "busybox", "true", check=False)
    shown = daemon.docker("port", "ranged").stdout.decode().splitlines()

    assert sorted(shown) == sorted([
        f"53/udp -> 127.0.0.1:{first + 2}", f"80/tcp -> 0.0.0.0:{first}", f"81/tcp -> 0.0.0.0:{first + 1}",
        f"90/udp -> 0.0.0.0:{first}",
    ])  # fmt: skip
    assert f"Bind for 0.0.0.0:{first} failed: port is already allocated".encode() in again.stderr
