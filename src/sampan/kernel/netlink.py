"""netlink(7): messages of attributes over one datagram socket, several requests in one send.

The kernel works a request off inside sendmsg(2), so once `talk` has sent a batch every answer is already queued:
nothing here waits, except `listen`.  Attribute lengths are 16 bits on the wire; `attribute` refuses what would wrap
(SECURITY.md P22, CVE-2021-43784), and `attributes` never reads outside what arrived.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
MAX_PAYLOAD = 65531  # 16-bit nla_len less its own header

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_HEADER = struct.Struct("=IHHII")
_NLA = struct.Struct("=HH")
_NLMSGERR_ATTR_MSG = 1
_BUFFER = 4 << 20


class Request(NamedTuple):
    """One message before it has a sequence number.  subject is what a failure names."""

    kind: int
    flags: int
    payload: bytes
    subject: str = ""


class Answer(NamedTuple):
    """One message from the kernel; port is the socket that caused it (0: the kernel itself)."""

    kind: int
    flags: int
    sequence: int
    port: int
    payload: bytes


def attribute(number: int, value: bytes) -> bytes:
    """Return one attribute, padded to four bytes.  Raises OSError(EMSGSIZE) past 65531 bytes."""
    size = len(value)
    if size > MAX_PAYLOAD:
        raise OSError(errno.EMSGSIZE, f"netlink attribute of {size} bytes, at most {MAX_PAYLOAD}")
    return _NLA.pack(size + 4, number) + value + b"\0" * (-size & 3)


def nest(number: int, *children: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(number | NLA_F_NESTED, b"".join(children))


def text(number: int, value: str) -> bytes:
    """Return an attribute that holds a string.  Raises ValueError when the string holds a NUL."""
    if "\0" in value:
        raise ValueError("NUL in a netlink string")
    return attribute(number, value.encode() + b"\0")


def u16(number: int, value: int) -> bytes:
    """Return an attribute of 16 bits in the host's byte order."""
    return attribute(number, struct.pack("=H", value))


def u32(number: int, value: int) -> bytes:
    """Return an attribute of 32 bits in the host's byte order."""
    return attribute(number, struct.pack("=I", value))


def be32(number: int, value: int) -> bytes:
    """Return an attribute of 32 bits, big-endian."""
    return attribute(number, struct.pack(">I", value))


def attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield (number, value) of the attributes in `data`; stops where a length would leave it."""
    end = len(data)
    while offset + 4 <= end:
        size, number = _NLA.unpack_from(data, offset)
        if size < 4 or offset + size > end:
            return
        yield number & NLA_TYPE_MASK, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def messages(data: bytes) -> Iterator[Answer]:
    """Yield the messages of one datagram; stops where a length would leave it."""
    offset, end = 0, len(data)
    while offset + 16 <= end:
        size, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if size < 16 or offset + size > end:
            return
        yield Answer(kind, flags, sequence, port, data[offset + 16 : offset + size])
        offset += (size + 3) & ~3


def failure(payload: bytes, flags: int, subject: str) -> OSError | None:
    """Return the error of an NLMSG_ERROR payload, in the kernel's own words where it gave some, or None for an ack."""
    (code,) = struct.unpack_from("=i", payload)
    if code == 0:
        return None
    reason = os.strerror(-code)
    if flags & 0x200:  # NLM_F_ACK_TLVS: attributes follow the failed request's header (all of it without CAPPED)
        (size,) = struct.unpack_from("=I", payload, 4)
        skip = 4 + (16 if flags & 0x100 else (size + 3) & ~3)
        for number, value in attributes(payload, skip):
            if number == _NLMSGERR_ATTR_MSG:
                reason = f"{reason} ({value.rstrip(bytes(1)).decode(errors='replace')})"
    return OSError(-code, reason, subject or None)


class Netlink:
    """One netlink socket; `talk` may be called from any thread.  Closed by its owner."""

    def __init__(self, protocol: int, *, groups: Iterable[int] = ()) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._mutex = threading.Lock()
        self._sequence = 0
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[0]

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def roomy(self) -> None:
        """Ask for buffers of 4 MiB: batches of thousands of elements.  Needs CAP_NET_ADMIN."""
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)

    def talk(self, requests: Iterable[Request], *, tolerate: frozenset[int] = frozenset()) -> list[Answer]:
        """Send `requests` in one datagram and return what came back, in order, without the acks.

        Raises the first OSError the kernel answered whose errno is not in `tolerate`; its filename is the request's
        subject.  A dump is read to its end; at most one of `requests` may be a dump, and it must be alone.
        """
        with self._mutex:
            packets: list[bytes] = []
            subjects: dict[int, str] = {}
            dump = False
            for kind, flags, payload, subject in requests:
                self._sequence = self._sequence + 1 & 0x7FFFFFFF
                subjects[self._sequence] = subject
                dump |= flags & NLM_F_DUMP == NLM_F_DUMP and not flags & NLM_F_CREATE
                size = 16 + len(payload)
                head = _HEADER.pack(size, kind, flags | NLM_F_REQUEST, self._sequence, 0)
                packets.append(head + payload + b"\0" * (-size & 3))
            self._socket.sendmsg(packets, (), 0, (0, 0))
            return self._collect(subjects, dump, tolerate)

    def _collect(self, subjects: dict[int, str], dump: bool, tolerate: frozenset[int]) -> list[Answer]:
        answers: list[Answer] = []
        problem: OSError | None = None
        while True:
            try:
                data, _, _, sender = self._socket.recvmsg(1 << 18, 0, 0 if dump else socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if sender[0] != 0:
                continue  # only the kernel is believed
            for answer in messages(data):
                if answer.sequence not in subjects:
                    continue
                if answer.kind == NLMSG_ERROR:
                    error = failure(answer.payload, answer.flags, subjects[answer.sequence])
                    if error is not None and error.errno not in tolerate:
                        problem = problem or error
                    dump = False
                elif answer.kind == NLMSG_DONE:
                    dump = False
                else:
                    answers.append(answer)
        if problem is not None:
            raise problem
        return answers

    def listen(self) -> list[Answer]:
        """Block for the next datagram of the joined groups and return its messages.

        Raises OSError(ENOBUFS) when notices were lost: the caller must look at the whole state anew.
        """
        data, _, _, sender = self._socket.recvmsg(1 << 18)
        return list(messages(data)) if sender[0] == 0 else []
