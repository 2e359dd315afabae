"""A SEQPACKET connection that carries messages and descriptors.  unix(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable

from sampan import messages
from sampan.kernel.fds import Fd, memfd, receive_with_fds, send_with_fds

_INLINE = 32 * 1024  # a longer body travels in a memfd: the socket's buffer is not ours to size
_LARGEST = 16 << 20
_LONG = struct.Struct(">BQ")  # 0xc1 starts no msgpack value
_LONG_MARK = 0xC1
_NOSIGNAL, _DONTWAIT = int(socket.MSG_NOSIGNAL), int(socket.MSG_DONTWAIT)


class Channel:
    """One end of a connection; owns its socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        connection.setblocking(True)

    @classmethod
    def adopt(cls, fd: Fd) -> Channel:
        """Take over the descriptor of a SEQPACKET socket."""
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fd.take()))

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return two connected ends."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(
        self,
        message: messages.Message,
        fds: Iterable[int | Fd] = (),
        *,
        nonblocking: bool = False,
        lead: bytes = b"",
    ) -> None:
        """Send a message with copies of `fds`.

        lead: bytes before it in the packet, for a peer that reads them before it unpacks the rest.
        Raises BrokenPipeError or ConnectionResetError when the peer is gone, BlockingIOError when it does not read.
        """
        body = messages.to_bytes(message)
        flags = _NOSIGNAL | (_DONTWAIT if nonblocking else 0)
        if len(body) <= _INLINE:
            send_with_fds(self._socket, lead + body, fds, flags)
            return
        with memfd("sampan-message", body) as long:
            send_with_fds(self._socket, lead + _LONG.pack(_LONG_MARK, len(body)), [*fds, long], flags)

    def receive(self, *, nonblocking: bool = False) -> tuple[messages.AnyMessage | None, list[Fd]]:
        """Return the next message and its descriptors, which the caller owns; (None, []) when the peer is gone.

        Raises BlockingIOError, OSError, or msgspec's errors on a body that is no message; then no descriptor stays open.
        """
        flags = _DONTWAIT if nonblocking else 0
        try:
            body, fds = receive_with_fds(self._socket, 65536, flags)
        except ConnectionResetError:
            # The peer closed with something of ours unread.  The error is told once, before what it had sent
            # (unix(7), __skb_try_recv_datagram): its last words are still there.
            try:
                body, fds = receive_with_fds(self._socket, 65536, flags)
            except ConnectionResetError:
                return None, []
        if not body:
            return None, []
        try:
            return unpack(body, fds), fds
        except BaseException:
            for fd in fds:
                fd.close()
            raise

    def hang_up(self) -> None:
        """Send nothing more: the peer reads an end, while what it sends still arrives."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has gone

    def close(self) -> None:
        self._socket.close()


def unpack(body: bytes, fds: list[Fd]) -> messages.AnyMessage:
    """Return the message of a packet's body; takes the memfd of a long one out of `fds` and closes it.

    Raises OSError or msgspec's errors on a body that is no message.
    """
    return messages.from_bytes(_read_long(body, fds) if body[0] == _LONG_MARK else body)


def _read_long(head: bytes, fds: list[Fd]) -> bytes:
    size = int.from_bytes(head[1:], "big")
    if len(head) != _LONG.size or size > _LARGEST or not fds:
        raise OSError(errno.EMSGSIZE, "a malformed or too long message")
    with fds.pop() as long:
        return os.pread(long.fileno(), size, 0)
