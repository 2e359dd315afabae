"""The default bridge, on real links and a real nf_tables, in namespaces of the test's own."""

from __future__ import annotations

import errno
import os
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from kernel.net_place import LAN_HOST, LAN_NEIGHBOUR, World, new_namespace
from sampan.errors import Broken, Conflict, InvalidRequest
from sampan.kernel import netns, rtnl
from sampan.kernel.nftables import BRIDGE, DELTABLE, NEWTABLE, SUBSYSTEM, Nftables, ifname, table_of
from sampan.network.defaults import Defaults
from sampan.network.manager import Networks
from sampan.network.records import PortBinding

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")

WEB = PortBinding(80, "tcp", "", 8080, 8080)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    fds = len(os.listdir("/proc/self/fd"))
    made = World(tmp_path)
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) <= fds, "descriptors were left open"


def test_a_published_port_is_reached_from_everywhere(world: World) -> None:
    manager = world.manager()
    space, endpoint = world.container(manager, WEB)
    other, _ = world.container(manager)
    server = world.listen(space)
    neighbour = world.add_neighbour()

    assert world.peer_seen(neighbour, LAN_HOST, 8080, server) == LAN_NEIGHBOUR
    assert world.peer_seen(world.host, LAN_HOST, 8080, server) == LAN_HOST
    assert world.peer_seen(world.host, "127.0.0.1", 8080, server) == "10.213.1.1"
    assert world.peer_seen(world.host, "10.213.1.1", 8080, server) == "10.213.1.1"
    assert world.peer_seen(other, LAN_HOST, 8080, server) == "10.213.1.1"
    assert world.peer_seen(space, LAN_HOST, 8080, server) == "10.213.1.1"  # by the host to itself
    assert world.peer_seen(other, endpoint.ip, 80, server) == "10.213.1.3"


def test_row_80_a_published_port_keeps_its_clients_address(world: World) -> None:
    space, _ = world.container(world.manager(), WEB)
    server = world.listen(space)

    assert world.peer_seen(world.add_neighbour(), LAN_HOST, 8080, server) == LAN_NEIGHBOUR
    assert not world.peer_seen(world.host, "127.0.0.1", 8080, server).startswith("127.")


def test_what_leaves_is_masqueraded(world: World) -> None:
    space, _ = world.container(world.manager())
    server = world.listen(world.add_neighbour())

    assert world.peer_seen(space, LAN_NEIGHBOUR, 80, server) == LAN_HOST


def test_udp_is_published(world: World) -> None:
    space, _ = world.container(world.manager(), PortBinding(53, "udp", "", 5353, 5353))
    server = world.listen(space, 53, socket.SOCK_DGRAM)
    neighbour = world.add_neighbour()
    for where, address in ((neighbour, LAN_HOST), (world.host, "127.0.0.1")):
        with netns.inside(where):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.settimeout(5)
            client.sendto(b"ask", (address, 5353))
            question, peer = server.recvfrom(16)
            server.sendto(b"answer", peer)
            assert (question, client.recv(16)) == (b"ask", b"answer")


def test_row_74_a_neighbour_with_a_route_reaches_published_ports_only(world: World) -> None:
    at_loopback = PortBinding(81, "tcp", "127.0.0.1", 8081, 8081)
    space, endpoint = world.container(world.manager(), WEB, at_loopback)
    for port in (80, 81, 82):
        world.listen(space, port)
    neighbour = world.add_neighbour()

    assert world.opens(neighbour, LAN_HOST, 8080)
    assert not world.reaches(neighbour, endpoint.ip, 82)
    assert not world.reaches(neighbour, endpoint.ip, 80)
    assert not world.reaches(neighbour, LAN_HOST, 8081)
    assert world.opens(world.host, "127.0.0.1", 8081)


def test_row_74_packets_for_127_0_0_1_from_the_lan_reach_no_published_port(world: World) -> None:
    space, _ = world.container(world.manager(), PortBinding(81, "udp", "127.0.0.1", 8081, 8081))
    server = world.listen(space, 81, socket.SOCK_DGRAM)
    neighbour = world.add_neighbour()
    with netns.inside(neighbour):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    host = rtnl.Route()
    lan = host.link("lan0")
    host.close()
    assert lan is not None
    with raw:
        raw.bind(("eth0", 0))
        raw.send(_frame(lan.mac, "02:00:00:00:00:02", LAN_NEIGHBOUR, 8081))
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.recv(16)


