"""compose v2, unchanged: every option that it has for networks, and for services on them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon
from support.inside import listens

COMPOSE = Path(sys.prefix) / "bin/docker-compose"
pytestmark = pytest.mark.skipif(not COMPOSE.exists(), reason="needs docker compose v2 (tools/compose)")
NAME = "smptnetopts"
PROJECT = """
services:
  web:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    dns: [192.0.2.53]
    dns_search: [inner.test]
    dns_opt: ["timeout:1"]
    extra_hosts: ["gate:host-gateway", "other:192.0.2.9"]
    ports: ["127.0.0.1::80", "[::1]::80"]
    networks:
      front:
        aliases: [www]
        ipv4_address: 10.73.0.50
        ipv6_address: fd00:73::50
        link_local_ips: [169.254.7.7]
        mac_address: 02:42:0a:49:00:50
        gw_priority: 7
        driver_opts: {sampan.limit.in: 4mbit, sampan.limit.out: 2mbit}
      back: {interface_name: behind0}
  beside:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    network_mode: "service:web"
  db:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    networks: [back, six, others]
  alone:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    network_mode: none
  hosted:
    image: busybox
    command: sleep 600
    stop_grace_period: 0s
    network_mode: host
networks:
  others: {external: true, name: smptothers}
  six:
    name: smptsix
    enable_ipv4: false
    enable_ipv6: true
    ipam: {config: [{subnet: "fd00:74::/64"}]}
  front:
    enable_ipv6: true
    attachable: true
    labels: {tier: front}
    driver_opts:
      com.docker.network.driver.mtu: "1400"
      com.docker.network.bridge.name: smptcmp0
      com.docker.network.bridge.gateway_mode_ipv6: nat-unprotected
    ipam:
      config:
        - {subnet: 10.73.0.0/16, ip_range: 10.73.4.0/24, gateway: 10.73.0.9, aux_addresses: {printer: 10.73.4.0}}
        - {subnet: "fd00:73::/64"}
  back:
    internal: true
    driver_opts:
      com.docker.network.bridge.enable_icc: "false"
      com.docker.network.bridge.gateway_mode_ipv4: isolated
"""


@pytest.fixture
def project(daemon: Daemon, tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "compose.yaml").write_text(PROJECT)

    def compose(*words: str) -> None:
        done = subprocess.run(
            [COMPOSE, "-p", NAME, *words], cwd=tmp_path, capture_output=True, check=False, timeout=100,
            env={**os.environ, "DOCKER_HOST": daemon.host},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    daemon.docker("network", "create", "smptothers")
    try:
        compose("up", "-d")
        yield daemon
    finally:
        compose("down", "-t", "0")
        left = daemon.docker("network", "ls", "--format", "{{.Name}}").stdout.decode().split()
        daemon.docker("network", "rm", "smptothers")
    assert NAME not in " ".join(left) and "smptsix" not in left and "smptothers" in left


def shown(daemon: Daemon, kind: str, name: str) -> Any:
    return json.loads(daemon.docker(kind, "inspect", name).stdout)[0]


def test_networks_and_endpoints_are_what_the_file_says(project: Daemon) -> None:
    front, back = shown(project, "network", f"{NAME}_front"), shown(project, "network", f"{NAME}_back")
    web = shown(project, "container", f"{NAME}-web-1")
    endpoint = web["NetworkSettings"]["Networks"][f"{NAME}_front"]

    assert front["IPAM"]["Config"] == [
        {
            "Subnet": "10.73.0.0/16",
            "IPRange": "10.73.4.0/24",
            "Gateway": "10.73.0.9",
            "AuxiliaryAddresses": {"printer": "10.73.4.0"},
        },
        {"Subnet": "fd00:73::/64", "Gateway": "fd00:73::1"},
    ]
    assert (front["EnableIPv6"], front["Attachable"], front["Labels"]["tier"], back["Internal"]) == (True, True, "front", True)
    assert (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]) == ("10.73.0.50", "fd00:73::50")
    assert (endpoint["MacAddress"], endpoint["GwPriority"], endpoint["Gateway"]) == ("02:42:0a:49:00:50", 7, "10.73.0.9")
    assert "www" in endpoint["DNSNames"] and endpoint["IPAMConfig"]["LinkLocalIPs"] == ["169.254.7.7"]
    assert endpoint["DriverOpts"] == {"sampan.limit.in": "4mbit", "sampan.limit.out": "2mbit"}
    db = shown(project, "container", f"{NAME}-db-1")["NetworkSettings"]["Networks"]
    six = shown(project, "network", "smptsix")
    assert set(db) == {f"{NAME}_back", "smptsix", "smptothers"} and (six["EnableIPv4"], six["EnableIPv6"]) == (False, True)
    assert (db["smptsix"]["IPAddress"], db["smptsix"]["GlobalIPv6Address"]) == ("", "fd00:74::2") and db["smptothers"]["IPAddress"]


def test_the_kernel_has_what_the_file_says(project: Daemon) -> None:
    look = "cat /etc/resolv.conf /etc/hosts; ip -o addr; ip route; cat /sys/class/net/eth0/mtu"
    found = project.docker("exec", f"{NAME}-web-1", "sh", "-c", look).stdout.decode()
    beside = project.docker("exec", f"{NAME}-beside-1", "ip", "-o", "addr").stdout.decode()
    alone = project.docker("exec", f"{NAME}-alone-1", "ls", "/sys/class/net").stdout.split()
    hosted = project.docker("exec", f"{NAME}-hosted-1", "ls", "/sys/class/net").stdout.decode().split()
    shaped = subprocess.run(["tc", "qdisc"], capture_output=True, text=True, check=True).stdout

    for words in (
        "search inner.test\noptions timeout:1", "10.73.0.9\tgate", "192.0.2.9\tother", "10.73.0.50/16", "fd00:73::50/64",
        "169.254.7.7/16", "default via 10.73.0.9", "behind0", "\n1400\n",
    ):  # fmt: skip
        assert words in found
    assert "10.73.0.50/16" in beside
    assert alone == [b"lo"] and project.bridge in hosted
    assert "rate 4Mbit" in shaped and "rate 2Mbit" in shaped
    assert Path("/sys/class/net/smptcmp0/bridge").exists()


def test_ports_of_both_loopbacks_lead_there(project: Daemon) -> None:
    ports = shown(project, "container", f"{NAME}-web-1")["NetworkSettings"]["Ports"]["80/tcp"]
    assert {one["HostIp"] for one in ports} == {"127.0.0.1", "::1"}
    with listens(project, f"{NAME}-web-1", 80, "::") as server:
        for one in ports:
            with socket.create_connection((one["HostIp"], int(one["HostPort"])), 5):
                server.accept()[0].close()
