"""127.0.0.11: containers' names, as a real daemon and its answering process have them."""

from __future__ import annotations

import os
import random
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress

import dns.flags
import dns.message
import dns.rcode
import pytest

from support.daemon import Daemon
from support.inside import pid_of_names, socket_in
from support.upstream import Upstream

SERVER = ("127.0.0.11", 53)


@pytest.fixture
def net(daemon: Daemon) -> Iterator[str]:
    """A network whose gateway is 10.81.0.1."""
    daemon.docker("network", "create", "--subnet", "10.81.0.0/24", "named")
    yield "named"
    daemon.remove_all()
    daemon.docker("network", "prune", "-f")


@pytest.fixture
def upstream(net: str) -> Iterator[Upstream]:
    made = Upstream("10.81.0.1")
    yield made
    made.close()


def run(daemon: Daemon, name: str, *options: str) -> str:
    return daemon.docker("run", "-d", "--name", name, *options, "busybox", "sleep", "600").stdout.decode().strip()


def ask(daemon: Daemon, container: str, name: str, kind: str = "A", *, tcp: bool = False, **more: int) -> dns.message.Message:
    query = dns.message.make_query(name, kind, **more)
    with socket_in(daemon, container, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect(SERVER)
        wire = query.to_wire()
        if not tcp:
            client.send(wire)
            reply = dns.message.from_wire(client.recv(65535))
        else:
            client.sendall(len(wire).to_bytes(2, "big") + wire)
            data = b""
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
                data += client.recv(65535)
            reply = dns.message.from_wire(data[2:])
    assert reply.id == query.id and reply.question == query.question
    return reply


def texts(reply: dns.message.Message) -> list[str]:
    return [item.to_text() for rrset in reply.answer for item in rrset]


def test_names_aliases_ids_and_host_names_are_answered(daemon: Daemon, net: str) -> None:
    web = run(daemon, "web", "--network", net, "--network-alias", "www", "--hostname", "frontend")
    run(daemon, "asker", "--network", net)

    for name in ("web", "WWW", "frontend", web[:12], "web.named"):
        assert texts(ask(daemon, "asker", name)) == ["10.81.0.2"], name
        assert texts(ask(daemon, "asker", name, tcp=True)) == ["10.81.0.2"]
    assert texts(ask(daemon, "asker", "2.0.81.10.in-addr.arpa", "PTR")) == ["web.named."]
    assert ask(daemon, "asker", "web", "AAAA").rcode() == dns.rcode.NOERROR
    assert b"nameserver 127.0.0.11" in daemon.docker("exec", "asker", "cat", "/etc/resolv.conf").stdout


def test_renamed_connected_and_ended_containers_are_known_at_once(daemon: Daemon, net: str, upstream: Upstream) -> None:
    run(daemon, "asker", "--network", net, "--dns", "10.81.0.1")
    run(daemon, "old", "--network", net)
    daemon.docker("rename", "old", "new")
    assert texts(ask(daemon, "asker", "new")) and not texts(ask(daemon, "asker", "old"))
    daemon.docker("network", "disconnect", net, "new")
    assert not texts(ask(daemon, "asker", "new"))
    daemon.docker("network", "connect", "--alias", "again", net, "new")
    assert texts(ask(daemon, "asker", "again"))
    daemon.docker("rm", "-f", "new")
    assert ask(daemon, "asker", "again").rcode() == dns.rcode.NXDOMAIN


def test_a_container_of_the_default_bridge_gets_names_when_it_is_connected(daemon: Daemon, net: str) -> None:
    run(daemon, "web", "--network", net)
    run(daemon, "plain")
    assert b"127.0.0.11" not in daemon.docker("exec", "plain", "cat", "/etc/resolv.conf").stdout
    daemon.docker("network", "connect", "--link", "web:store", net, "plain")

    assert texts(ask(daemon, "plain", "web")) == texts(ask(daemon, "plain", "store")) == ["10.81.0.2"]
    assert b"nameserver 127.0.0.11" in daemon.docker("exec", "plain", "cat", "/etc/resolv.conf").stdout
    assert b"10.81.0.3" in daemon.docker("exec", "plain", "cat", "/etc/hosts").stdout


def test_the_rest_is_forwarded_by_udp_and_tcp_with_edns(daemon: Daemon, net: str, upstream: Upstream) -> None:
    run(daemon, "asker", "--network", net, "--dns", "10.81.0.1", "--dns-search", "corp.example")

    assert texts(ask(daemon, "asker", "host.example")) == ["192.0.2.1"]
    cut = ask(daemon, "asker", "long.example", use_edns=0, payload=1400)
    assert cut.flags & dns.flags.TC and upstream.edns[-1] == 1400
    assert len(texts(ask(daemon, "asker", "long.example", tcp=True))) == 200 and upstream.by_tcp == 1
    assert ask(daemon, "asker", "nowhere.invalid").rcode() == dns.rcode.NXDOMAIN
    assert ask(daemon, "asker", "broken.example").rcode() == dns.rcode.SERVFAIL
    assert b"search corp.example" in daemon.docker("exec", "asker", "cat", "/etc/resolv.conf").stdout


def test_a_server_that_is_silent_or_gone_is_passed_over(daemon: Daemon, net: str, upstream: Upstream) -> None:
    run(daemon, "asker", "--network", net, "--dns", "10.81.0.250", "--dns", "127.0.0.99", "--dns", "10.81.0.1")

    assert texts(ask(daemon, "asker", "host.example")) == ["192.0.2.1"]


def test_row_83_forwarded_questions_have_ports_and_ids_that_cannot_be_guessed(daemon: Daemon, net: str, upstream: Upstream) -> None:
    run(daemon, "asker", "--network", net, "--dns", "10.81.0.1")
    for number in range(40):
        ask(daemon, "asker", f"h{number}.example", id=7)

    assert len(set(upstream.ports[-40:])) > 35 and len(set(upstream.ids[-40:])) > 35


def test_row_76_nothing_of_an_internal_network_is_asked_outside(daemon: Daemon, net: str, upstream: Upstream) -> None:
    daemon.docker("network", "create", "--internal", "--subnet", "10.82.0.0/24", "inner")
    run(daemon, "hidden", "--network", "inner", "--dns", "10.81.0.1")
    run(daemon, "peer", "--network", "inner")

    assert texts(ask(daemon, "hidden", "peer")) == ["10.82.0.3"]
    assert ask(daemon, "hidden", "x.attacker.example").rcode() == dns.rcode.SERVFAIL
    assert ask(daemon, "hidden", "x.attacker.example", tcp=True).rcode() == dns.rcode.SERVFAIL
    assert ask(daemon, "hidden", "single").rcode() == dns.rcode.NXDOMAIN
    assert upstream.asked == []


def test_no_name_leaks_from_one_network_into_another(daemon: Daemon, net: str, upstream: Upstream) -> None:
    daemon.docker("network", "create", "--subnet", "10.83.0.0/24", "apart")
    run(daemon, "secret", "--network", "apart", "--network-alias", "vault")
    run(daemon, "asker", "--network", net, "--dns", "10.81.0.1")

    for name in ("secret", "vault", "secret.apart", "2.0.83.10.in-addr.arpa"):
        reply = ask(daemon, "asker", name, "PTR" if name.endswith("arpa") else "A")
        assert not texts(reply) and reply.rcode() == dns.rcode.NXDOMAIN


def test_names_are_answered_while_the_daemon_is_dead_and_after_it_is_back(daemon: Daemon, net: str) -> None:
    run(daemon, "web", "--network", net)
    run(daemon, "asker", "--network", net)
    before = pid_of_names(daemon)
    with socket_in(daemon, "asker", socket.SOCK_DGRAM) as client:
        daemon.kill(signal.SIGKILL)
        query = dns.message.make_query("web", "A")
        client.sendto(query.to_wire(), SERVER)
        assert texts(dns.message.from_wire(client.recv(512))) == ["10.81.0.2"]
    daemon.start()

    assert pid_of_names(daemon) == before
    run(daemon, "third", "--network", net)
    assert texts(ask(daemon, "asker", "third")) == ["10.81.0.4"]
    assert texts(ask(daemon, "third", "web")) == ["10.81.0.2"]


def test_a_killed_answering_process_is_replaced_and_everybody_served_again(daemon: Daemon, net: str) -> None:
    run(daemon, "web", "--network", net)
    run(daemon, "asker", "--network", net)
    before = pid_of_names(daemon)
    end = os.pidfd_open(before)
    os.kill(before, signal.SIGKILL)
    os.close(end)
    deadline = time.monotonic() + 20
    while True:  # a question to a socket that is gone is refused at once
        try:
            assert texts(ask(daemon, "asker", "web")) == ["10.81.0.2"]
            break
        except OSError:
            assert time.monotonic() < deadline

    assert pid_of_names(daemon) != before


@pytest.mark.alone
def test_row_83_a_flood_of_crafted_packets_starves_nobody(daemon: Daemon, net: str) -> None:
    run(daemon, "evil", "--network", net)
    run(daemon, "good", "--network", net)
    dice = random.Random(1)
    whole = dns.message.make_query("good", "A", use_edns=0).to_wire()
    waits = []
    before = pid_of_names(daemon)
    with socket_in(daemon, "evil", socket.SOCK_DGRAM) as flood, socket_in(daemon, "good", socket.SOCK_DGRAM) as client:
        flood.connect(SERVER)
        flood.setblocking(False)
        client.connect(SERVER)
        for number in range(100_000):
            raw = bytearray(whole)
            for _ in range(4):
                raw[int(dice.random() * len(raw))] = int(dice.random() * 256)
            with suppress(OSError):
                flood.send(raw)
            if number % 500 == 0:
                began = time.monotonic()
                client.send(dns.message.make_query("evil", "A").to_wire())
                assert texts(dns.message.from_wire(client.recv(512))) == ["10.81.0.2"]
                waits.append(time.monotonic() - began)

    assert pid_of_names(daemon) == before
    assert statistics.quantiles(waits, n=20)[-1] < 0.05 and max(waits) < 0.5  # others use this machine too
