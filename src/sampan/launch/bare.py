"""Packets on bare sockets, for the processes that must not grow: what a keeper touches it keeps, and what the spawner touches
between two forks, every keeper before it keeps a copy of.

Python's own socket module costs a pair of sockets 450 KiB of copied pages (its enums), these cost 40.  unix(7).
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

Socket = _socket.socket
Ancillary = list[tuple[int, int, bytes]]

_UNIX, _SEQPACKET, _SOL_SOCKET, _SCM_RIGHTS = 1, 5, 1, 1
_NOSIGNAL, _CMSG_CLOEXEC, _CUT = 0x4000, 0x40000000, 0x28  # MSG_NOSIGNAL, MSG_CMSG_CLOEXEC, MSG_CTRUNC | MSG_TRUNC
_LARGEST = 65536
_SPACE = 1040  # CMSG_SPACE of the 253 descriptors that a message may carry (SCM_MAX_FD)


def adopt(number: int) -> Socket:
    """Take over the descriptor of a SEQPACKET socket."""
    return Socket(_UNIX, _SEQPACKET, 0, number)


def pair() -> tuple[Socket, Socket]:
    """Return two connected ends, close-on-exec."""
    return _socket.socketpair(_UNIX, _SEQPACKET, 0)


def send(connection: Socket, body: bytes, ancillary: Ancillary) -> None:
    """Send a packet with what `receive` returned, or nothing.  Raises OSError."""
    connection.sendmsg([body], ancillary, _NOSIGNAL)


def receive(connection: Socket) -> tuple[bytes, Ancillary]:
    """Return the next packet and its descriptors, as they came; b"" when the peer is gone.

    Raises OSError(EMSGSIZE) when the packet or its descriptors were cut; nothing received is kept open then.
    """
    try:
        body, ancillary, flags, _ = connection.recvmsg(_LARGEST, _SPACE, _CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    if flags & _CUT:
        for number in numbers(ancillary):
            os.close(number)
        raise OSError(errno.EMSGSIZE, "packet or its descriptors were cut")
    return body, ancillary


def close_all_but(connection: Socket) -> None:
    """Close every descriptor from 3 up but this one (os.closerange is one close_range(2) on Linux 5.9)."""
    os.closerange(3, connection.fileno())
    os.closerange(connection.fileno() + 1, 1 << 20)


def numbers(ancillary: Ancillary) -> tuple[int, ...]:
    """Return the received descriptors, which the caller owns."""
    found: tuple[int, ...] = ()
    for level, kind, content in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            found += struct.unpack(f"={len(content) // 4}i", content[: len(content) // 4 * 4])
    return found
