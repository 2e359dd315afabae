"""Where the API listens: unix sockets and TCP, with or without TLS (SECURITY.md rows 87, 90)."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from pathlib import Path

from sampan.errors import Broken, Conflict, InvalidRequest
from sampan.wire.hosts import Address

BACKLOG = 4096  # a unix socket's client gets EAGAIN, not patience, when it is full; net.core.somaxconn caps it
GROUPS = ("docker", "sampan")  # the first that exists owns the socket


def open_sockets(address: Address) -> list[socket.socket]:
    """Listen.  Raises Conflict when the address is another's, InvalidRequest when it cannot be had."""
    if address.fd >= 0:
        return [socket.socket(fileno=address.fd)]
    return [_unix(address.path)] if address.path else _tcp(address)


def _tcp(address: Address) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidRequest(f"{address.text}: {error}") from error
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
            sock.listen(BACKLOG)
            sock.setblocking(False)
    except OSError as error:
        for sock in made:
            sock.close()
        kind_of = Conflict if error.errno == errno.EADDRINUSE else InvalidRequest
        raise kind_of(f"{address.text}: {error.strerror}") from error
    return made


def _unix(path: str) -> socket.socket:
    """A socket 0660 root:GROUP from its first moment; a dead one in its place is replaced, anything else is not."""
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)  # bind(2) makes the file with 0777 & ~umask: nobody else in between
    try:
        sock.bind(path)
        made = os.lstat(path)
        os.chown(path, -1, _group(), follow_symlinks=False)
        os.chmod(path, 0o660)  # the parent is checked to be root's alone
        sock.listen(BACKLOG)
        sock.setblocking(False)
        if os.lstat(path).st_ino != made.st_ino:
            raise Conflict(f"socket {path} was replaced while it was made")
    except OSError as error:
        sock.close()
        raise Broken(f"socket {path}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(old)
    return sock


def _clear(path: str) -> None:
    """Remove a stale socket of our own.  Raises Conflict for a live one, a symlink, or anything foreign."""
    parent = os.stat(Path(path).parent)
    if parent.st_uid not in (0, os.geteuid()) or (parent.st_mode & 0o022 and not parent.st_mode & stat.S_ISVTX):
        raise Conflict(f"socket {path}: others may write to its directory")
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise Conflict(f"socket {path}: something else is in its place")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog (EAGAIN) is a live server too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise Conflict(f"socket {path} is in use by another daemon")


def _group() -> int:
    for name in GROUPS:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            continue
    return -1
