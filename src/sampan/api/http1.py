"""HTTP/1.1 on the wire: request heads in, response heads out, chunked bodies both ways.

Strict where leniency has been exploited: no bare LF, no folded headers, no space before a colon, one
Content-Length of ASCII digits, never together with Transfer-Encoding, no trailers.  Caps: a head is
64 KiB and 100 headers.  Why not aiohttp's server: docs/decisions (16 MiB and 180 ms more for a daemon,
and a takeover needs its private parts).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_LIMIT = 64 * 1024
HEADER_LIMIT = 100
CHUNK_LINE_LIMIT = 256

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[!-~]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,15}")
_ONCE = frozenset({"content-length", "content-type", "transfer-encoding", "host", "origin", "expect", "authorization"})

REASONS = {
    101: "UPGRADED",
    200: "OK",
    201: "Created",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    409: "Conflict",
    413: "Request Entity Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class BadMessage(Exception):
    """The peer does not speak HTTP; answer `status` and close."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True)
class Head:
    """A request's head.  Header names are lower case; repeated headers are joined with ", "."""

    method: str
    target: str
    minor: int
    headers: dict[str, str]
    length: int = 0
    chunked: bool = False
    keep_alive: bool = True


def parse_head(data: bytes) -> Head:
    """Parse a head without its final empty line.  Raises BadMessage."""
    first, *lines = data.split(b"\r\n")
    if len(lines) > HEADER_LIMIT:
        raise BadMessage(431, "too many headers")
    parts = first.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not _TARGET.fullmatch(parts[1]):
        raise BadMessage(400, "malformed request line")
    if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadMessage(400, "unsupported protocol version")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadMessage(400, "malformed header")
        key = name.decode("ascii").lower()
        text = value.strip(b" \t").decode("latin-1")
        if key in headers:
            if key in _ONCE:
                raise BadMessage(400, f"repeated header {key}")
            text = f"{headers[key]}, {text}"
        headers[key] = text
    head = Head(parts[0].decode("ascii"), parts[1].decode("ascii"), 1 if parts[2] == b"HTTP/1.1" else 0, headers)
    _frame(head)
    return head


def _frame(head: Head) -> None:
    """Find how long the body is and whether the connection stays (RFC 9112 section 6)."""
    length = head.headers.get("content-length")
    coding = head.headers.get("transfer-encoding")
    if length is not None:
        if coding is not None:
            raise BadMessage(400, "both content-length and transfer-encoding")
        if not (length.isascii() and length.isdigit()) or len(length) > 15:
            raise BadMessage(400, "malformed content-length")
        head.length = int(length)
    if coding is not None:
        if coding.lower() != "chunked" or head.minor == 0:
            raise BadMessage(400, "unsupported transfer-encoding")
        head.chunked = True
    expect = head.headers.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise BadMessage(417, "unsupported expectation")
    connection = head.headers.get("connection", "").lower()
    head.keep_alive = "close" not in connection if head.minor else "keep-alive" in connection


class Chunks:
    """Takes a chunked body apart, in pieces of any size."""

    def __init__(self) -> None:
        self.ended = False
        self._line = b""
        self._left = 0  # of the chunk's data; the CRLF after it counts below
        self._crlf = 0  # bytes of that CRLF still to come
        self._last = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the payload in `data` and what follows the body.  Raises BadMessage."""
        out: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._crlf = 2
            elif self._crlf:
                if data[at : at + 1] != b"\r\n"[2 - self._crlf : 3 - self._crlf]:
                    raise BadMessage(400, "malformed chunk")
                at += 1
                self._crlf -= 1
            else:
                at = self._size_line(data, at)
        return out, data[at:]

    def _size_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + CHUNK_LINE_LIMIT)
        stop = end + 1 if end >= 0 else len(data)
        line = self._line + data[at:stop]
        if len(line) > CHUNK_LINE_LIMIT or (end < 0 and stop - at >= CHUNK_LINE_LIMIT):
            raise BadMessage(400, "chunk line too long")
        if end < 0:
            self._line = line
            return stop
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise BadMessage(400, "malformed chunk line")
        if self._last:
            if line != b"\r\n":
                raise BadMessage(400, "trailers are not accepted")
            self.ended = True
            return stop
        text = line[:-2].split(b";", 1)[0].rstrip(b" \t")
        if not _HEX.fullmatch(text):
            raise BadMessage(400, "malformed chunk size")
        self._left = int(text, 16)
        self._last = self._left == 0
        return stop


def head(status: int, *lines: bytes) -> bytes:
    """A response's head; `lines` are whole headers, each ending in CRLF."""
    return b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, REASONS.get(status, "Unknown").encode(), b"".join(lines))
