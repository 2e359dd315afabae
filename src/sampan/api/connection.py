"""One client's connection: aiohttp's protocol, fed with exactly one request at a time.

aiohttp parses heads and bodies and writes the answers.  What it must not see yet is held back here: bytes after the request
under way are the next request, or, after a takeover (attach, exec), what the client has typed ahead.  A head ends with its
first empty line, a body after its declared length, a chunked body with an empty line too: so pieces are cut at empty lines,
and the parser alone decides what they mean.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from sampan.api import body, heads
from sampan.api.request import Request, raw_head, refusal
from sampan.errors import InvalidRequest

if TYPE_CHECKING:
    from aiohttp._websocket.reader import WebSocketReader
    from aiohttp.streams import StreamReader
    from aiohttp.web_request import BaseRequest
    from aiohttp.web_response import StreamResponse

    from sampan.api.server import Server

HEAD_DEADLINE = 20.0  # seconds from a head's first byte to its last
IDLE_DEADLINE = 3600.0  # seconds between requests
LINGER = 2.0  # seconds in which a client that is still sending can read our last answer
FLUSH = 30.0  # seconds for a last answer to leave
AHEAD = 64 * 1024  # bytes held back while a request is served
CHUNK_LINES = 64 * 1024  # bytes of a chunked body that need not be content,
CHUNK_RATIO = 16  # and how many may come for each that is
WRITE_HIGH = 512 * 1024
NEVER = float("inf")

log = logging.getLogger("sampan.api")


class State(enum.Enum):
    HEAD = "the next bytes belong to a head"
    PARSED = "the parser has spoken, the request is not begun"
    BODY = "the next bytes belong to the request's body"
    WHOLE = "all of the request is here: the next bytes are another's"
    WEBSOCKET = "the next bytes belong to a websocket"
    ENDED = "what still comes is dropped"


class Connection(RequestHandler):
    """A client, from accept to close or takeover."""

    def __init__(self, server: Server, loopback: bool) -> None:
        super().__init__(
            server.http, loop=server.loop, keepalive_timeout=IDLE_DEADLINE, logger=log, access_log=None,  # type: ignore[arg-type]
            max_line_size=heads.LIMIT, max_field_size=heads.LIMIT, max_headers=heads.LINES, lingering_time=0,
            read_bufsize=body.HIGH // 2, auto_decompress=False,
        )  # fmt: skip
        self.server = server
        self.loopback = loopback  # plain TCP on a loopback address: browsers can be led here
        self.loop = server.loop
        self.request: Request | None = None
        self.deadline = self.loop.time() + HEAD_DEADLINE
        self.task: asyncio.Task[object] | None = None
        self._state = State.HEAD
        self._held = b""
        self._last = b""  # up to three bytes that the parser was fed before: an empty line may lie across
        self._size = 0  # of the head, or the chunked body, under way
        self._left = 0  # of a body of declared length
        self._chunked = False
        self._raw: BaseRequest | None = None
        self._answered = False
        self._full = False  # the body is read more slowly than it comes
        self._stopped = False  # too much is held
        self._ended = False  # the client has shut its side
        self._gone: asyncio.Future[None] | None = None

    # The client's bytes.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self.server.admit(self):
            self._state = State.ENDED
            transport.abort()  # type: ignore[attr-defined]  # typeshed: every transport of a stream has it
            return
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.set_write_buffer_limits(WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        if self._state is State.ENDED:
            return
        if not data or self._state is State.WEBSOCKET:  # nothing new: aiohttp goes on with what its parser holds
            super().data_received(data)
        else:
            self._held += data
        self._feed()
        if len(self._held) > AHEAD and not self._stopped and self.transport is not None:
            self._stopped = True
            self.transport.pause_reading()

    def _feed(self) -> None:
        """Give the parser what belongs to the request under way, and nothing more."""
        if self._state is State.BODY and self._raw is not None and self._raw.content.is_eof():
            self._whole()  # the parser had its end, and has come to it now that it is read again
        while self._held and not self._full:
            if self._state is State.HEAD:
                size = self._head_size()
            elif self._state is State.BODY:
                size = self._body_size()
            else:
                break
            if not size:
                break
            piece, self._held = self._held[:size], self._held[size:]
            self._last = (self._last + piece)[-3:] if size < 3 else piece[-3:]
            super().data_received(piece)
            self._fed(size)
        if self._stopped and len(self._held) <= AHEAD and not self._full:
            self._stopped = False
            if self.transport is not None:
                self.transport.resume_reading()

    def _cut(self) -> int:
        """The size of what is held up to the first empty line, which may have begun in what was fed before."""
        at = (self._last + self._held[:3]).find(b"\r\n\r\n")
        if at >= 0:
            return at + 4 - len(self._last)
        at = self._held.find(b"\r\n\r\n")
        return at + 4 if at >= 0 else len(self._held)

    def _head_size(self) -> int:
        if not self._size:
            wrong = heads.start(self._held)
            if wrong is None:
                return 0
            if wrong:
                self._refuse(400, wrong)
                return 0
            self._held = self._held.removeprefix(b"\r\n")
            self.deadline = min(self.deadline, self.loop.time() + HEAD_DEADLINE)
        size = self._cut()
        self._size += size
        if self._size > heads.LIMIT:
            self._refuse(431, "request head too large")
            return 0
        return size

    def _body_size(self) -> int:
        return self._cut() if self._chunked else min(self._left, len(self._held))

    def _fed(self, size: int) -> None:
        spoken = bool(self._messages)  # a request, or a refusal of what was fed
        if self._state is State.HEAD and spoken:
            self._state, self._size, self._last, self.deadline = State.PARSED, 0, b"", NEVER
        elif self._state is State.BODY and self._raw is not None:
            self._left -= size
            if spoken:
                self._messages.clear()
                self._fail(InvalidRequest("malformed body"))
            elif self._chunked and not self._full and self._hollow(size):
                self._fail(InvalidRequest("malformed body: chunks of next to nothing"))
            elif self._raw.content.is_eof():
                self._whole()

    def _hollow(self, size: int) -> bool:
        """Whether a chunked body is all sizes, extensions and trailers, which the parser reads without end."""
        self._size += size
        return self._raw is not None and self._size > CHUNK_LINES + CHUNK_RATIO * self._raw.content.total_bytes

    def _whole(self) -> None:
        self._state = State.WHOLE
        self._last = b""
        if self._answered:
            self._next()

    def _fail(self, error: Exception) -> None:
        """The body ends here, with `error` for its reader; so does what the client may say."""
        if self._raw is not None:
            self._raw.content.set_exception(error)
        self._state = State.ENDED
        self._held = b""

    def pause_reading(self) -> None:
        self._full = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        self._full = False
        super().resume_reading(resume_parser)

    def set_parser(self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None) -> None:
        """From here on the connection is a websocket's."""
        super().set_parser(parser, data_received_cb)
        self._state = State.WEBSOCKET
        early, self._held = self._held, b""
        super().data_received(early)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's meaning: true keeps our side open
        self._ended = True
        self._wake()
        if self._answered or self._state in (State.HEAD, State.WEBSOCKET):
            return False
        if self.request is not None and self.request.cancellable:
            self._leave()
            return False
        if self._state is State.BODY:
            self._fail(ConnectionResetError("client ended in the middle of a body"))
        return self.transport is not None and self.transport.can_write_eof()  # TLS has no half-close

    def connection_lost(self, exc: BaseException | None) -> None:
        self.server.forget(self)
        super().connection_lost(exc)
        self._state, self._held = State.ENDED, b""
        self._wake()
        self._leave()

    def _leave(self) -> None:
        """The client is gone: a stream to it ends, other work is finished."""
        if self.task is not None and self.request is not None and self.request.cancellable:
            self.request.cancellable = False  # once: what it does in its own end is not disturbed
            self.task.cancel()

    def _wake(self) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    # The request and its answer.

    def begun(self, raw: BaseRequest) -> None:
        """aiohttp takes up what the parser said."""
        self._raw = raw
        self._answered = False
        if raw.method == heads.MALFORMED:
            self._state = State.ENDED
            self._held = b""
        elif raw.content.is_eof():
            self._state = State.WHOLE
        else:
            self._state = State.BODY
            self._chunked = "transfer-encoding" in raw.headers
            self._left = (raw.content_length or 0) if not self._chunked else 0
            self._size = 0
            self._feed()
            if self._ended and self._state is State.BODY:
                self._fail(ConnectionResetError("client ended in the middle of a body"))

    async def serve(self, raw: BaseRequest) -> StreamResponse:
        """Answer a request.  Raises ConnectionError when there is nobody to answer, or no way to."""
        request = self.request = Request(self, raw, self.server.engine)
        self.task = asyncio.current_task()
        try:
            refused = heads.wrong(raw)
            if refused is not None:
                made = refusal(*refused, plain=True).made(self.server.common, False)
                made.force_close()
                return made
            response = await self.server.handle(request)
            if response is not None:
                made = response.made(self.server.common, raw.method == "HEAD")
                if self._ends_with(request):
                    made.force_close()
                return made
            if request.stream is not None and request.stream.ended:
                return request.stream.response
            raise ConnectionResetError("answered elsewhere" if request.taken else "the answer broke off")
        except BaseException:
            self.request = self.task = None
            if not request.taken:
                self._let_go()
            raise

    def _ends_with(self, request: Request) -> bool:
        """A body that nobody will read: a short one is dropped as it comes, a long one ends the connection."""
        if self.server.closing or self._state is State.ENDED:
            return True
        if request.body.arrived:
            return False
        waits = bool(request.header("expect")) and not request.body.begun
        return waits or self._chunked or self._left > body.SMALL

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> StreamResponse:
        """What aiohttp's parser refused, in the API's form; or a connection that broke off."""
        if status >= 500:
            raise exc if isinstance(exc, ConnectionError) else ConnectionAbortedError(str(exc))
        text = (message or "malformed request").split("\n", 1)[0].strip(" :")[:200]
        large = isinstance(exc, LineTooLong) or text == "Too many headers received"
        made = refusal(431 if large else 400, f"malformed request: {text}", plain=True).made(self.server.common, False)
        made.force_close()
        return made

    async def finish_response(
        self, request: BaseRequest, resp: StreamResponse, start_time: float | None
    ) -> tuple[StreamResponse, bool]:
        try:
            finished = await super().finish_response(request, resp, start_time)
        finally:
            self.request = self.task = None
        self._answered = True
        if not resp.keep_alive or finished[1]:
            await self._linger()
        elif self._state is State.WHOLE:
            self._next()
        elif self._raw is not None:
            await self._drop(self._raw.content)
        return finished

    async def _drop(self, content: StreamReader) -> None:
        """Read the rest of a body that nobody wants; its end lets the next request come."""
        try:
            async with asyncio.timeout(LINGER):
                while not content.is_eof():
                    await content.readany()
        except (InvalidRequest, OSError, RuntimeError):  # malformed, late, or the client has left
            self.force_close()

    def _next(self) -> None:
        """The request is answered and all of it has been read: another may come."""
        self._state = State.HEAD
        self._size = 0
        self._answered = False
        self._raw = None
        self.deadline = self.loop.time() + IDLE_DEADLINE
        self._feed()
        if self._ended and self._state is State.HEAD:
            self.close()

    def _refuse(self, status: int, text: str) -> None:
        """Refuse a head that the parser does not get to see."""
        if self.transport is not None:
            answer = refusal(status, text, plain=True)
            lines = b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n" % len(answer.body)
            self.transport.write(raw_head(status, lines) + answer.body)
        self._shut()

    def _shut(self) -> None:
        """Shut our side, drop what still comes, and let go soon."""
        self._state = State.ENDED
        self._answered = True
        self._held = b""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._let_go()
        if self._ended or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()

    async def _linger(self) -> None:
        """After the last answer: close so that the client still reads it, though it may be sending."""
        if self._ended or (self._state is State.WHOLE and not self._held):
            self._state = State.ENDED
            self._let_go(FLUSH)
            return
        self._shut()
        if self.transport is not None and not self.transport.is_closing():
            self._gone = self.loop.create_future()
            await asyncio.wait([self._gone], timeout=LINGER)
        self.force_close()

    def _let_go(self, seconds: float = LINGER) -> None:
        """Whatever the client does, the connection ends soon."""
        if self.transport is not None:
            self.loop.call_later(seconds, self.transport.abort)

    def takeover(self) -> tuple[asyncio.Transport, bytes, bool]:
        """Give the transport away, paused: with what was held back, and whether the client has shut its side."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._state is not State.WHOLE:
            raise ConnectionResetError("client has left")
        transport.pause_reading()
        early, self._held = self._held, b""
        self.transport = None
        self.server.forget(self)
        self._state = State.ENDED
        super().connection_lost(None)  # aiohttp's books: the connection is another's
        return transport, early, self._ended

    def end(self) -> None:
        """The server stops: an idle connection closes, a stream ends, other work is finished first."""
        if self._state is State.HEAD:
            self.force_close()
        else:
            self._leave()

    def expire(self, now: float) -> None:
        """Close when a deadline has passed."""
        if self._state is State.HEAD and now > self.deadline:
            if self._size:
                self._refuse(408, "request head did not arrive in time")
            else:
                self.force_close()
