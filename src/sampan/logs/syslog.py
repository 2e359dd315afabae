"""The `syslog` driver: each line a message to a socket (RFC 3164, RFC 5424), and a copy in the local format for `logs`.

Runs in a process of its own (launch/logger.py), for a server may be slow or gone.  What cannot be sent within ten seconds is
counted in `lost`, and for ten seconds nothing more is tried.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import Protocol

from sampan.errors import InvalidRequest

_FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp security console clock "
    "local0 local1 local2 local3 local4 local5 local6 local7"
).split()  # fmt: skip
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_SEVERITY = {"stdout": 6, "stderr": 3}  # informational, error
_PATIENCE = 10.0
_TLS = "import sys; from sampan.engine.syslog_tls import main; sys.exit(main())"
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


class Copy(Protocol):
    def write(self, stream: str, data: bytes, now_ns: int) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Address:
    """network: "unix", "unixgram", "udp", "tcp" or "tcp+tls"; a path, or host and port."""

    network: str
    path: str = ""
    host: str = ""
    port: int = 514


def facility(text: str) -> int:
    """Return the number of a facility, by name or number.  Raises InvalidRequest."""
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isascii() and text.isdigit() and len(text) < 3 and int(text) < 24:
        return int(text)
    raise InvalidRequest(f"invalid syslog facility {text[:32]!r}")


def address(text: str) -> Address:
    """Understand syslog-address: unix:///path, unixgram:///path, udp://host:port, tcp://..., tcp+tls://.  Raises InvalidRequest."""
    if not text:
        return Address("unixgram")
    network, sign, rest = text.partition("://")
    if network in ("unix", "unixgram") and sign and rest.startswith("/") and "\0" not in rest and len(rest) < 107:
        return Address(network, path=rest)
    if network not in ("udp", "tcp", "tcp+tls") or not sign:
        raise InvalidRequest(f"syslog-address should be in form proto://address, got {text[:64]!r}")
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    port = port or "514"
    if not host or not host.isascii() or any(sign in host for sign in "/@?# \0") or len(host) > 253:
        raise InvalidRequest(f"syslog-address {text[:64]!r} has no usable host")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise InvalidRequest(f"syslog-address {text[:64]!r} has no usable port")
    return Address(network, host=host, port=int(port))


class Formatter:
    """Makes messages.  tag: the program's name; hostname and pid are this host's and this process's."""

    def __init__(self, kind: str, number: int, tag: str, *, counted: bool = False) -> None:
        self._kind, self._facility, self._counted = kind, number, counted
        self._tag = "".join(sign if 32 < ord(sign) < 127 else "_" for sign in tag)[:128].encode()
        self._host, self._pid = os.uname().nodename.encode(), os.getpid()

    def message(self, stream: str, line: bytes, now_ns: int) -> bytes:
        """Return the message of one line, its newline included; counted: with its length before it (RFC 6587)."""
        priority = self._facility << 3 | _SEVERITY[stream]
        if self._kind.startswith("rfc5424"):
            made = b"<%d>1 %b %b %b %d %b - " % (priority, self._stamp(now_ns), self._host, self._tag, self._pid, self._tag)
        else:
            local = time.localtime(now_ns // 10**9)
            stamp = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2} {time.strftime('%H:%M:%S', local)}".encode()
            host = self._host + b" " if self._kind == "rfc3164" else b""
            made = b"<%d>%b %b%b[%d]: " % (priority, stamp, host, self._tag, self._pid)
        made += line.rstrip(b"\n") + b"\n"
        return b"%d %b" % (len(made), made) if self._counted else made

    def _stamp(self, now_ns: int) -> bytes:
        local = time.localtime(now_ns // 10**9)
        zone = local.tm_gmtoff // 60
        text = time.strftime("%Y-%m-%dT%H:%M:%S", local)
        if self._kind == "rfc5424micro":
            text += f".{now_ns % 10**9 // 1000:06}"
        return (text + (f"{'+' if zone >= 0 else '-'}{abs(zone) // 60:02}:{abs(zone) % 60:02}" if zone else "Z")).encode()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class Writer:
    """Sends; connects at the first line and again after a failure.  The host of `where` is a number already, but with TLS.

    tls: the settings of engine/syslog_tls.py, JSON.
    """

    def __init__(self, where: Address, formatter: Formatter, copy: Copy | None, tls: str = "") -> None:
        self._where, self._formatter, self._copy, self._tls = where, formatter, copy, tls
        self._socket: socket.socket | None = None
        self._not_before = 0.0
        self.lost = 0

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """Send whole lines."""
        if self._copy is not None:
            self._copy.write(stream, data, now_ns)
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        messages = [self._formatter.message(stream, line, now_ns) for line in lines]
        if self._where.network.startswith("tcp"):
            messages = [b"".join(messages)]
        for message in messages:
            if not self._send(message):
                self.lost += len(lines) // len(messages)

    def _send(self, message: bytes) -> bool:
        for _ in range(2):  # the second time on a new connection: the server may have closed the old one
            if time.monotonic() < self._not_before:
                return False
            fresh = self._socket is None
            try:
                connection = self._socket or self._connect()
                connection.sendall(message)
                return True
            except OSError as error:
                if error.errno == 90:  # EMSGSIZE: too long for a datagram
                    return False
                self._drop()
                if fresh:
                    self._not_before = time.monotonic() + _PATIENCE
        return False

    def _connect(self) -> socket.socket:
        where = self._where
        if where.network in ("udp", "tcp"):
            family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
            made = socket.socket(family, socket.SOCK_DGRAM if where.network == "udp" else socket.SOCK_STREAM)
            self._open(made, (where.host, where.port))
            return made
        if where.network == "tcp+tls":
            return self._through_tls()
        error: OSError = FileNotFoundError(2, "no syslog socket", "/dev/log")
        for path in (where.path,) if where.path else _LOCAL:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM) if where.network == "unixgram" else (socket.SOCK_STREAM,):
                made = socket.socket(socket.AF_UNIX, kind)
                try:
                    self._open(made, path)
                    return made
                except OSError as failed:
                    error = failed
        raise error

    def _through_tls(self) -> socket.socket:
        """Start the program that speaks TLS, from the sealed interpreter we run from; it says when the server is accepted."""
        ours, theirs = socket.socketpair()
        try:
            _reap()
            os.posix_spawn(
                "/proc/self/exe", [sys.executable, "-I", "-B", "-X", "utf8", "-c", _TLS, self._tls],
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)], setsigdef=[signal.SIGPIPE, signal.SIGCHLD],
            )  # fmt: skip
            theirs.close()
            ours.settimeout(_PATIENCE)
            if ours.recv(1) != b"+":
                raise ConnectionRefusedError(111, "no TLS connection", self._where.host)
            self._sending(ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def _open(self, made: socket.socket, target: str | tuple[str, int]) -> None:
        try:
            made.settimeout(_PATIENCE)
            made.connect(target)
            self._sending(made)
        except BaseException:
            made.close()
            raise

    def _sending(self, made: socket.socket) -> None:
        # From here on blocking with the kernel's own limit: sendall with a timeout polls before each send.
        made.settimeout(None)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_PATIENCE), 0))
        self._socket = made

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        self._drop()
        if self._copy is not None:
            self._copy.close()
