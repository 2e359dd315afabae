"""The synchronous client.  Methods take and return wire values; each is one request on a connection of its own.

Every method raises NoDaemon when nothing answers, ApiError when the daemon refuses, ProtocolError when the answer makes
no sense.  A Client may be used by several threads.
"""

from __future__ import annotations

import functools
import http.client
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from sampan import __version__
from sampan.client.connect import DEFAULT_HOST, Connection, Hijacked, parse, take
from sampan.client.errors import ApiError, NoDaemon, ProtocolError
from sampan.wire.hosts import TlsFiles

if TYPE_CHECKING:
    from sampan.client.builder import Builder
    from sampan.client.containers import Containers
    from sampan.client.execs import Execs
    from sampan.client.images import Images
    from sampan.client.networks import Networks
    from sampan.client.system import System
    from sampan.client.volumes import Volumes

T = TypeVar("T")
Parameters = Mapping[str, str | int | bool | Iterable[str] | None]
Filters = Mapping[str, Iterable[str]]
Body = bytes | BinaryIO | Iterable[bytes] | None
AGENT = f"Sampan-Client/{__version__} (linux)"


class Client:
    """A daemon at `host`; nothing is sent before the first method."""

    def __init__(self, host: str = DEFAULT_HOST, tls: TlsFiles | None = None) -> None:
        self.host = parse(host, tls=tls is not None)
        self._tls = tls

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    # The areas are loaded when first used: the command starts faster so.

    @functools.cached_property
    def containers(self) -> Containers:
        from sampan.client.containers import Containers

        return Containers(self)

    @functools.cached_property
    def execs(self) -> Execs:
        from sampan.client.execs import Execs

        return Execs(self)

    @functools.cached_property
    def images(self) -> Images:
        from sampan.client.images import Images

        return Images(self)

    @functools.cached_property
    def builder(self) -> Builder:
        from sampan.client.builder import Builder

        return Builder(self)

    @functools.cached_property
    def networks(self) -> Networks:
        from sampan.client.networks import Networks

        return Networks(self)

    @functools.cached_property
    def volumes(self) -> Volumes:
        from sampan.client.volumes import Volumes

        return Volumes(self)

    @functools.cached_property
    def system(self) -> System:
        from sampan.client.system import System

        return System(self)

    # How requests are made

    def open(
        self, method: str, path: str, query: Parameters | None = None, body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:  # fmt: skip
        """Send a request; return the response with its body unread.  The caller closes it."""
        connection = Connection(self.host, self._tls)
        headers = {"User-Agent": AGENT, **(headers or {})}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/json"
        elif body is not None:
            headers.setdefault("Content-Type", "application/x-tar")
        try:
            response = self._exchange(connection, method, _target(path, query), body, headers)
        except BaseException:
            connection.close()
            raise
        connection.let_go()
        _check(response)
        return response

    def _exchange(
        self, connection: Connection, method: str, target: str, body: Body, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        try:
            try:
                connection.request(method, target, body, headers, encode_chunked=not isinstance(body, bytes | None))
            except (BrokenPipeError, ConnectionResetError):
                if connection.sock is None:
                    raise  # a refusal may have come before all was sent: then it can be read
            return connection.getresponse()
        except http.client.RemoteDisconnected as error:
            raise NoDaemon(self.host.text, "The daemon closed the connection without an answer.", running=True) from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise ProtocolError(f"{self.host.text} does not answer as a daemon: {error or type(error).__name__}") from error

    def raw(
        self, method: str, path: str, query: Parameters | None = None, body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:  # fmt: skip
        """Make a request and return the whole body of its answer."""
        with self.open(method, path, query, body, headers) as response:
            try:
                return response.read()
            except (http.client.HTTPException, ConnectionError) as error:
                raise ProtocolError(f"the daemon's answer broke off: {error}") from error

    def get(
        self, kind: type[T], method: str, path: str, query: Parameters | None = None, body: Any = None, *,
        headers: Mapping[str, str] | None = None,
    ) -> T:  # fmt: skip
        """Make a request whose answer is a JSON value of `kind`."""
        data = self.raw(method, path, query, None if body is None else msgspec.json.encode(body), headers)
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError:
            return self._lenient(kind, method, path, data)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"{method} {path}: unexpected answer: {error}") from error

    def _lenient(self, kind: type[T], method: str, path: str, data: bytes) -> T:
        """Again, with null meaning absent, as Go's encoders in other daemons mean it."""
        try:
            return msgspec.convert(_without_nulls(json.loads(data)), kind)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ProtocolError(f"{method} {path}: unexpected answer: {error}") from error

    def json(self, method: str, path: str, query: Parameters | None = None) -> Any:
        """Make a request and return its JSON as it is."""
        data = self.raw(method, path, query)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{method} {path}: the answer is not JSON") from error

    def hijack(self, path: str, query: Parameters | None = None, body: Any = None) -> Hijacked:
        """Make a request that turns the connection into a pipe."""
        connection = Connection(self.host, self._tls)
        headers = {
            "User-Agent": AGENT, "Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json",
        }  # fmt: skip
        data = b"" if body is None else msgspec.json.encode(body)
        try:
            connection.connect()
            sock = connection.sock
            response = self._exchange(connection, "POST", _target(path, query), data, headers)
            _check(response)
        except BaseException:
            connection.close()
            raise
        return take(connection, response, sock)


def _target(path: str, query: Parameters | None) -> str:
    """The request's target; what is None or False is left out."""
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        if value is None or value is False:
            continue
        if value is True:
            pairs.append((name, "1"))
        elif isinstance(value, str | int):
            pairs.append((name, str(value)))
        else:
            pairs.extend((name, item) for item in value)
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def segment(ref: str) -> str:
    """A reference as part of a path.  Raises ApiError for an empty one, which would name another endpoint."""
    if not ref:
        raise ApiError(400, "invalid reference: value is empty")
    return quote(ref, safe="/:@")


def filters(wanted: Filters | None) -> str | None:
    if not wanted:
        return None
    return json.dumps({key: dict.fromkeys(values, True) for key, values in wanted.items()})


def _check(response: http.client.HTTPResponse) -> None:
    """Raise ApiError with the daemon's words when the status says no; the response is then closed."""
    if response.status < 400:
        return
    with response:
        try:
            data = response.read(1 << 20)
        except (http.client.HTTPException, OSError):
            data = b""
    text = data.decode("utf-8", "replace").strip()
    if (response.getheader("Content-Type") or "").startswith("application/json"):
        try:
            found = json.loads(text)
            text = str(found.get("message", text)) if isinstance(found, dict) else text
        except (ValueError, RecursionError):
            pass
    raise ApiError(response.status, text or f"the daemon answered {response.status} without a message")
