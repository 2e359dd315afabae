"""DNS messages (RFC 1035, 6891): just enough to read a question, answer it from a table, and recognise a reply.

Nothing follows a compression pointer: a question has none, and replies of others are passed on as bytes.
"""

from __future__ import annotations

import socket
import struct

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
TTL = 30  # seconds: a container's address may change with its next start
PLAIN_LIMIT = 512  # bytes of an answer by UDP when the asker named no other size
_HEAD = struct.Struct(">6H")
_QR, _TC, _RD, _RA = 0x8000, 0x0200, 0x0100, 0x0080


class Malformed(ValueError):
    """Not a question that can be answered; `code` says why, -1 when silence is the answer."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Question:
    """What was asked.  name: lower case, without the last dot; end: where the question section ends."""

    __slots__ = ("end", "id", "kind", "limit", "name", "raw", "recursion", "size")

    def __init__(self, raw: bytes) -> None:
        if len(raw) < 12:
            raise Malformed(-1)
        self.raw = raw
        self.id, flags, asked, answers, authorities, additional = _HEAD.unpack_from(raw)
        if flags & _QR:
            raise Malformed(-1)  # a reply: answering it could make two resolvers talk for ever
        if flags & 0x7800:
            raise Malformed(NOTIMP)
        if asked != 1 or answers or authorities or additional > 4:
            raise Malformed(FORMERR)
        self.recursion = flags & _RD
        self.name, at = read_name(raw, 12)
        if at + 4 > len(raw):
            raise Malformed(FORMERR)
        self.kind, kind_class = struct.unpack_from(">HH", raw, at)
        if kind_class not in (1, 255):
            raise Malformed(REFUSED)
        self.end = at + 4
        self.size = self._edns(additional)
        self.limit = max(PLAIN_LIMIT, min(self.size, 4096))

    def _edns(self, additional: int) -> int:
        """Return the UDP size of an OPT record that follows the question at once, 0 without."""
        if additional and len(self.raw) >= self.end + 11 and self.raw[self.end] == 0:
            kind, size = struct.unpack_from(">HH", self.raw, self.end + 1)
            if kind == OPT:
                return int(size)
        return 0


def read_name(raw: bytes, at: int) -> tuple[str, int]:
    """Return the name at `at` and where it ends.  Raises Malformed."""
    labels: list[str] = []
    total = 0
    while True:
        if at >= len(raw):
            raise Malformed(FORMERR)
        size = raw[at]
        at += 1
        if not size:
            return ".".join(labels), at
        total += size + 1
        if size > 63 or total > 254 or at + size > len(raw):  # a pointer has its two highest bits set
            raise Malformed(FORMERR)
        labels.append(raw[at : at + size].decode("latin-1").lower())
        at += size


def write_name(name: str) -> bytes:
    """Return a name in the wire's form.  Raises ValueError for a label or name that is too long."""
    made = b""
    for label in name.split(".") if name else ():
        data = label.encode("latin-1")
        if not 0 < len(data) < 64:
            raise ValueError(name)
        made += bytes([len(data)]) + data
    if len(made) > 254:
        raise ValueError(name)
    return made + b"\0"


def refusal(raw: bytes, code: int) -> bytes:
    """Return an answer with nothing but a code."""
    (identity, flags) = struct.unpack_from(">HH", raw)
    return _HEAD.pack(identity, _QR | _RA | (flags & (_RD | 0x7800)) | code, 0, 0, 0, 0)


def answer(question: Question, records: list[bytes], code: int = NOERROR, *, limit: int = 65535) -> bytes:
    """Return the answer with these records (from record()); cut, and marked so, where it would pass `limit`."""
    opt = b"\0" + struct.pack(">HHIH", OPT, 1232, 0, 0) if question.size else b""
    body = question.raw[12 : question.end]
    kept: list[bytes] = []
    room = limit - 12 - len(body) - len(opt)
    for one in records:
        room -= len(one)
        if room < 0:
            break
        kept.append(one)
    flags = _QR | _RA | question.recursion | code | (_TC if len(kept) < len(records) else 0)
    head = _HEAD.pack(question.id, flags, 1, len(kept), 0, 1 if opt else 0)
    return head + body + b"".join(kept) + opt


def record(kind: int, data: bytes) -> bytes:
    """Return a record of the name that was asked for (0xC00C points at it)."""
    return struct.pack(">HHHIH", 0xC00C, kind, 1, TTL, len(data)) + data


def address(kind: int, text: str) -> bytes:
    """Return an A or AAAA record."""
    return record(kind, socket.inet_pton(socket.AF_INET if kind == A else socket.AF_INET6, text))


def reverse(name: str) -> str:
    """Return the address that a name below in-addr.arpa or ip6.arpa stands for, "" when it is none."""
    labels = name.split(".")
    if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
        if all(label.isascii() and label.isdigit() and len(label) < 4 and int(label) < 256 for label in labels[:4]):
            return ".".join(str(int(label)) for label in reversed(labels[:4]))
    elif labels[-2:] == ["ip6", "arpa"] and len(labels) == 34 and all(len(one) == 1 for one in labels[:32]):
        try:
            packed = bytes.fromhex("".join(reversed(labels[:32])))
        except ValueError:
            return ""
        return socket.inet_ntop(socket.AF_INET6, packed)
    return ""
