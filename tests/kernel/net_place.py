"""A small world for network tests: a host namespace of the test's own, containers, a neighbour on its LAN.

Sockets keep the namespace they were made in, so every party's sockets are used from the one test thread.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

from sampan.kernel import netns, rtnl
from sampan.kernel.fds import Fd
from sampan.network.defaults import Defaults
from sampan.network.host import Host
from sampan.network.manager import Networks
from sampan.network.records import Endpoint, NetworkInfo, PortBinding, Subnet, Wanted
from sampan.state import State

LAN_HOST, LAN_NEIGHBOUR = "10.213.200.1", "10.213.200.2"
LAN_HOST6, LAN_NEIGHBOUR6 = "fd00:213::1", "fd00:213::2"
BLOCKED = 0.3  # a dropped packet shows only as silence


def new_namespace() -> Fd:
    """Return a new network namespace with its loopback up."""
    made: list[Fd] = []

    def make() -> None:
        netns.unshare()
        made.append(netns.current())
        route = rtnl.Route()
        route.talk([rtnl.link_up(1)])
        route.close()

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def eventually(holds: Callable[[], object]) -> bool:
    """Wait up to two seconds for what another thread does."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if holds():
            return True
    return False


class World:
    """The test thread is in `host` while the world is open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stack = ExitStack()
        self.host = self.stack.enter_context(new_namespace())
        self.stack.enter_context(netns.inside(self.host))
        self.managers: list[Networks] = []
        self.neighbour: Fd | None = None

    def close(self) -> None:
        for manager in self.managers:
            for endpoint in manager.active():
                manager.detach(endpoint)
            manager.stop(remove=True)
        self.stack.close()

    def state(self, name: str = "one") -> State:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return State(folder)

    def manager(self, number: int = 1) -> Networks:
        state = self.state(str(number))
        self.stack.callback(state.close)
        made = Networks(state, Defaults(bridge=f"smpt{number}", bip=f"10.213.{number}.1/24"), instance=str(number))
        made.start()
        self.managers.append(made)
        return made

    def container(self, manager: Networks, *ports: PortBinding) -> tuple[Fd, Endpoint]:
        space = self.stack.enter_context(new_namespace())
        endpoint = manager.reserve("bridge", os.urandom(32).hex())
        endpoint = manager.publish_reserve(endpoint, ports)
        return space, manager.attach(endpoint, int(space))

    def network(
        self, manager: Networks, name: str, *subnets: str, options: dict[str, str] | None = None, **more: bool
    ) -> NetworkInfo:
        """Make a network with these subnets; IPv6 when one of them is."""
        wanted = NetworkInfo(
            id="", name=name, driver="bridge", subnets=tuple(Subnet(subnet=text) for text in subnets), options=options or {},
            ipv6=any(":" in text for text in subnets), ipv4=any("." in text for text in subnets), **more,
        )  # fmt: skip
        return manager.create(wanted)

    def member(self, manager: Networks, network: str, *ports: PortBinding, wanted: Wanted = Wanted()) -> tuple[Fd, Endpoint]:
        """Return a new container's namespace and its endpoint on a network."""
        space = self.stack.enter_context(new_namespace())
        endpoint = manager.publish_reserve(manager.reserve(network, os.urandom(32).hex(), wanted), ports)
        return space, manager.attach(endpoint, int(space))

    def add_neighbour(self, via: str = "") -> Fd:
        """Put a neighbour on the host's LAN; it routes `via` (a subnet) by the host."""
        space = self.stack.enter_context(new_namespace())
        route = rtnl.Route()
        route.talk([rtnl.new_veth(rtnl.Veth("lan0", 0, 1500, int(space), "eth0", "02:00:00:00:00:02"))])
        link = route.link("lan0")
        assert link is not None
        route.talk([rtnl.new_address(link.index, IPv4Interface(f"{LAN_HOST}/24")), rtnl.link_up("lan0")])
        route.talk([rtnl.new_address(link.index, IPv6Interface(f"{LAN_HOST6}/64"))])
        route.close()
        with netns.inside(space):
            route = rtnl.Route()
        link = route.link("eth0")
        assert link is not None
        route.talk([rtnl.new_address(link.index, IPv4Interface(f"{LAN_NEIGHBOUR}/24")), rtnl.link_up("eth0")])
        route.talk([rtnl.new_address(link.index, IPv6Interface(f"{LAN_NEIGHBOUR6}/64"))])
        route.talk([rtnl.default_route(IPv4Address(LAN_HOST), link.index)])
        route.talk([rtnl.default_route(IPv6Address(LAN_HOST6), link.index)])
        route.close()
        return space

    def listen(self, space: Fd, port: int = 80, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """Return a listening (or bound) socket in a namespace."""
        with netns.inside(space):
            six = os.path.exists("/proc/thread-self/net/if_inet6")
            made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind)
        self.stack.callback(made.close)
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::" if six else "0.0.0.0", port))
        made.settimeout(5)
        if kind == socket.SOCK_STREAM:
            made.listen(16)
        return made

    def opens(self, space: Fd, address: str, port: int) -> bool:
        """Whether a TCP connection from a namespace comes about, where it should: a busy machine may take its time."""
        return self.reaches(space, address, port, 5)

    def reaches(self, space: Fd, address: str, port: int, patience: float = BLOCKED) -> bool:
        """Whether a TCP connection from a namespace comes about."""
        with netns.inside(space):
            client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        with client:
            client.settimeout(patience)
            try:
                client.connect((address, port))
            except OSError:
                return False
            return True

    def peer_seen(self, space: Fd, address: str, port: int, server: socket.socket) -> str:
        """Connect, and return the peer's address as the server sees it."""
        assert self.opens(space, address, port), f"{address}:{port} is closed"
        connection, peer = server.accept()
        connection.close()
        return str(peer[0]).removeprefix("::ffff:")


@contextmanager
def drivers_host(world: World) -> Iterator[Host]:
    """Lend what drivers work on, with no manager above."""
    state = world.state()
    made = Host(state, "smptd")
    made.firewall.remake()
    made.watch(lambda _: None, lambda: None)
    yield made
    assert made.upkeep is not None
    made.upkeep.close()
    made.firewall.delete()
    made.close()
    state.close()


def network(driver: str, name: str = "n", **options: str) -> NetworkInfo:
    """Return a network as it comes to its driver."""
    subnet = Subnet(subnet="10.66.0.0/24", gateway="10.66.0.1")
    return NetworkInfo(id=os.urandom(32).hex(), name=name, driver=driver, subnets=(subnet,), options=options)
