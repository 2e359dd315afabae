"""Ports published on ::1, carried by hand: the kernel routes nothing back to the IPv6 loopback address.

IPv4 has route_localnet for that; for ::1 fib6 wants the loopback device itself (rt6_need_strict), so a translated answer
that comes from a bridge finds no way.  So the answering process (dns/server.py) accepts on the port, connects to the
container, and copies in both directions.  It outlives the daemon, and nothing is started for it when a container is.
Containers see the connection come from their gateway, as with 127.0.0.1.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from sampan.network.dns.loop import READ, WRITE, Loop, Timer

CHUNK = 1 << 16
TURNS = 16  # chunks of one direction before the others have their turn
CONNECTIONS = 1024  # of one port
PEERS = 1024  # of one UDP port
PEER_IDLE = 90.0  # seconds
_ON_ITS_WAY = frozenset({0, errno.EINPROGRESS})
Address = tuple[str, int]


def _far(kind: socket.SocketKind, to: Address) -> socket.socket:
    """Return a socket on its way to the container.  Raises OSError."""
    made = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, kind)
    made.setblocking(False)
    code = made.connect_ex(to)
    if code not in _ON_ITS_WAY:
        made.close()
        raise OSError(code, "connect", to[0])
    return made


class Direction:
    """What one end says and the other has not taken yet: a chunk at most, so that a slow reader slows the writer."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.waiting = b""
        self.heard_all = self.done = False

    def move(self) -> None:
        """Copy what there is.  Raises OSError when an end is broken."""
        for _ in range(TURNS):
            try:
                if self.waiting:
                    self.waiting = self.waiting[self.sink.send(self.waiting) :]
                elif self.heard_all:
                    if not self.done:
                        self.done = True
                        self.sink.shutdown(socket.SHUT_WR)
                    return
                else:
                    self.waiting = self.source.recv(CHUNK)
                    self.heard_all = not self.waiting
            except BlockingIOError:
                return


class Connection:
    """A client's connection and the one to the container."""

    def __init__(self, loop: Loop, client: socket.socket, to: Address, over: Callable[[Connection], None]) -> None:
        self._loop, self._over = loop, over
        client.setblocking(False)
        far = _far(socket.SOCK_STREAM, to)
        self._ends = (client, far)
        self._directions = (Direction(client, far), Direction(far, client))
        self._watched: dict[int, int] = {}
        self._expect(far, WRITE)

    def close(self) -> None:
        for end in self._ends:
            self._expect(end, 0)
            end.close()

    def _move(self) -> None:
        try:
            for direction in self._directions:
                direction.move()
        except OSError:
            self._over(self)
            return
        if all(direction.done for direction in self._directions):
            self._over(self)
            return
        for end in self._ends:
            reads = any(one.source is end and not one.waiting and not one.heard_all for one in self._directions)
            writes = any(one.sink is end and one.waiting for one in self._directions)
            self._expect(end, READ * reads | WRITE * writes)

    def _expect(self, end: socket.socket, events: int) -> None:
        """Not watched at all when nothing is expected: epoll(7) tells of a hang-up whether asked to or not."""
        fd = end.fileno()
        before = self._watched.pop(fd, 0)
        if events:
            self._watched[fd] = events
            (self._loop.change if before else self._loop.watch)(fd, events, self._move)
        elif before:
            self._loop.forget(fd)


class Peer:
    """A client of a UDP port, with a socket of its own to the container."""

    def __init__(self, far: socket.socket, timer: Timer) -> None:
        self.far, self.timer = far, timer


class Relay:
    """One published port: its listening (or bound) socket, and whoever is being carried."""

    def __init__(self, loop: Loop, container: str, proto: str, to: Address) -> None:
        self.container = container
        self._loop, self._proto, self._to = loop, proto, to
        self._socket: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._peers: dict[Address, Peer] = {}

    def hear(self, fd: int) -> None:
        """Listen here from now on; who is being carried stays so."""
        self._deaf()
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._loop.watch(fd, READ, self._accept if self._proto == "tcp" else self._datagrams)

    def _deaf(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        self._deaf()
        for connection in list(self._connections):
            self._over(connection)
        for address in list(self._peers):
            self._gone(address)

    def _accept(self) -> None:
        if self._socket is None:
            return
        try:
            client, _ = self._socket.accept()
        except OSError:
            return
        try:
            if len(self._connections) < CONNECTIONS:
                self._connections.add(Connection(self._loop, client, self._to, self._over))
                return
        except OSError:
            pass  # nobody listens there: the client is told by the end of its own connection
        client.close()

    def _over(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.close()

    def _datagrams(self) -> None:
        for _ in range(TURNS):
            if self._socket is None:
                return
            try:
                data, sender = self._socket.recvfrom(CHUNK)
            except OSError:
                return
            try:
                self._peer(sender[:2]).far.send(data)
            except OSError:
                pass  # UDP promises nothing

    def _peer(self, address: Address) -> Peer:
        found = self._peers.get(address)
        if found is None:
            if len(self._peers) >= PEERS:
                self._gone(next(iter(self._peers)))
            far = _far(socket.SOCK_DGRAM, self._to)
            self._loop.watch(far.fileno(), READ, lambda: self._answers(address))
        else:
            far = found.far
            found.timer.cancel()
        made = self._peers[address] = Peer(far, self._loop.after(PEER_IDLE, lambda: self._gone(address)))
        return made

    def _answers(self, address: Address) -> None:
        peer = self._peers[address]
        for _ in range(TURNS):
            try:
                data = peer.far.recv(CHUNK)
                if self._socket is not None:
                    self._socket.sendto(data, address)
            except OSError:
                return

    def _gone(self, address: Address) -> None:
        peer = self._peers.pop(address)
        peer.timer.cancel()
        self._loop.forget(peer.far.fileno())
        peer.far.close()
