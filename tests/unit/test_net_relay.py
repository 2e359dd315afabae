"""What is published on ::1 is carried: whole, in both directions, without reading more than the other side takes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from sampan.network import relay
from sampan.network.dns.loop import READ, Loop
from sampan.network.relay import Relay


def has_loopback6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_loopback6(), reason="needs an IPv6 loopback address")


class Place:
    """A relay in a thread of its own: what comes to `port` on ::1 goes to `server` on 127.0.0.1."""

    def __init__(self, proto: str = "tcp") -> None:
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        self.server = socket.socket(socket.AF_INET, kind)
        self.server.bind(("127.0.0.1", 0))
        self.server.settimeout(5)
        near = socket.socket(socket.AF_INET6, kind)
        near.bind(("::1", 0))
        if proto == "tcp":
            self.server.listen()
            near.listen()
        self.at = near.getsockname()[:2]
        self._fds = len(os.listdir("/proc/self/fd"))
        self._loop = Loop()
        self._end = os.eventfd(0)
        self._loop.watch(self._end, READ, self._stop)
        self.relay = Relay(self._loop, "c", proto, self.server.getsockname())
        self.relay.hear(near.detach())
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()

    def _stop(self) -> None:
        self._loop.over = True

    def client(self) -> socket.socket:
        return socket.create_connection(self.at, 5)

    def close(self) -> None:
        os.eventfd_write(self._end, 1)
        self._thread.join()
        self.relay.close()
        self._loop.forget(self._end)
        os.close(self._end)
        self.server.close()


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


def test_a_conversation_is_whole_and_each_side_says_its_own_end(place: Place) -> None:
    said = os.urandom(3 << 20)
    with place.client() as client:
        server, _ = place.server.accept()
        with server:
            sender = threading.Thread(target=lambda: (client.sendall(said), client.shutdown(socket.SHUT_WR)))
            sender.start()
            heard = b"".join(iter(lambda: server.recv(1 << 16), b""))
            sender.join()
            server.sendall(heard[::-1])
        assert heard == said
        assert b"".join(iter(lambda: client.recv(1 << 16), b"")) == said[::-1]


def test_who_does_not_read_is_not_read_for(place: Place) -> None:
    with place.client() as client:
        server, _ = place.server.accept()
        client.settimeout(0.3)
        with server, pytest.raises(TimeoutError):  # buffers are full some megabytes later
            client.sendall(bytes(256 << 20))
        with place.client() as other, place.server.accept()[0] as beside:  # and nobody else waits for it
            other.sendall(b"x")
            assert beside.recv(1) == b"x"


def test_where_nobody_listens_the_connection_ends(place: Place) -> None:
    place.server.close()
    with place.client() as client:
        client.settimeout(5)
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass


def test_a_limit_of_connections_is_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CONNECTIONS", 1)
    with place.client() as first, place.server.accept()[0] as served, place.client() as second:
        second.settimeout(5)
        assert second.recv(1) == b""
        first.sendall(b"x")
        assert served.recv(1) == b"x"


def test_datagrams_are_answered_to_whom_they_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PEERS", 2)
    place = Place("udp")
    clients = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(3)]
    for number, client in enumerate(clients):  # the third takes the first one's place
        client.settimeout(5)
        client.sendto(b"%d" % number, place.at)
        asked, peer = place.server.recvfrom(16)
        place.server.sendto(b"to " + asked, peer)
        assert client.recv(16) == b"to %d" % number
    clients[0].sendto(b"again", place.at)
    assert place.server.recv(16) == b"again"
    for client in clients:
        client.close()
    place.close()
