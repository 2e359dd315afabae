"""One request as handlers see it, and the answers they give."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import msgspec

from sampan.api import errors, phrases
from sampan.api.backend import Engine
from sampan.api.body import Body, TooLarge
from sampan.api.http1 import Head, head
from sampan.api.query import Query
from sampan.errors import InvalidRequest
from sampan.wire import strict, versions

if TYPE_CHECKING:
    from sampan.api.connection import Connection

JSON = b"application/json"
JSON_DEADLINE = 30.0  # seconds for a whole JSON body

T = TypeVar("T")


class Response:
    """A whole answer.  `plain` leaves out the daemon's headers, as for pages that no endpoint owns."""

    __slots__ = ("body", "headers", "plain", "status")

    def __init__(self, status: int, body: bytes = b"", kind: bytes = b"", headers: bytes = b"", plain: bool = False) -> None:
        self.status = status
        self.body = body
        self.plain = plain
        self.headers = headers + b"Content-Type: " + kind + b"\r\n" if kind else headers

    def encode(self, common: bytes, keep_alive: bool, with_body: bool = True) -> bytes:
        lines = [b"" if self.plain else common, self.headers]
        if self.status not in (204, 304):
            lines.append(b"Content-Length: %d\r\n" % (len(self.body) if with_body else 0))
        if not keep_alive:
            lines.append(b"Connection: close\r\n")
        made = head(self.status, *lines)
        return made + self.body if with_body and self.status not in (204, 304) else made


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

    __slots__ = ("body", "cancellable", "connection", "engine", "head", "name", "path", "query", "version")

    def __init__(self, connection: Connection, parsed: Head, body: Body, engine: Engine) -> None:
        self.connection = connection
        self.head = parsed
        self.body = body
        self.engine = engine
        self.path = ""
        self.name = ""
        self.query: Query = Query("")
        self.version: versions.Version = versions.NEWEST
        self.cancellable = False  # the client's leaving ends the work

    @property
    def method(self) -> str:
        return self.head.method

    def header(self, name: str) -> str:
        """The header, "" when absent; `name` in lower case."""
        return self.head.headers.get(name, "")

    async def json(self, kind: type[T], default: T | None = None) -> T:
        """The body as a `kind`; `default`, when given, stands for an empty one.  Raises InvalidRequest."""
        data = await self._document()
        if default is not None and not data.strip(b" \t\r\n"):
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

    def lower(self, value: T) -> T:
        return versions.lower(value, self.version)

    async def begin(self, status: int, kind: bytes, headers: bytes = b"") -> Stream:
        """Send the head of an answer of unknown length now."""
        connection = self.connection
        self.cancellable = True
        chunked = self.head.minor == 1
        if not chunked:
            self.head.keep_alive = False
        lines = [connection.server.common, b"Content-Type: " + kind + b"\r\n" if kind else b"", headers]
        lines.append(b"Transfer-Encoding: chunked\r\n" if chunked else b"Connection: close\r\n")
        connection.streaming = True
        connection.write(head(status, *lines))
        return Stream(connection, chunked)


class Stream:
    """A chunked answer under way (unchunked for HTTP/1.0).  Every send leaves at once."""

    __slots__ = ("_chunked", "_connection")

    def __init__(self, connection: Connection, chunked: bool) -> None:
        self._connection = connection
        self._chunked = chunked

    async def send(self, data: bytes) -> None:
        """Raises ConnectionError when the client has left."""
        if data:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
            await self._connection.drain()

    def end(self) -> None:
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")
        self._connection.streaming = False