def test_a_container_does_not_reach_the_hosts_loopback(world: World) -> None:
    """route_localnet is on for the bridge: CVE-2020-8558 would be open without the raw rules."""
    space, _ = world.container(world.manager())
    with netns.inside(world.host):
        service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with service, netns.inside(space):
        service.bind(("127.0.0.1", 9999))
        service.settimeout(0.2)
        route = rtnl.Route()
        link = route.link("eth0")
        assert link is not None
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        route.close()
        with raw:
            raw.bind(("eth0", 0))
            raw.send(_frame("02:42:0a:d5:01:01", link.mac, "10.213.1.2", 9999))
        with pytest.raises(TimeoutError):
            service.recv(16)


def test_row_81_two_daemons_networks_meet_at_published_ports_only(world: World) -> None:
    first, second = world.manager(1), world.manager(2)
    space, endpoint = world.container(first, WEB)
    stranger, _ = world.container(second)
    world.listen(space, 80)
    world.listen(space, 82)

    assert not world.reaches(stranger, endpoint.ip, 82)
    assert not world.reaches(stranger, endpoint.ip, 80)
    assert world.opens(stranger, "10.213.2.1", 8080)
    assert {"sampan_smpt1", "sampan_smpt2"} <= set(_tables())


def test_row_77_an_ipv4_network_shows_no_ipv6(world: World) -> None:
    space, endpoint = world.container(world.manager())
    with netns.inside(space):
        assert netns.read_sysctl("ipv6/conf/eth0/disable_ipv6") == "1"
        with open("/proc/thread-self/net/if_inet6") as table:
            assert [line.split()[-1] for line in table] == ["lo"]
    with open("/proc/thread-self/net/if_inet6") as table:
        assert not {"smpt1", endpoint.veth_host} & {line.split()[-1] for line in table}


def test_row_85_a_published_port_is_held(world: World) -> None:
    world.container(world.manager(), WEB, PortBinding(53, "udp", "127.0.0.1", 5353, 5353))
    for kind, address in ((socket.SOCK_STREAM, ("0.0.0.0", 8080)), (socket.SOCK_DGRAM, ("127.0.0.1", 5353))):
        with socket.socket(socket.AF_INET, kind) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use") as caught:
                other.bind(address)
            assert caught.value.errno == errno.EADDRINUSE


def test_row_85_a_port_taken_while_the_daemon_was_dead_is_a_clear_error_and_no_hijack(world: World) -> None:
    state = world.state()
    world.stack.callback(state.close)
    manager = Networks(state, Defaults(bridge="smpt1", bip="10.213.1.1/24"))
    manager.start()
    space, endpoint = world.container(manager, WEB)
    world.listen(space)
    manager.stop()  # as kill -9 leaves it: table, link and records stay, the sockets are gone
    with socket.socket() as thief:
        thief.bind(("0.0.0.0", 8080))
        thief.listen()
        again = Networks(state, Defaults(bridge="smpt1"))
        again.start()
        world.managers.append(again)

        with pytest.raises(Conflict, match=r"0\.0\.0\.0:8080/tcp: address already in use"):
            again.adopt(endpoint)
        assert world.opens(world.host, "127.0.0.1", 8080)
        thief.settimeout(5)
        thief.accept()[0].close()


