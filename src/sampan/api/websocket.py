"""Attach over a websocket (RFC 6455): output as binary frames, never multiplexed; data frames are the process's input."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator

from sampan.api import query
from sampan.api.hijack import Pump
from sampan.api.http1 import head
from sampan.api.request import Request
from sampan.api.routes import named, route
from sampan.errors import InvalidRequest

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FRAME_LIMIT = 1024 * 1024
BINARY, CLOSE, PING, PONG = 2, 8, 9, 10


def accept_key(request: Request) -> bytes:
    """Check the handshake; return what proves that it was understood.  Raises InvalidRequest."""
    key = request.header("sec-websocket-key")
    try:
        right = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        right = False
    if not right or request.header("upgrade").lower() != "websocket":
        raise InvalidRequest("malformed websocket handshake")
    if request.header("sec-websocket-version") != "13":
        raise InvalidRequest("unsupported websocket version")
    digest = hashlib.sha1(key.encode() + MAGIC, usedforsecurity=False).digest()
    return base64.b64encode(digest)


def frame(kind: int, data: bytes) -> bytes:
    """One unmasked frame, final."""
    size = len(data)
    if size < 126:
        return bytes((0x80 | kind, size)) + data
    if size < 65536:
        return bytes((0x80 | kind, 126)) + size.to_bytes(2, "big") + data
    return bytes((0x80 | kind, 127)) + size.to_bytes(8, "big") + data


class Frames:
    """Takes a client's frames apart; a client masks every one."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield kind and payload of every whole frame.  Raises ValueError."""
        self._buffer += data
        while len(self._buffer) >= 2:
            first, second = self._buffer[0], self._buffer[1]
            if first & 0x70 or not second & 0x80:
                raise ValueError("reserved bits, or no mask")
            size, start = second & 0x7F, 2
            if size >= 126:
                start = 4 if size == 126 else 10
                size = int.from_bytes(self._buffer[2:start], "big")
            if size > FRAME_LIMIT:
                raise ValueError("frame too large")
            if len(self._buffer) < start + 4 + size:
                return
            mask = self._buffer[start : start + 4]
            masked = self._buffer[start + 4 : start + 4 + size]
            self._buffer = self._buffer[start + 4 + size :]
            whole = int.from_bytes(masked, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            yield first & 0x0F, whole.to_bytes(size, "big")


class WebsocketPump(Pump):
    """A pump whose client speaks frames."""

    def __init__(self, request: Request, tty: bool) -> None:
        super().__init__(request, tty)
        self._frames = Frames()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._frames.feed(data):
                if kind == CLOSE:
                    self._transport.write(frame(CLOSE, payload[:2]))
                    self._finish()
                elif kind == PING:
                    self._transport.write(frame(PONG, payload))
                elif kind < CLOSE and payload:
                    super().data_received(payload)
        except ValueError:
            self._transport.write(frame(CLOSE, b"\x03\xea"))  # 1002: protocol error
            self._finish()

    def _give(self, data: bytes) -> None:
        self._transport.write(frame(BINARY, data))


@route("GET", "/containers/{}/attach/ws", job="attach")
async def attach(request: Request) -> None:
    """ContainerAttachWebsocket.  101 and binary frames; 400, 404, 409."""
    q = request.query
    accept = accept_key(request)
    keys = query.detach_keys(q.text("detachKeys"))
    every = request.version < (1, 42)
    stream = await request.engine.containers.attach(
        named(request),
        stdin=every or q.flag("stdin"),
        stdout=every or q.flag("stdout"),
        stderr=every or q.flag("stderr"),
        stream=q.flag("stream"),
        logs=q.flag("logs"),
    )
    try:
        lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n"
        request.connection.write(head(101, lines))
        taken = WebsocketPump(request, stream.tty)
    except BaseException:
        stream.close()
        raise
    await taken.pump(stream, keys if stream.tty else b"")
