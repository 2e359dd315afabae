"""One request as handlers see it, and the answers they give."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import msgspec
from aiohttp.web_response import Response as WebResponse
from aiohttp.web_response import StreamResponse
from multidict import CIMultiDict

from sampan.api import errors, phrases
from sampan.api.backend import Engine
from sampan.api.body import Body, TooLarge
from sampan.api.query import Query
from sampan.errors import InvalidRequest
from sampan.wire import strict, versions

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from sampan.api.connection import Connection

JSON = b"application/json"
JSON_DEADLINE = 30.0  # seconds for a whole JSON body
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

T = TypeVar("T")


def header_lines(lines: bytes) -> CIMultiDict[str]:
    """Whole header lines, each ending in CRLF, as aiohttp wants them."""
    made: CIMultiDict[str] = CIMultiDict()
    for line in lines.decode("ascii").split("\r\n"):
        if line:
            name, _, value = line.partition(": ")
            made[name] = value
    return made


def raw_head(status: int, lines: bytes) -> bytes:
    """The head of an answer that aiohttp does not write: before a takeover, or where no request came to be."""
    phrase = "UPGRADED" if status == 101 else HTTPStatus(status).phrase
    return b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, phrase.encode(), lines)


class Response:
    """A whole answer.  `plain` leaves out the daemon's headers, as for pages that no endpoint owns."""

    __slots__ = ("body", "headers", "plain", "status")

    def __init__(self, status: int, body: bytes = b"", kind: bytes = b"", headers: bytes = b"", plain: bool = False) -> None:
        self.status = status
        self.body = body
        self.plain = plain
        self.headers = header_lines(headers + b"Content-Type: " + kind + b"\r\n" if kind else headers)

    def made(self, common: Mapping[str, str], head_only: bool) -> WebResponse:
        """The answer as aiohttp sends it."""
        headers = self.headers.copy()
        if self.plain:
            headers["Server"] = common["Server"]
        else:
            headers.extend(common)
        if head_only:
            headers.setdefault("Content-Length", "0")
        return WebResponse(status=self.status, body=None if head_only else self.body, headers=headers)


def reply(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, msgspec.json.encode(value) + b"\n", JSON)


def empty(status: int) -> Response:
    return Response(status)


def refuse(error: BaseException) -> Response:
    """What a refusal looks like on the wire."""
    if isinstance(error, TooLarge):
        return refusal(413, str(error))
    status = errors.status_of(error)
    return empty(304) if status == 304 else refusal(status, errors.message_of(error))


def refusal(status: int, message: str, plain: bool = False) -> Response:
    return Response(status, errors.body_of(message), JSON, plain=plain)


class Request:
    """A request: `name` is the path's parameter, `version` the API version it speaks."""

    __slots__ = ("body", "cancellable", "connection", "engine", "name", "path", "query", "raw", "stream", "taken", "version")

    def __init__(self, connection: Connection, raw: BaseRequest, engine: Engine) -> None:
        self.connection = connection
        self.raw = raw
        self.body = Body(raw, self._continue)
        self.engine = engine
        self.path = ""
        self.name = ""
        self.query: Query = Query("")
        self.version: versions.Version = versions.NEWEST
        self.cancellable = False  # the client's leaving ends the work
        self.stream: Stream | None = None  # the answer that has begun
        self.taken = False  # the connection is a handler's own

    @property
    def method(self) -> str:
        return self.raw.method

    @property
    def target(self) -> str:
        return self.raw.raw_path

    @property
    def streaming(self) -> bool:
        """A head is out and its end is not."""
        return self.stream is not None and not self.stream.ended

    def header(self, name: str) -> str:
        """The header, "" when absent."""
        return self.raw.headers.get(name, "")

    def has(self, name: str) -> bool:
        return name in self.raw.headers

    def _continue(self) -> None:
        transport = self.connection.transport
        if transport is not None and self.has("expect") and self.raw.version == (1, 1) and not self.body.arrived:
            transport.write(CONTINUE)

    async def json(self, kind: type[T], default: T | None = None) -> T:
        """The body as a `kind`; `default`, when given, stands for an empty one and for null.  Raises InvalidRequest."""
        data = await self._document()
        if default is not None and data.strip(b" \t\r\n") in (b"", b"null"):
            return default
        return versions.lift(strict.decode(data, kind), self.version)

    async def _document(self) -> bytes:
        if self.body.empty:
            return b""
        kind = self.header("content-type")
        if kind.split(";", 1)[0].strip().lower() != "application/json":
            raise InvalidRequest(phrases.content_type(kind[:64]))
        try:
            async with asyncio.timeout(JSON_DEADLINE):
                return await self.body.all(strict.LIMIT)
        except TimeoutError:
            raise InvalidRequest("request body did not arrive in time") from None

    def file(self) -> BinaryIO:
        """The body as a blocking file for another thread."""
        self.body.begin()  # 100 Continue must leave before any other head
        return self.body.file(asyncio.get_running_loop())

    def takeover(self) -> tuple[asyncio.Transport, bytes, bool]:
        """The connection is the caller's: its transport, what the client sent ahead, and whether it has shut its side.

        Raises ConnectionError.
        """
        got = self.connection.takeover()
        self.taken = True
        return got

    def lower(self, value: T) -> T:
        return versions.lower(value, self.version)

    async def begin(self, status: int, kind: bytes, headers: bytes = b"") -> Stream:
        """Send the head of an answer of unknown length now."""
        self.cancellable = True
        lines = header_lines(headers + b"Content-Type: " + kind + b"\r\n" if kind else headers)
        lines.extend(self.connection.server.common)
        response = StreamResponse(status=status, headers=lines)
        if self.raw.version == (1, 1):
            response.enable_chunked_encoding()
        else:
            response.force_close()
        self.stream = Stream(response)
        await response.prepare(self.raw)
        return self.stream


class Stream:
    """A chunked answer under way (unchunked for HTTP/1.0).  Every send leaves at once."""

    __slots__ = ("ended", "response")

    def __init__(self, response: StreamResponse) -> None:
        self.response = response
        self.ended = False

    async def send(self, data: bytes) -> None:
        """Waits while the client is slow.  Raises ConnectionError when it has left."""
        if data:
            await self.response.write(data)

    def end(self) -> None:
        """Nothing follows; the end itself is sent when the handler returns."""
        self.ended = True
