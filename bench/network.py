"""Container networks, Sampan and dockerd in turns, each in a host namespace of its own: throughput, connections, changes.

    bench/network.py [--rounds N] [--seconds S] [--only traffic|changes|ports]

Each engine runs in a network namespace that has a second host behind it, so that no engine's rules cost the other anything.

    traffic   from container to container, from the second host to a published port, from the host's 127.0.0.1 to it: many
              short slices, the engines in turns, client and server on a processor each.  What counts is the median of
              the rounds' ratios; behind it stands its standard error
    changes   networks made and removed, a running container connected and disconnected, through the API: medians
    ports     what the first packet of a flow through a published port takes beside ten published ports and beside a
              thousand more (Sampan alone: dockerd would run a proxy for each)

Needs root, /bin/busybox (static), dockerd and iproute2.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from peers import Peer, UnixHttp, dockerd, sampan, workspace

from sampan.kernel import netns
from sampan.kernel.fds import Fd, open_fd
from support.forked import beside

CHUNK = bytes(1 << 17)
PORT, PUBLISHED = 80, 8080
LAN = "10.213.200.1"


class Place:
    """An engine in a namespace of its own, with two containers, and a second host beside it."""

    def __init__(self, name: str, work: Path, stack: ExitStack) -> None:
        self.names = [f"smpbench-{name}", f"smpbench-{name}-lan"]
        for one in self.names:
            subprocess.run(["ip", "netns", "add", one], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "delete", one], check=False)
            subprocess.run(["ip", "-n", one, "link", "set", "lo", "up"], check=True)
        host, lan = self.names
        for words in (
            f"link add lan0 netns {host} type veth peer name eth0 netns {lan}", f"-n {host} addr add {LAN}/24 dev lan0",
            f"-n {host} link set lan0 up", f"-n {lan} addr add 10.213.200.2/24 dev eth0", f"-n {lan} link set eth0 up",
        ):  # fmt: skip
            subprocess.run(["ip", *words.split()], check=True)
        self.host, self.lan = (stack.enter_context(open_fd(f"/run/netns/{one}", os.O_RDONLY)) for one in self.names)
        with netns.inside(self.host):  # the engine is its child, and has its namespace
            found = sampan(work) if name == "sampan" else dockerd(work)
        if found is None:
            raise SystemExit("dockerd is not installed")
        self.peer: Peer = found
        stack.callback(found.stop)
        found.wait_until_ready()
        found.import_image()
        self.server = self.add_container(stack, {f"{PORT}/tcp": [{"HostPort": str(PUBLISHED)}]})
        self.address = self._address
        self.client = self.add_container(stack, {})

    def ask(self, method: str, path: str, body: object = None) -> float:
        """Make a request; return the seconds it took."""
        connection = UnixHttp(self.peer.sock)
        began = time.perf_counter()
        self.peer.call(connection, method, path, body)
        took = time.perf_counter() - began
        connection.close()
        return took

    def add_container(self, stack: ExitStack, ports: dict[str, object]) -> Fd:
        connection = UnixHttp(self.peer.sock)
        exposed: dict[str, object] = {port: {} for port in ports}
        body = {"Image": "busybox", "Cmd": ["sleep", "3600"], "ExposedPorts": exposed, "HostConfig": {"PortBindings": ports}}
        made = self.last = json.loads(self.peer.call(connection, "POST", "/containers/create", body))["Id"]
        self.peer.call(connection, "POST", f"/containers/{made}/start")
        state = json.loads(self.peer.call(connection, "GET", f"/containers/{made}/json"))
        if ports:
            self._address = state["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        return stack.enter_context(open_fd(f"/proc/{state['State']['Pid']}/ns/net", os.O_RDONLY))


def listening(space: Fd) -> socket.socket:
    with netns.inside(space):
        made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("0.0.0.0", PORT))
    made.listen(1024)
    return made


def _swallow(server: socket.socket) -> None:
    space = bytearray(1 << 18)
    while True:
        connection, _ = server.accept()
        with connection, suppress(ConnectionError):
            connection.send(b"!")
            while connection.recv_into(space):
                pass


def connected(space: Fd, to: tuple[str, int]) -> socket.socket:
    with netns.inside(space):
        made = socket.socket()
    # Closed with a reset: nothing is left in TIME_WAIT, and ports do not run out.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    made.connect(to)
    return made


def throughput(space: Fd, to: tuple[str, int], seconds: float) -> list[float]:
    """Return megabits a second."""
    with connected(space, to) as client:
        sent, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            sent += client.send(CHUNK)
        return [sent * 8 / (time.perf_counter() - began) / 1e6]


def connections(space: Fd, to: tuple[str, int], seconds: float) -> list[float]:
    """Return for each connection what its duration makes a second; it counts when the container has said something: a
    proxy accepts by itself."""
    made, end = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        with connected(space, to) as client:
            client.recv(1)
        made.append(1 / (time.perf_counter() - began))
    return made


def ways(place: Place) -> dict[str, tuple[Fd, tuple[str, int]]]:
    return {
        "container to container": (place.client, (place.address, PORT)),
        "second host to a published port": (place.lan, (LAN, PUBLISHED)),
        "127.0.0.1 to a published port": (place.host, ("127.0.0.1", PUBLISHED)),
    }


def measure(places: list[Place], rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    """Return for each measure the figures of each engine, one a round."""
    found: dict[str, list[list[float]]] = {}
    processors = sorted(os.sched_getaffinity(0))
    with ExitStack() as serving:
        serving.callback(os.sched_setaffinity, 0, processors)
        os.sched_setaffinity(0, processors[1:] or processors)  # the servers', who inherit it
        for place in places:
            server = serving.enter_context(listening(place.server))
            serving.enter_context(beside(partial(_swallow, server)))
        os.sched_setaffinity(0, processors[:1])
        for what in ways(places[0]):
            for unit, look in (("Mbit/s", throughput), ("connections/s", connections)):
                columns = found[f"{what}, {unit}"] = [[] for _ in places]
                for number in range(rounds):  # short and close together: what else the machine does meets both alike
                    for side in range(len(places)) if number % 2 else reversed(range(len(places))):
                        columns[side].append(statistics.median(look(*ways(places[side])[what], seconds)))
    return found


def changes(places: list[Place], rounds: int) -> dict[str, list[list[float]]]:
    """Return for each kind of change the seconds it took each engine."""
    found: dict[str, list[list[float]]] = {}
    kept = {"Name": "kept", "IPAM": {"Config": [{"Subnet": "10.250.8.0/24"}]}}
    fast = {"Name": "fast", "IPAM": {"Config": [{"Subnet": "10.250.9.0/24"}]}}
    for place in places:
        place.ask("POST", "/networks/create", kept)
    for number in range(2 * rounds):  # apart: for a while after a network's removal the kernel lets nobody else change a link
        for side, place in enumerate(places) if number % 2 else reversed(list(enumerate(places))):
            if number < rounds:
                made, gone = place.ask("POST", "/networks/create", fast), place.ask("DELETE", "/networks/fast")
                took = {"network create": made, "network remove": gone, "network create and remove": made + gone}
            else:
                member = {"Container": place.last}
                took = {verb: place.ask("POST", f"/networks/kept/{verb}", member) for verb in ("connect", "disconnect")}
            for what, seconds in took.items():
                found.setdefault(what, [[] for _ in places])[side].append(seconds)
    return found


def first_packets(place: Place, server: socket.socket, count: int) -> list[float]:
    """Return the seconds from the second host's sending of a flow's first packet until the container has it."""
    found = []
    for _ in range(count):
        with netns.inside(place.lan):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            began = time.perf_counter()
            client.sendto(b"x", (LAN, PUBLISHED))
            server.recv(16)
            found.append(time.perf_counter() - began)
    return found


def ports(place: Place, stack: ExitStack) -> None:
    """Print what a packet takes beside few and beside many published ports; the flow's own port is the same."""
    few = {f"{PUBLISHED}/udp": [{"HostPort": str(PUBLISHED)}], **{f"{n}/tcp": [{"HostPort": str(n)}] for n in range(20001, 20010)}}
    space = place.add_container(stack, few)
    with netns.inside(space):
        server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("0.0.0.0", PUBLISHED))
    samples: dict[bool, list[float]] = {False: [], True: []}
    for many in (False, True) * 3:
        with ExitStack() as short:
            if many:
                place.add_container(short, {f"{n}/tcp": [{"HostPort": str(n)}] for n in range(21000, 22000)})
                short.callback(place.ask, "DELETE", f"/containers/{place.last}?force=1")
            first_packets(place, server, 4000)  # what the change itself brought about is over
            samples[many] += first_packets(place, server, 3000)
    few_us, many_us = (statistics.median(samples[many]) * 1e6 for many in (False, True))
    print(
        f"a flow's first packet: {few_us:.1f} us beside 10 published ports, {many_us:.1f} us beside 1,010: {many_us / few_us:.2f}x"
    )


