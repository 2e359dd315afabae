"""Addresses and connections: unix sockets, TCP, TCP with TLS; a connection for each request.

HTTP itself is http.client's; what a takeover leaves is the plain socket and the bytes already read from it.
"""

from __future__ import annotations

import http.client
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.client.errors import BadHost, NoDaemon, ProtocolError
from sampan.errors import InvalidRequest
from sampan.wire import hosts
from sampan.wire.hosts import Address, TlsFiles

if TYPE_CHECKING:
    import ssl

DEFAULT_HOST = "unix:///run/sampan/sampan.sock"
CONNECT_SECONDS = 30.0


def parse(text: str, *, tls: bool = False) -> Address:
    """Understand unix:///path, tcp://host[:port] (also http, https) and a bare host:port.  Raises BadHost."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme in ("http", "https"):
        rest = rest if separator else text
        return replace(_parse(f"tcp://{rest}", tls), text=text)
    return _parse(text, tls)


def _parse(text: str, tls: bool) -> Address:
    try:
        made = hosts.parse(text, tls)
    except InvalidRequest as error:
        raise BadHost(str(error)) from error
    if made.fd >= 0:
        raise BadHost(f"invalid host {text!r}: only a daemon can be given a descriptor")
    return made


def context(tls: TlsFiles) -> ssl.SSLContext:
    """Raises BadHost when a file cannot be used."""
    try:
        return tls.client()
    except InvalidRequest as error:
        raise BadHost(str(error)) from error


def open_socket(host: Address, tls: TlsFiles | None) -> socket.socket:
    """Connect.  Raises NoDaemon with the reason."""
    try:
        if host.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(host.path)
            except BaseException:
                sock.close()
                raise
            return sock
        sock = socket.create_connection((host.host, host.port), CONNECT_SECONDS)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock = context(tls).wrap_socket(sock, server_hostname=host.host)
            sock.settimeout(None)
        except BaseException:
            sock.close()
            raise
        return sock
    except PermissionError as error:
        raise NoDaemon(host.text, "permission denied on its socket", running=True) from error
    except OSError as error:
        reason = error.strerror or str(error)
        absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
        raise NoDaemon(host.text, reason, running=not absent) from error


class Connection(http.client.HTTPConnection):
    """http.client over a socket that is already open."""

    def __init__(self, host: Address, tls: TlsFiles | None) -> None:
        super().__init__("sampan" if host.path else host.host, host.port or None, blocksize=1 << 18)
        self._where = host
        self._tls = tls

    def connect(self) -> None:
        self.sock = open_socket(self._where, self._tls)

    def let_go(self) -> None:
        """No further request: the descriptor ends with the response."""
        if self.sock is not None:
            self.sock.close()  # the response's reader still holds it open
            self.sock = None


class Hijacked:
    """A connection that has become a pipe to a process: bytes both ways, either direction may end alone."""

    def __init__(self, sock: socket.socket, response: http.client.HTTPResponse, early: bytes) -> None:
        self.multiplexed = "multiplexed" in (response.getheader("Content-Type") or "")
        self._sock = sock
        self._response = response  # it keeps the descriptor alive
        self._early = early

    def fileno(self) -> int:
        return self._sock.fileno()

    def pending(self) -> bool:
        """Whether bytes are here that poll(2) does not see."""
        waiting = getattr(self._sock, "pending", None)
        return bool(self._early) or bool(waiting is not None and waiting())

    def read(self, limit: int = 65536) -> bytes:
        """Return what is there, waiting for the first byte; b"" at the end."""
        if self._early:
            data, self._early = self._early[:limit], self._early[limit:]
            return data
        try:
            return self._sock.recv(limit)
        except ConnectionResetError:
            return b""

    def write(self, data: bytes) -> None:
        self._sock.sendall(data)

    def write_some(self, data: bytes) -> int:
        """Send what can be sent without waiting; return how much it was.  Over TLS all is sent."""
        if self._sock.__class__ is not socket.socket:
            self._sock.sendall(data)
            return len(data)
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def end_input(self) -> None:
        """Say that no more input comes; output goes on.  TLS knows no half of an end: there nothing is said."""
        if self._sock.__class__ is socket.socket:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:  # the other side has gone
                pass

    def close(self) -> None:
        self._response.close()
        self._sock.close()

    def __enter__(self) -> Hijacked:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def take(connection: Connection, response: http.client.HTTPResponse, sock: socket.socket) -> Hijacked:
    """Take the connection over after its head.  Raises ProtocolError."""
    reader = response.fp
    if reader is None:
        raise ProtocolError("the daemon ended the stream before it began")
    sock.setblocking(False)  # peek must not wait: only what came together with the head is wanted
    try:
        early = bytes(reader.peek())
    except OSError:
        early = b""
    finally:
        sock.setblocking(True)
    return Hijacked(sock, response, early)
