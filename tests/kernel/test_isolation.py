"""Who reaches whom: networks, host and a second host, IPv4 and IPv6, as tables; and what a link may say (rows 74 to 82)."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from kernel.net_place import BLOCKED, LAN_HOST, LAN_HOST6, LAN_NEIGHBOUR, LAN_NEIGHBOUR6, World, eventually
from sampan.kernel import netns, rtnl
from sampan.kernel.fds import Fd
from sampan.network.addresses import link_local_of
from sampan.network.manager import Networks
from sampan.network.records import BRIDGE, Endpoint, PortBinding, Wanted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces")

ICC = f"{BRIDGE}enable_icc"
WEB = PortBinding(80, "tcp", "", 8080, 8080)
NETWORKS = ("plain", "kept", "wild")
SEEN = """table inet seen {
    counter untracked {}
    counter tracked {}
    chain forward {
        type filter hook forward priority -10
        ct state untracked counter name untracked
        ct state new,established counter name tracked
    }
}"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    fds = len(os.listdir("/proc/self/fd"))
    made = World(tmp_path)
    yield made
    made.close()
    assert len(os.listdir("/proc/self/fd")) <= fds, "descriptors were left open"


@pytest.fixture
def manager(world: World) -> Networks:
    return world.manager()


def wrong(world: World, table: list[tuple[str, Fd, str, int, bool]]) -> list[str]:
    """Return the rows (what, from, address, port, whether it opens) that are not so."""
    return [
        what
        for what, space, address, port, opens in table
        if opens != world.reaches(space, address, port, 10 if opens else BLOCKED)
    ]


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_row_81_networks_are_apart_and_meet_at_published_ports_only(world: World, manager: Networks, six: bool) -> None:
    for number, name, more in ((10, "open", {}), (20, "apart", {}), (30, "inner", {"internal": True})):
        world.network(manager, name, f"10.99.{number}.0/24", f"fd00:{number}::/64", **more)
    world.network(manager, "quiet", "10.99.40.0/24", "fd00:40::/64", options={ICC: "false"})
    published = PortBinding(80, "tcp", "", 8080, 8080)
    web, web_at = world.member(manager, "open", published)
    peer, _ = world.member(manager, "open")
    far, far_at = world.member(manager, "apart")
    hidden, hidden_at = world.member(manager, "inner")
    beside, beside_at = world.member(manager, "inner")
    quiet, quiet_at = world.member(manager, "quiet")
    mute, mute_at = world.member(manager, "quiet")
    lan = world.add_neighbour()
    for space in (web, peer, far, hidden, beside, quiet, mute, lan):
        for port in (80, 81):
            world.listen(space, port)

    def at(endpoint: Endpoint) -> str:
        return endpoint.ip6 if six else endpoint.ip

    host, neighbour = (LAN_HOST6, LAN_NEIGHBOUR6) if six else (LAN_HOST, LAN_NEIGHBOUR)
    table = [
        ("a peer, any port", peer, at(web_at), 81, True),
        ("a peer by the host's port", peer, host, 8080, True),
        ("itself by the host's port", web, host, 8080, True),
        ("another network, unpublished", far, at(web_at), 81, False),
        ("another network, published, directly", far, at(web_at), 80, False),
        ("another network by the host's port", far, host, 8080, True),
        ("the host, any port", world.host, at(web_at), 81, True),
        ("the host's own published port", world.host, host, 8080, True),
        ("the neighbour by the host's port", lan, host, 8080, True),
        ("the neighbour, directly, published", lan, at(web_at), 80, False),
        ("the neighbour, directly, unpublished", lan, at(far_at), 81, False),
        ("out to the neighbour", far, neighbour, 81, True),
        ("internal: a peer", beside, at(hidden_at), 81, True),
        ("internal: out to the neighbour", hidden, neighbour, 81, False),
        ("internal: out to another network", hidden, at(web_at), 81, False),
        ("internal: in from another network", web, at(hidden_at), 81, False),
        ("internal: in from the neighbour", lan, at(hidden_at), 81, False),
        ("internal: the host comes in", world.host, at(beside_at), 81, True),
        ("no icc: a peer", quiet, at(mute_at), 81, False),
        ("no icc: out to the neighbour", mute, neighbour, 81, True),
        ("no icc: the host comes in", world.host, at(quiet_at), 81, True),
    ]

    assert wrong(world, table) == []


