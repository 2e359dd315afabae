"""Attach over a websocket: output as binary frames, never multiplexed; data frames are the process's input.

aiohttp speaks the websocket (RFC 6455): handshake, masks, ping and pong, the closing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from aiohttp.http import WSMsgType
from aiohttp.web_ws import WebSocketResponse

from sampan.api import query
from sampan.api.backend import AttachStream
from sampan.api.hijack import LAST_WORDS, PIECE, Escape
from sampan.api.request import Request, Stream
from sampan.api.routes import named, route
from sampan.errors import InvalidRequest
from sampan.wire.frames import Demultiplexer

MESSAGE_LIMIT = 1024 * 1024
CLOSING = 2.0  # seconds for the client to answer a close


def _handshake(request: Request) -> WebSocketResponse:
    """Check what a client asks for.  Raises InvalidRequest."""
    made = WebSocketResponse(timeout=CLOSING, compress=False, max_msg_size=MESSAGE_LIMIT, decode_text=False)
    if request.header("sec-websocket-version") != "13" or not request.header("sec-websocket-key").isascii():
        raise InvalidRequest("unsupported websocket version, or a malformed key")
    if not made.can_prepare(request.raw):
        raise InvalidRequest("malformed websocket handshake")
    return made


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class _Joint:
    """A websocket and a process's stream: each waits while the other is slow."""

    def __init__(self, request: Request, socket: WebSocketResponse, stream: AttachStream, keys: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._stream = stream
        self._fd = stream.fileno()
        self._escape = Escape(keys)
        self._frames = None if stream.tty else Demultiplexer()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._server = request.connection.server
        transport = request.connection.transport
        self._client = transport.get_extra_info("socket").fileno() if transport is not None else -1

    async def run(self) -> None:
        """Until the output ends, the client leaves, or the keys are typed."""
        forget = self._server.took(self)
        if self._client >= 0:
            self._server.hangups.watch(self._client, self._hung_up)
        tasks = [asyncio.ensure_future(self._output()), asyncio.ensure_future(self._input())]
        try:
            await asyncio.wait([*tasks, self._ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            forget()
            self._server.hangups.unwatch(self._client, self._hung_up)
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                self._stream.close()

    def _hung_up(self) -> None:
        """The client is gone, though it may not be read at the moment: what it has said before is still passed on."""
        self._loop.call_later(LAST_WORDS, self.end)

    def end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def _output(self) -> None:
        while True:
            try:
                data = os.read(self._fd, PIECE)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
                continue
            except OSError:
                return
            if not data:
                return
            if self._frames is not None:
                data = b"".join([piece for _, piece in self._frames.feed(data)])
            if data:
                await self._socket.send_bytes(data)

    async def _input(self) -> None:
        async for message in self._socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                continue
            data, detached = self._escape.feed(message.data)
            await self._give(data)
            if detached:
                self._stream.detached()
                return
        await self._give(self._escape.rest())

    async def _give(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError:  # EPIPE: the process reads no more; its output goes on
                return

    async def _ready(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        waiting = self._loop.create_future()
        add(self._fd, _wake, waiting)
        try:
            await waiting
        finally:
            remove(self._fd)


@route("GET", "/containers/{}/attach/ws", job="attach")
async def attach(request: Request) -> None:
    """ContainerAttachWebsocket.  101 and binary frames; 400, 404, 409."""
    q = request.query
    socket = _handshake(request)
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
        await socket.prepare(request.raw)
        request.stream = Stream(socket)
        joint = _Joint(request, socket, stream, keys if stream.tty else b"")
    except BaseException:
        stream.close()
        raise
    await joint.run()
    await socket.close()
    request.stream.end()
