"""Connect and disconnect under traffic, with the daemon killed at random: nothing is lost, nothing is left."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from sampan.kernel.nftables import BRIDGE, Nftables
from support.daemon import Daemon
from support.inside import listens, reaches

CYCLES = int(os.environ.get("SAMPAN_STORM_CYCLES", "120"))  # the 500 take some two minutes
NETWORKS = ("storma", "stormb", "stormc")


@pytest.fixture
def storm() -> Iterator[Daemon]:
    made = Daemon().start()
    try:
        made.import_busybox()
        yield made
    finally:
        made.close()


def connected(daemon: Daemon) -> dict[str, set[str]]:
    """Return what inspect says: container -> networks with an address."""
    made = {}
    for one in daemon.ok("GET", "/containers/json"):
        found = daemon.ok("GET", f"/containers/{one['Id']}/json")["NetworkSettings"]["Networks"]
        made[one["Id"]] = {name for name, endpoint in found.items() if endpoint["IPAddress"]}
    return made


def inside(daemon: Daemon, container: str) -> list[str]:
    """Return the IPv4 addresses that the kernel has in a container."""
    pid = daemon.ok("GET", f"/containers/{container}/json")["State"]["Pid"]
    shown = subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout
    return sorted(a["local"] for link in json.loads(shown) if link["ifname"] != "lo" for a in link["addr_info"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_lease_rule_or_interface_is_lost_or_left(storm: Daemon) -> None:
    dice = random.Random(500)
    for number, name in enumerate(NETWORKS):
        storm.ok("POST", "/networks/create", {"Name": name, "IPAM": {"Config": [{"Subnet": f"10.{200 + number}.7.0/24"}]}})
    containers = [storm.create("sleep", "3600", name=f"s{number}") for number in range(3)]
    for container in containers:
        storm.ok("POST", f"/containers/{container}/start")
    server = listens(storm, "s0", 80)
    address = storm.ok("GET", "/containers/s0/json")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    for cycle in range(CYCLES):
        container, name = dice.choice(containers), dice.choice(NETWORKS)
        verb = dice.choice(("connect", "disconnect"))
        killer = threading.Timer(dice.random() * 0.01, storm.process.send_signal, (signal.SIGKILL,)) if storm.process else None
        deadly = cycle % 10 == 9
        if deadly and killer is not None:
            killer.start()
        try:
            storm.call("POST", f"/networks/{name}/{verb}", {"Container": container})
        except (OSError, http.client.HTTPException):
            assert deadly
        if deadly and killer is not None:
            killer.join()
            storm.process.wait(30)  # type: ignore[union-attr]  # it runs
            storm.start()
        assert reaches(storm, "s1", address, 80), cycle
        server.accept()[0].close()

    told = connected(storm)
    assert set(told) == set(containers)
    leases = set()
    for container in containers:
        shown = storm.ok("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"].values()
        expected = sorted(one["IPAddress"] for one in shown if one["IPAddress"])
        assert inside(storm, container) == expected
        leases |= set(expected)
    links = json.loads(subprocess.run(["ip", "-j", "link", "show", "type", "veth"], capture_output=True, check=True).stdout)
    nft = Nftables()
    guarded = {key.rstrip(b"\0").decode() for key in nft.elements(f"sampan_{storm.bridge}", "guarded", BRIDGE)}
    open_addresses = {socket.inet_ntoa(key) for key in nft.elements(f"sampan_{storm.bridge}", "addresses")}
    nft.close()
    assert open_addresses == leases
    assert guarded <= {link["ifname"] for link in links} and len(guarded) == len(leases)
    for name in NETWORKS:
        found = storm.ok("GET", f"/networks/{name}")["Containers"]
        assert set(found) == {container for container in containers if name in told[container]}
    server.close()
    blocks = {storm.ok("GET", f"/networks/{name}")["Id"][:12] for name in NETWORKS}
    bridges = {storm.bridge, *(f"br-{one}" for one in blocks)}
    assert {link["ifname"] for link in links if link.get("master", "") in bridges} == guarded
    for container in containers:
        storm.ok("DELETE", f"/containers/{container}?force=1")
    for name in NETWORKS:
        storm.ok("DELETE", f"/networks/{name}")