def test_row_74_published_ports_of_ipv6_and_loopback(world: World, manager: Networks) -> None:
    world.network(manager, "dual", "10.99.50.0/24", "fd00:50::/64")
    lan = world.add_neighbour()
    space, endpoint = world.member(
        manager, "dual", PortBinding(80, "tcp", "", 8080, 8080), PortBinding(81, "tcp", "127.0.0.1", 8081, 8081),
        PortBinding(82, "tcp", LAN_HOST6, 8082, 8082),
    )  # fmt: skip
    server = world.listen(space)
    for port in (81, 82, 83):
        world.listen(space, port)

    assert [(p.host_ip, p.host_port) for p in endpoint.published] == [
        ("0.0.0.0", 8080), ("::", 8080), ("127.0.0.1", 8081), (LAN_HOST6, 8082),
    ]  # fmt: skip
    assert world.peer_seen(lan, LAN_HOST6, 8080, server) == LAN_NEIGHBOUR6  # row 80
    assert world.peer_seen(lan, LAN_HOST, 8080, server) == LAN_NEIGHBOUR
    table = [
        ("loopback from the LAN", lan, LAN_HOST, 8081, False), ("loopback from the LAN, IPv6", lan, LAN_HOST6, 8081, False),
        ("loopback", world.host, "127.0.0.1", 8081, True), ("one IPv6 address", lan, LAN_HOST6, 8082, True),
        ("not the other", world.host, endpoint.gateway6, 8082, False),
        ("unpublished with a route", lan, endpoint.ip6, 83, False), ("published with a route", lan, endpoint.ip6, 80, False),
    ]  # fmt: skip
    assert wrong(world, table) == []


def test_row_77_only_networks_that_ask_for_it_have_ipv6(world: World, manager: Networks) -> None:
    world.network(manager, "four", "10.99.60.0/24")
    world.network(manager, "six", "fd00:61::/64")
    four, four_at = world.member(manager, "four")
    six, six_at = world.member(manager, "six")

    for space, expected in ((four, {"lo"}), (six, {"lo", "eth0"})):
        with netns.inside(space), open("/proc/thread-self/net/if_inet6") as table:
            assert {line.split()[-1] for line in table} == expected
    assert (four_at.ip6, six_at.ip) == ("", "")
    assert six_at.ip6 == "fd00:61::2" and world.listen(six) and world.reaches(world.host, six_at.ip6, 80, 3)


# What a link may say: frames made by hand.


def raw_socket(world: World, space: Fd, kind: int = 0) -> socket.socket:
    with netns.inside(space):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
        made.bind(("eth0", kind))
    world.stack.callback(made.close)
    return made


def arp(sender: Endpoint, claims: str, *, mac: str = "", source: str = "") -> bytes:
    own = rtnl.mac_bytes(mac or sender.mac)
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + own + socket.inet_aton(claims) + b"\xff" * 6 + socket.inet_aton(claims)
    return b"\xff" * 6 + (rtnl.mac_bytes(source) if source else own) + b"\x08\x06" + body


def udp(sender: Endpoint, to: Endpoint, *, source: str = "", mac: str = "") -> bytes:
    payload = struct.pack(">HHHH", 4000, 9999, 12, 0) + b"evil"
    addresses = socket.inet_aton(source or sender.ip) + socket.inet_aton(to.ip)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 32, 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:]
    return rtnl.mac_bytes(to.mac) + rtnl.mac_bytes(mac or sender.mac) + b"\x08\x00" + head + payload


