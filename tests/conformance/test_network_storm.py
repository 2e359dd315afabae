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
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampan.kernel import netns
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.nftables import BRIDGE, Nftables
from support.daemon import Daemon
from support.inside import listens

CYCLES = int(os.environ.get("SAMPAN_STORM_CYCLES", "500"))
KILLS = 10
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


class Cycles:
    """Connections and disconnections, a thread for each container, while somebody kills the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._changed = threading.Condition()
        self._lives = 0
        self._alive = True
        self.begun = 0

    def wait_for(self, cycle: int) -> None:
        """Wait until so many have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.begun >= cycle, 120)

    def kill(self) -> None:
        with self._changed:
            self._alive = False
            self._lives += 1
        self._daemon.kill(signal.SIGKILL)

    def start(self) -> None:
        self._daemon.start()
        with self._changed:
            self._alive = True
            self._changed.notify_all()

    def run(self, container: str, dice: random.Random) -> None:
        """Go through cycles until there have been enough; the container ends up on some of the networks."""
        while self._take():
            name = dice.choice(NETWORKS)
            self._ask(name, "connect", container)
            self._ask(name, "disconnect", container)
        for name in dice.sample(NETWORKS, 2):
            self._ask(name, "connect", container)

    def _take(self) -> bool:
        with self._changed:
            self.begun += 1
            self._changed.notify_all()
            return self.begun <= CYCLES

    def _ask(self, name: str, verb: str, container: str) -> None:
        """Ask until there is an answer: when the daemon was killed over it, it may have come about before."""
        fine = {200}
        while True:
            with self._changed:
                assert self._changed.wait_for(lambda: self._alive, 120)
                life = self._lives
            try:
                answer = self._daemon.call("POST", f"/networks/{name}/{verb}", {"Container": container})
                assert answer.status in fine, answer
                return
            except (OSError, http.client.HTTPException):
                with self._changed:
                    assert self._lives > life, "it was not killed"
                fine = {200, 403, 500}


class Traffic(threading.Thread):
    """Connections from one container to another's port 80, one after the other, and a conversation that goes on meanwhile."""

    def __init__(self, client: Fd, server: socket.socket, address: str) -> None:
        super().__init__()
        self._client, self._server, self._address = client, server, address
        self.ending = threading.Event()
        self.count = 0
        self.problem = ""

    def run(self) -> None:
        try:
            with self._pair() as near, self._server.accept()[0] as far:
                far.settimeout(5)
                while not self.ending.is_set():
                    near.sendall(b"on")
                    assert far.recv(2, socket.MSG_WAITALL) == b"on"
                    with self._pair(), self._server.accept()[0]:
                        self.count += 1
        except (OSError, AssertionError) as error:
            self.problem = f"{error!r} after {self.count}"

    def _pair(self) -> socket.socket:
        with netns.inside(self._client):
            made = socket.socket()
        made.settimeout(5)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # nothing is left in TIME_WAIT
        made.connect((self._address, 80))
        return made


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
    pid = storm.ok("GET", "/containers/s1/json")["State"]["Pid"]
    cycles = Cycles(storm)
    with open_fd(f"/proc/{pid}/ns/net", os.O_RDONLY) as client, ThreadPoolExecutor() as pool:
        traffic = Traffic(client, server, address)
        traffic.start()
        work = [pool.submit(cycles.run, container, random.Random(container)) for container in containers]
        for kill in range(1, KILLS + 1):
            cycles.wait_for(CYCLES * kill // (KILLS + 1))
            threading.Event().wait(dice.random() * 0.03)  # anywhere in what is being done
            cycles.kill()
            cycles.start()
        for one in work:
            one.result()
        traffic.ending.set()
        traffic.join()
    assert traffic.problem == "" and traffic.count > CYCLES

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