def test_a_restarted_daemon_keeps_leases_and_ports(world: World) -> None:
    state = world.state()
    world.stack.callback(state.close)
    manager = Networks(state, Defaults(bridge="smpt1", bip="10.213.1.1/24"))
    manager.start()
    space, endpoint = world.container(manager, WEB)
    server = world.listen(space)
    manager.stop()
    again = Networks(state, Defaults(bridge="smpt1"))
    again.start()
    world.managers.append(again)

    assert again.adopt(endpoint) == endpoint
    assert world.peer_seen(world.host, "127.0.0.1", 8080, server) == "10.213.1.1"
    assert again.reserve("bridge", "another").ip == "10.213.1.3"
    with pytest.raises(Broken, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"):
        again.publish_reserve(again.reserve("bridge", "third"), [WEB])


def test_row_75_a_flushed_ruleset_is_put_back(world: World) -> None:
    manager = world.manager()
    space, endpoint = world.container(manager, WEB)
    server, unpublished = world.listen(space), world.listen(space, 81)
    lan = world.add_neighbour()
    watch = Nftables(watch=True)
    world.stack.callback(watch.close)
    began = time.monotonic()
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    seen: list[int] = []
    while SUBSYSTEM << 8 | NEWTABLE not in seen:
        seen += [answer.kind for answer in watch.listen() if table_of(answer) == "sampan_smpt1"]

    assert SUBSYSTEM << 8 | DELTABLE in seen
    assert time.monotonic() - began < 2
    assert world.peer_seen(lan, LAN_HOST, 8080, server) == LAN_NEIGHBOUR
    assert not world.reaches(lan, endpoint.ip, 81) and unpublished  # row 74 holds again
    assert world.peer_seen(world.host, "127.0.0.1", 8080, server)


def test_a_taken_port_is_refused_with_dockers_words_and_nothing_is_held(world: World) -> None:
    manager = world.manager()
    world.container(manager, WEB)
    endpoint = manager.reserve("bridge", "b" * 64)
    with pytest.raises(Broken, match="driver failed programming external connectivity on endpoint web") as caught:
        manager.publish_reserve(endpoint, [PortBinding(1, "tcp", "", 8099, 8099), WEB], name="web")

    assert str(caught.value).endswith("Bind for 0.0.0.0:8080 failed: port is already allocated")
    with socket.socket() as free:
        free.bind(("0.0.0.0", 8099))


def test_ranges_and_ephemeral_ports_ascend(world: World) -> None:
    manager = world.manager()
    low = int(netns.read_sysctl("ipv4/ip_local_port_range").split()[0])
    in_range = PortBinding(80, "tcp", "", 9000, 9001)
    _, first = world.container(manager, in_range, PortBinding(81))
    _, second = world.container(manager, in_range, PortBinding(81))

    assert [p.host_port for p in first.published] == [9000, low]
    assert [p.host_port for p in second.published] == [9001, low + 1]
    with pytest.raises(Broken, match="all ports are allocated"):
        manager.publish_reserve(manager.reserve("bridge", "c"), [in_range])


def test_only_ipv4_is_told_of_an_any_ipv6_binding(world: World) -> None:
    manager = world.manager()
    _, endpoint = world.container(manager, WEB, PortBinding(80, "tcp", "::", 8080, 8080))

    assert [(p.host_ip, p.host_port) for p in endpoint.published] == [("0.0.0.0", 8080)]


def test_detach_undoes_everything_and_twice_is_once(world: World) -> None:
    manager = world.manager()
    _, endpoint = world.container(manager, WEB)
    manager.detach(endpoint)
    manager.detach(endpoint)
    manager.settle()
    route, nft = rtnl.Route(), Nftables()
    world.stack.callback(route.close)
    world.stack.callback(nft.close)

    assert [link.name for link in route.links()] == ["lo", "smpt1"]
    assert nft.elements("sampan_smpt1", "ports") == {}
    with socket.socket() as free:
        free.bind(("0.0.0.0", 8080))
    assert manager.reserve("bridge", "d").ip == endpoint.ip


def test_an_ended_endpoint_without_ports_leaves_the_tables_and_the_next_one_with_its_address_stays(world: World) -> None:
    manager = world.manager()
    _, first = world.container(manager)
    nft = Nftables()
    world.stack.callback(nft.close)
    manager.detach(first)
    _, second = world.container(manager)

    def shown() -> tuple[list[bytes], list[bytes]]:
        return list(nft.elements("sampan_smpt1", "addresses")), list(nft.elements("sampan_smpt1", "guarded", BRIDGE))

    assert second.ip == first.ip
    manager.settle()
    assert shown() == ([IPv4Interface(second.ip).packed], [ifname(second.veth_host)])
    manager.detach(second)
    deadline = time.monotonic() + 20  # after its link, in the upkeep's thread
    while shown() != ([], []):
        assert time.monotonic() < deadline, shown()


def test_a_failed_attach_leaves_no_link(world: World) -> None:
    manager = world.manager()
    space, _ = world.container(manager)
    endpoint = manager.reserve("bridge", "e" * 64)
    with pytest.raises(FileExistsError):  # that namespace has an eth0
        manager.attach(endpoint, int(space))
    manager.detach(endpoint)
    manager.settle()
    route = rtnl.Route()
    world.stack.callback(route.close)

    assert route.link(endpoint.veth_host) is None


def test_stop_with_remove_leaves_the_host_as_it_was(world: World) -> None:
    route = rtnl.Route()
    world.stack.callback(route.close)
    netns.write_sysctl("ipv4/ip_forward", "0")
    manager = world.manager()
    forwarding = netns.read_sysctl("ipv4/ip_forward")
    manager.stop(remove=True)

    assert forwarding == "1"
    assert netns.read_sysctl("ipv4/ip_forward") == "0"
    assert [link.name for link in route.links()] == ["lo"]
    assert _tables() == []


def test_stop_with_remove_is_refused_while_endpoints_exist(world: World) -> None:
    manager = world.manager()
    manager.reserve("bridge", "f" * 64)
    with pytest.raises(Conflict, match="active endpoints"):
        manager.stop(remove=True)


def test_a_bridge_that_was_there_is_used_and_left(world: World) -> None:
    route = rtnl.Route()
    world.stack.callback(route.close)
    route.talk([rtnl.new_bridge("smpt9", "02:00:00:00:00:09", 1500)])
    link = route.link("smpt9")
    assert link is not None
    route.talk([rtnl.new_address(link.index, IPv4Interface("10.213.9.1/24"))])
    state = world.state()
    world.stack.callback(state.close)
    manager = Networks(state, Defaults(bridge="smpt9"))
    manager.start()
    address = manager.reserve("bridge", "a").ip
    for endpoint in manager.active():
        manager.detach(endpoint)
    manager.stop(remove=True)

    assert address == "10.213.9.2"
    assert route.link("smpt9") is not None
    with pytest.raises(Conflict, match="is no bridge"):
        Networks(state, Defaults(bridge="lo")).start()


def test_networks_are_found_by_name_and_id_and_keep_their_ids(world: World) -> None:
    manager = world.manager()
    names = {info.name: info for info in manager.list()}

    assert {n: i.driver for n, i in names.items()} == {"bridge": "bridge", "host": "host", "none": "null"}
    assert manager.get(names["host"].id[:12]) == names["host"]
    assert names["bridge"].subnets[0].subnet == "10.213.1.0/24"
    with pytest.raises(InvalidRequest, match="gives no addresses"):
        manager.reserve("host", "a")


@pytest.mark.alone
def test_attach_takes_three_milliseconds_and_detach_one(world: World) -> None:
    manager = world.manager()
    attached, detached = [], []
    for _ in range(15):
        space = world.stack.enter_context(new_namespace())
        endpoint = manager.publish_reserve(manager.reserve("bridge", os.urandom(8).hex()), [PortBinding(80)])
        began = time.perf_counter()
        manager.attach(endpoint, int(space))
        middle = time.perf_counter()
        manager.detach(endpoint)
        attached.append(middle - began)
        detached.append(time.perf_counter() - middle)
    a, d = statistics.median(attached) * 1e3, statistics.median(detached) * 1e3
    print(f"attach {a:.2f} ms, detach {d:.2f} ms (median of 15)")

    assert a < 15 and d < 10  # targets are 3 and 1; the slack is for a machine that others use as well


@pytest.mark.alone
def test_a_connect_takes_five_milliseconds(world: World) -> None:
    manager = world.manager()
    world.network(manager, "more", "10.99.80.0/24")
    space, _ = world.container(manager)
    container = manager.active()[0].container_id
    took = []
    for _ in range(15):
        began = time.perf_counter()
        endpoint = manager.attach(manager.reserve("more", container), int(space), frozenset())
        manager.reroute(container, int(space))
        took.append(time.perf_counter() - began)
        manager.leave(endpoint, int(space))
    print(f"connect {statistics.median(took) * 1e3:.2f} ms (median of 15), {min(took) * 1e3:.2f} at best")

    assert min(took) < 0.005  # the median is for a machine of one's own: bench/network.py


@pytest.mark.alone
def test_a_thousand_published_ports_cost_a_packet_no_more_than_ten(world: World) -> None:
    manager = world.manager()
    space, endpoint = world.container(manager, PortBinding(53, "udp", "", 5353, 5353))
    server = world.listen(space, 53, socket.SOCK_DGRAM)
    lan = world.add_neighbour()

    def round_trip() -> float:
        """Return the quickest of a thousand new flows through the published port."""
        best = 1.0
        for _ in range(1000):
            with netns.inside(lan):
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with client:
                began = time.perf_counter()
                client.sendto(b"x", (LAN_HOST, 5353))
                server.recv(16)
                best = min(best, time.perf_counter() - began)
        return best

    few = round_trip()
    manager.publish_more(endpoint, [PortBinding(port, "tcp", "", port, port) for port in range(20000, 21000)])
    many = round_trip()
    print(f"one port {few * 1e6:.0f} us, 1,001 ports {many * 1e6:.0f} us")

    assert many < few * 1.3


def _frame(to: str, by: str, source: str, port: int) -> bytes:
    """Return an Ethernet frame with a UDP packet for 127.0.0.1 that no honest stack would send."""
    udp = struct.pack(">HHHH", 4000, port, 12, 0) + b"evil"
    address = socket.inet_aton(source)
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 32, 1, 0, 64, 17, 0, address, bytes([127, 0, 0, 1]))
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:]
    return rtnl.mac_bytes(to) + rtnl.mac_bytes(by) + b"\x08\x00" + head + udp


def _tables() -> list[str]:
    nft = Nftables()
    try:
        return nft.tables()
    finally:
        nft.close()
