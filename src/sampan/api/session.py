"""Sessions: a client lends the agents that its builds may use (build/agents.py)."""

from __future__ import annotations

import asyncio

from sampan.api.request import Request, raw_head
from sampan.api.routes import route
from sampan.build.agents import Session
from sampan.errors import InvalidRequest
from sampan.wire.images import SessionBody


@route("POST", "/sampan/session", job="build_session")
async def session(request: Request) -> None:
    """Takes the connection over: the token, 64 digits, then what build/agents.py draws.  101 or 200; 400."""
    body = await request.json(SessionBody)
    link = _Link(asyncio.get_running_loop())
    opened = request.engine.builder.sessions.open(body.agents, link.send)
    try:
        await link.run(request, opened)
    finally:
        request.engine.builder.sessions.close(opened)


class _Link(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ended: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None

    async def run(self, request: Request, opened: Session) -> None:
        """Until the client leaves, or says what makes no sense."""
        upgraded = request.has("upgrade")
        lines = b"Content-Type: application/vnd.docker.raw-stream\r\n"
        lines += b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgraded else b""
        self._session = opened
        transport, early, over = request.takeover()
        self._transport = transport
        forget = request.connection.server.took(self)
        try:
            transport.write(raw_head(101 if upgraded else 200, lines) + opened.token.encode())
            transport.set_protocol(self)
            if early:
                self.data_received(early)
            if over:
                self.end()
            if not transport.is_closing():
                transport.resume_reading()
            await self._ended
        finally:
            forget()
            transport.abort()

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        assert self._session is not None
        try:
            self._session.feed(data)
        except InvalidRequest:
            self.end()

    def eof_received(self) -> bool:
        self.end()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        """Nothing more is to come."""
        if not self._ended.done():
            self._ended.set_result(None)