def icmp6(sender: Endpoint, kind: int, body: bytes, *, source: str = "", to: str = "ff02::1") -> bytes:
    group = b"\x33\x33" + ip_address(to).packed[-4:]
    addresses = ip_address(source or sender.ip6).packed + ip_address(to).packed
    message = struct.pack(">BBH", kind, 0, 0) + body
    pseudo = addresses + struct.pack(">II", len(message), 58) + message
    total = sum(struct.unpack(f">{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message = message[:2] + struct.pack(">H", ~total & 0xFFFF) + message[4:]
    head = struct.pack(">IHBB", 6 << 28, len(message), 58, 255) + addresses
    return group + rtnl.mac_bytes(sender.mac) + b"\x86\xdd" + head + message


def arrives(world: World, frame: bytes, sender: Fd, receiver: Fd) -> bool:
    """Whether a frame that one container sends is seen by another (then a honest one follows, so that nothing is guessed)."""
    eyes = raw_socket(world, receiver, 3)
    raw_socket(world, sender).send(frame)
    eyes.settimeout(BLOCKED)
    try:
        while True:
            if eyes.recv(2048)[: len(frame)] == frame:
                return True
    except TimeoutError:
        return False


def test_row_82_a_container_speaks_with_its_own_addresses_only(world: World, manager: Networks) -> None:
    evil, evil_at = world.container(manager)
    other, other_at = world.container(manager)
    third = "10.213.1.9"
    cases = {
        "its own ARP": (arp(evil_at, evil_at.ip), True),
        "another's address by ARP": (arp(evil_at, other_at.ip), False),
        "the gateway's address by ARP": (arp(evil_at, "10.213.1.1"), False),
        "its own address with another's MAC in ARP": (arp(evil_at, evil_at.ip, mac=other_at.mac), False),
        "another's MAC on the frame": (arp(evil_at, evil_at.ip, source=other_at.mac), False),
        "its own packet": (udp(evil_at, other_at), True),
        "another's source address": (udp(evil_at, other_at, source=third), False),
        "another's source MAC": (udp(evil_at, other_at, mac="02:42:00:00:00:99"), False),
        "another protocol": (rtnl.mac_bytes(other_at.mac) + rtnl.mac_bytes(evil_at.mac) + b"\x88\xcc" + bytes(50), False),
        "a tagged frame": (
            rtnl.mac_bytes(other_at.mac) + rtnl.mac_bytes(evil_at.mac) + b"\x81\x00\x00\x05\x08\x00" + bytes(50),
            False,
        ),
    }

    assert {what: arrives(world, frame, evil, other) for what, (frame, _) in cases.items()} == {
        what: expected for what, (_, expected) in cases.items()
    }


def test_row_82_a_victims_flow_stays_whole(world: World, manager: Networks) -> None:
    victim, victim_at = world.container(manager)
    peer, _ = world.container(manager)
    evil, evil_at = world.container(manager)
    server = world.listen(victim)
    spoofing = raw_socket(world, evil)
    for _ in range(50):
        spoofing.send(arp(evil_at, victim_at.ip))
        spoofing.send(arp(evil_at, victim_at.ip, mac=victim_at.mac, source=victim_at.mac))
    world.peer_seen(peer, victim_at.ip, 80, server)
    world.peer_seen(world.host, victim_at.ip, 80, server)


def test_row_82_and_78_neighbours_and_routers_are_not_played_by_containers(world: World, manager: Networks) -> None:
    world.network(manager, "six", "10.99.70.0/24", "fd00:70::/64")
    evil, evil_at = world.member(manager, "six")
    other, other_at = world.member(manager, "six")
    advertise = struct.pack(">I", 0x60000000)
    option = b"\x02\x01" + rtnl.mac_bytes(evil_at.mac)
    router = struct.pack(">BBHII", 64, 0, 1800, 0, 0)
    prefix = b"\x03\x04\x40\xc0" + struct.pack(">III", 86400, 14400, 0) + ip_address("2001:db8:bad::").packed
    cases = {
        "its own neighbour advertisement": (icmp6(evil_at, 136, advertise + ip_address(evil_at.ip6).packed + option), True),
        "another's": (icmp6(evil_at, 136, advertise + ip_address(other_at.ip6).packed + option), False),
        "the gateway's": (icmp6(evil_at, 136, advertise + ip_address("fd00:70::1").packed + option), False),
        "a router advertisement": (icmp6(evil_at, 134, router + prefix, source=str(link_local_of(evil_at.mac))), False),
        "a redirect": (icmp6(evil_at, 137, bytes(36)), False),
        "another's source address": (icmp6(evil_at, 128, bytes(4), source=other_at.ip6), False),
    }

    assert {what: arrives(world, frame, evil, other) for what, (frame, _) in cases.items()} == {
        what: expected for what, (_, expected) in cases.items()
    }
    assert not any("2001:db8:bad" in text for text in addresses(world.host))


@pytest.mark.parametrize("six", [True, False], ids=["dual", "ipv4"])
def test_row_77_and_78_router_advertisements_change_no_container_and_no_host(world: World, manager: Networks, six: bool) -> None:
    """Where nothing stops them (sampan.guard=false) they arrive, and one who believes them shows that they are real."""
    subnets = ("10.99.71.0/24", "fd00:71::/64") if six else ("10.99.71.0/24",)
    world.network(manager, "wild", *subnets, options={"sampan.guard": "false"})
    evil, evil_at = world.member(manager, "wild")
    wary, _ = world.member(manager, "wild")
    gullible, _ = world.member(manager, "wild")
    with netns.inside(gullible):
        for name, value in (("disable_ipv6", "0"), ("accept_ra", "2")):
            netns.write_sysctl(f"ipv6/conf/eth0/{name}", value)
    assert eventually(lambda: any(text.startswith("fe80:") for text in addresses(gullible)))
    before = addresses(world.host), addresses(wary), _routes6(world.host)
    source = str(link_local_of(evil_at.mac))
    prefix = b"\x03\x04\x40\xc0" + struct.pack(">III", 86400, 14400, 0) + ip_address("2001:db8:bad::").packed
    frame = icmp6(evil_at, 134, struct.pack(">BBHII", 64, 0, 1800, 0, 0) + prefix, source=source)

    assert arrives(world, frame, evil, wary)
    assert eventually(lambda: any(text.startswith("2001:db8:bad:") for text in addresses(gullible)))
    assert (addresses(world.host), addresses(wary), _routes6(world.host)) == before
    assert six or before[1] == {"::1/128"}


def _routes6(space: Fd) -> list[str]:
    """Return the namespace's IPv6 routes, the default one among them, but for what they count."""
    with netns.inside(space), open("/proc/thread-self/net/ipv6_route") as table:
        return sorted(" ".join((*line.split()[:5], line.split()[-1])) for line in table)


def addresses(space: Fd) -> set[str]:
    with netns.inside(space):
        route = rtnl.Route()
    try:
        return {str(one) for one in route.addresses6()}
    finally:
        route.close()


def test_a_network_may_let_its_containers_speak_for_others(world: World, manager: Networks) -> None:
    world.network(manager, "routers", "10.99.72.0/24", options={"sampan.guard": "false"})
    gateway, gateway_at = world.member(manager, "routers")
    other, other_at = world.member(manager, "routers")

    assert arrives(world, udp(gateway_at, other_at, source="192.0.2.7"), gateway, other)


def test_addresses_macs_and_link_local_ones_as_asked(world: World, manager: Networks) -> None:
    world.network(manager, "six", "10.99.73.0/24", "fd00:73::/64")
    wanted = Wanted(ipv4="10.99.73.33", ipv6="fd00:73::33", mac="02:aa:bb:cc:dd:ee", link_local=("169.254.7.7",), ifname="lan5")
    space, endpoint = world.member(manager, "six", wanted=wanted)
    with netns.inside(space):
        route = rtnl.Route()
    link = route.link("lan5")
    found = {str(one) for one in route.addresses(0)} | {str(one) for one in route.addresses6(0)}
    route.close()

    assert link is not None and link.mac == "02:aa:bb:cc:dd:ee"
    assert {"10.99.73.33/24", "169.254.7.7/16", "fd00:73::33/64", "fe80::aa:bbff:fecc:ddee/64"} <= found
    assert endpoint.gateway6 == "fd00:73::1"


def test_what_leaves_is_masqueraded_or_has_the_source_that_is_asked_for(world: World, manager: Networks) -> None:
    chosen = {"com.docker.network.host_ipv4": "10.213.1.1", "com.docker.network.host_ipv6": "fd00:77::1"}
    world.network(manager, "six", "10.99.74.0/24", "fd00:74::/64")
    world.network(manager, "from", "10.99.76.0/24", "fd00:77::/64", options=chosen)
    world.network(manager, "bare", "10.99.75.0/24", options={**chosen, f"{BRIDGE}enable_ip_masquerade": "false"})
    space, _ = world.member(manager, "six")
    other, _ = world.member(manager, "from")
    bare, bare_at = world.member(manager, "bare")
    lan = world.add_neighbour()
    server = world.listen(lan)

    assert world.peer_seen(space, LAN_NEIGHBOUR6, 80, server) == LAN_HOST6
    assert world.peer_seen(space, LAN_NEIGHBOUR, 80, server) == LAN_HOST
    assert world.peer_seen(other, LAN_NEIGHBOUR6, 80, server) == "fd00:77::1"
    assert world.peer_seen(other, LAN_NEIGHBOUR, 80, server) == "10.213.1.1"
    assert world.peer_seen(bare, LAN_NEIGHBOUR, 80, server) == bare_at.ip
    world.listen(bare)
    assert not world.reaches(lan, bare_at.ip, 80)  # row 74: it answers, and is not open for that


def test_what_stays_within_a_network_is_not_tracked_and_all_else_is(world: World, manager: Networks) -> None:
    for number, name, options in (
        (85, "plain", {}),
        (86, "kept", {"sampan.track": "true"}),
        (87, "wild", {"sampan.guard": "false"}),
    ):
        world.network(manager, name, f"10.99.{number}.0/24", options=options)
    members = {
        name: [world.member(manager, name, *ports) for ports in ((WEB,) if name == "plain" else (), ())] for name in NETWORKS
    }
    lan = world.add_neighbour()
    for space, _ in (one for pair in members.values() for one in pair):
        world.listen(space)
    subprocess.run(["nft", "-f", "-"], input=SEEN, text=True, check=True)

    def seen(space: Fd, address: str, port: int = 80) -> dict[str, bool]:
        """Return in which states of tracking the packets of a new connection were forwarded."""
        subprocess.run(["nft", "reset", "counters", "table", "inet", "seen"], check=True, capture_output=True)
        assert world.opens(space, address, port)
        shown = subprocess.run(["nft", "list", "table", "inet", "seen"], check=True, capture_output=True, text=True).stdout
        return {name: count != "0" for name, count in re.findall(r"counter (\w+) \{\s+packets (\d+)", shown)}

    only_untracked, only_tracked = {"untracked": True, "tracked": False}, {"untracked": False, "tracked": True}
    for name, pair in members.items():
        assert seen(pair[1][0], pair[0][1].ip) == (only_untracked if name == "plain" else only_tracked), name
    assert seen(lan, LAN_HOST, 8080) == seen(members["kept"][0][0], LAN_HOST, 8080) == only_tracked
    assert seen(members["plain"][1][0], LAN_HOST, 8080)["tracked"]
