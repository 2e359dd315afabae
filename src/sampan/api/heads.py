"""What a request's head may be, beyond what aiohttp's parser refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

LIMIT = 64 * 1024  # bytes of a whole head
LINES = 100  # headers
MALFORMED = "UNKNOWN"  # the method of the request that aiohttp makes of an unparsable one
_ONCE = ("transfer-encoding", "origin", "expect", "authorization", "connection", "upgrade")


def start(data: bytes) -> str | None:
    """Look at a head's first bytes: "" when they may be one (after one empty line at most), None when more are needed."""
    first = data.removeprefix(b"\r\n")[:1]
    if data == b"\r" or not first:
        return None
    return "" if b"A" <= first <= b"Z" else "malformed request line"


def wrong(raw: BaseRequest) -> tuple[int, str] | None:
    """Why a parsed head is refused: the status and the words; None when it is not."""
    headers = raw.headers
    if raw.version not in ((1, 1), (1, 0)):
        return 400, "unsupported protocol version"
    if raw.method == "CONNECT":
        return 400, "CONNECT is not a method of the API"
    if not raw.raw_path.isascii():
        return 400, "malformed request target"
    for name in _ONCE:
        if name in headers and len(headers.getall(name)) > 1:
            return 400, f"repeated header {name}"
    coding = headers.get("transfer-encoding")
    if coding is not None and (coding.lower() != "chunked" or raw.version == (1, 0)):
        return 400, "unsupported transfer-encoding"
    expect = headers.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        return 417, "unsupported expectation"
    return None