def show(found: dict[str, list[list[float]]]) -> None:
    """Print the traffic's figures."""
    print(f"{'median of the rounds':46} {'sampan':>9} {'dockerd':>9}  sampan/dockerd (at least 1)")
    for what, (ours, theirs) in found.items():
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        error = 1.2533 * (high - low) / 1.349 / len(ratios) ** 0.5  # of a median, by the quartiles: strays do not count
        print(f"{what:46} {statistics.median(ours):9.0f} {statistics.median(theirs):9.0f}  {ratio:.3f} +- {error:.3f}")


def show_changes(found: dict[str, list[list[float]]]) -> None:
    print(f"{'median, ms':46} {'sampan':>9} {'dockerd':>9}  dockerd/sampan")
    for what, columns in found.items():
        ours, theirs = (statistics.median(column) * 1e3 for column in columns)
        print(f"{what:46} {ours:9.2f} {theirs:9.2f} {theirs / ours:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--only", choices=("traffic", "changes", "ports"))
    arguments = parser.parse_args()
    work = workspace()
    try:
        with ExitStack() as stack:
            places = [Place(name, work, stack) for name in ("sampan", "dockerd")]
            if arguments.only in (None, "traffic"):
                show(measure(places, arguments.rounds, arguments.seconds))
            if arguments.only in (None, "changes"):
                show_changes(changes(places, arguments.rounds // 10))
            if arguments.only in (None, "ports"):
                ports(places[0], stack)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
