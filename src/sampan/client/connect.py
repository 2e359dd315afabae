"""Addresses and connections: unix sockets, TCP, TCP with TLS; a connection for each request.

HTTP itself is http.client's; what a takeover leaves is the plain socket and the bytes already read from it.
"""

from __future__ import annotations

import http.client
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.client.errors import BadHost, NoDaemon, ProtocolError

if TYPE_CHECKING:
    import ssl

DEFAULT_HOST = "unix:///run/sampan/sampan.sock"
CONNECT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a client; `verify` False accepts any server."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """Raises BadHost when a file cannot be used."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            elif self.ca:
                context.load_verify_locations(self.ca)
            else:
                context.load_default_certs()
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except (OSError, ssl.SSLError) as error:
            raise BadHost(f"TLS files {self.ca} {self.cert} {self.key}: {error}") from error
        return context


@dataclass(frozen=True, slots=True)
class Host:
    """A parsed daemon address: `path` of a unix socket, else `name` and `port`."""

    text: str
    path: str = ""
    name: str = ""
    port: int = 0


def parse(text: str, *, tls: bool = False) -> Host:
    """Understand unix:///path, tcp://host[:port] and a bare host:port.  Raises BadHost."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "tcp", text
    if scheme == "unix":
        if not rest.startswith("/") or "\0" in rest or len(os.fsencode(rest)) > 107:
            raise BadHost(f"invalid host {text!r}: an absolute path of at most 107 bytes is needed")
        return Host(text, path=rest)
    if scheme not in ("tcp", "http", "https"):
        raise BadHost(f"invalid host {text!r}: unix://PATH or tcp://HOST:PORT is needed")
    rest = rest.rstrip("/")
    name, colon, port = rest.rpartition(":")
    if not colon or (name.startswith("[") and not name.endswith("]")):
        name, port = rest, ""
    name = name.removeprefix("[").removesuffix("]") or "127.0.0.1"
    port = port or ("2376" if tls else "2375")
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535 or not name.isprintable():
        raise BadHost(f"invalid host {text!r}: bad port or address")
    if any(sign in name for sign in "/?#@ "):
        raise BadHost(f"invalid host {text!r}: bad address")
    return Host(text, name=name, port=int(port))


def open_socket(host: Host, tls: TlsFiles | None) -> socket.socket:
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
        sock = socket.create_connection((host.name, host.port), CONNECT_SECONDS)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock = tls.context().wrap_socket(sock, server_hostname=host.name)
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

    def __init__(self, host: Host, tls: TlsFiles | None) -> None:
        super().__init__("sampan" if host.path else host.name, host.port or None)
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
