"""The API server: listeners, connections, and the path of every request through routes to the engine."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiohttp.http import HttpVersion11
from aiohttp.web_request import BaseRequest
from aiohttp.web_server import Server as WebServer

from sampan import __version__
from sampan.api import (
    archive,
    build,
    builds,
    containers,
    execs,
    extras,
    images,
    networks,
    phrases,
    registry,
    resources,
    routes,
    session,
    stubs,
    system,
    usage,
    volumes,
    websocket,
)
from sampan.api.backend import Engine
from sampan.api.connection import HEAD_DEADLINE, Connection
from sampan.api.heads import MALFORMED
from sampan.api.hijack import Hangups
from sampan.api.listeners import BACKLOG, open_sockets
from sampan.api.request import Request, Response, refusal, refuse
from sampan.errors import Conflict, SampanError
from sampan.wire import versions
from sampan.wire.hosts import Address, TlsFiles, parse

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

SWEEP = 5.0  # seconds between looks at deadlines
CONNECTIONS = 4096

log = logging.getLogger("sampan.api")

# Importing an area registers its routes; named here so that the import is not idle.
AREAS = (
    archive,
    build,
    builds,
    session,
    system,
    containers,
    resources,
    execs,
    images,
    registry,
    networks,
    volumes,
    usage,
    extras,
    stubs,
    websocket,
)


class Closable(Protocol):
    def end(self) -> None: ...


class Server:
    """What `serve` returns: running until `close`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.loop = asyncio.get_running_loop()
        self.common = {
            "Api-Version": versions.MAXIMUM,
            "Docker-Experimental": "false",
            "Ostype": "linux",
            "Server": f"Docker/{__version__} (linux)",
        }
        self.http = WebServer(_serve, request_factory=self._begin)
        self.addresses: list[Address] = []
        self._router = routes.Router(routes.TABLE)
        self._listeners: list[asyncio.Server] = []
        self._paths: list[tuple[str, int]] = []
        self._open: set[Connection] = set()
        self.hangups = Hangups(self.loop)
        self._taken: dict[Closable, asyncio.Task[object] | None] = {}
        self.leaving: set[asyncio.Transport] = set()
        self.closing = False
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._room = min(CONNECTIONS, max(64, soft // 2))
        self._sweeper = self.loop.call_later(SWEEP, self._sweep)

    async def listen(self, address: Address, tls: TlsFiles | None) -> None:
        """Accept on one more address.  Raises the kinds of `open_sockets`."""
        context = tls.server() if tls is not None and not address.path else None
        careful = context is None and address.loopback
        patience = None if context is None else HEAD_DEADLINE
        for sock in open_sockets(address):
            factory = functools.partial(Connection, self, careful)
            if sock.family == socket.AF_UNIX:
                if address.path:
                    self._paths.append((address.path, os.lstat(address.path).st_ino))
                made: asyncio.Server = await self.loop.create_unix_server(factory, sock=sock, backlog=BACKLOG)
            else:
                made = await self.loop.create_server(
                    factory, sock=sock, ssl=context, backlog=BACKLOG, ssl_handshake_timeout=patience
                )
            self._listeners.append(made)
        self.addresses.append(address)

    def ports(self) -> list[int]:
        """The TCP ports in use, in the order of listening."""
        made = [sock.getsockname() for server in self._listeners for sock in server.sockets]
        return [name[1] for name in made if isinstance(name, tuple)]

    def _begin(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> BaseRequest:
        if message.method == MALFORMED:
            message = message._replace(version=HttpVersion11)  # aiohttp would answer as to an HTTP/1.0 client
        raw = BaseRequest(message, payload, protocol, writer, task, self.loop)
        protocol.begun(raw)
        return raw

    async def handle(self, request: Request) -> Response | None:
        """Answer a request; never raises for what a client sent."""
        try:
            banned = self._banned(request)
            if banned is not None:
                return banned
            chosen = routes.prepare(self._router, request)
            if isinstance(chosen, Response):
                return chosen
            return await routes.run(chosen, request)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except SampanError as error:
            if request.streaming:
                raise ConnectionAbortedError(str(error)) from error
            return refuse(error)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            if request.streaming:
                raise ConnectionAbortedError(type(error).__name__) from error
            return refuse(error)

    def _banned(self, request: Request) -> Response | None:
        """Browsers: none of the API's clients sends Origin; a Host that is a name may be rebound DNS."""
        if request.has("origin"):
            return refusal(403, "requests from browsers are not accepted", plain=True)
        if request.connection.loopback and not _own_name(request.header("host")):
            return refusal(403, "this host name is not accepted", plain=True)
        return None

    def admit(self, connection: Connection) -> bool:
        """Note a connection; False when there are too many."""
        if self.closing or len(self._open) + len(self._taken) >= self._room:
            return False
        self._open.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)

    def took(self, closable: Closable) -> Callable[[], object]:
        """Note what a connection has turned into; call the result when it has ended."""
        self._taken[closable] = asyncio.current_task()
        return functools.partial(self._taken.pop, closable, None)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in list(self._open):
            connection.expire(now)
        self._sweeper = self.loop.call_later(SWEEP, self._sweep)

    async def close(self, grace: float = 5.0) -> None:
        """Stop accepting, end streams and takeovers, let other requests finish within `grace` seconds."""
        if self.closing:
            return
        self.closing = True
        self._sweeper.cancel()
        for server in self._listeners:
            server.close()
        for path, inode in self._paths:
            try:
                if os.lstat(path).st_ino == inode:
                    os.unlink(path)
            except FileNotFoundError:
                pass
        tasks: list[asyncio.Task[object]] = [task for task in self._taken.values() if task is not None]
        for taken in list(self._taken):
            taken.end()
        tasks += [connection.task for connection in self._open if connection.task is not None]
        for connection in list(self._open):
            connection.end()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        await self.http.shutdown(1.0)
        for transport in list(self.leaving):
            transport.abort()
        await asyncio.sleep(0)
        self.hangups.close()


async def _serve(raw: BaseRequest) -> StreamResponse:
    return await cast(Connection, raw.protocol).serve(raw)


def _own_name(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name in ("", "localhost", socket.gethostname(), "docker", "host.docker.internal"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


async def serve(engine: Engine, hosts: Sequence[str], tls: TlsFiles | None = None) -> Server:
    """Serve `engine` on every one of `hosts` ("unix:///path", "tcp://host:port"); all or none.

    A TCP address that is neither loopback nor TLS with client certificates is warned about loudly, on stderr.
    Raises InvalidRequest, Conflict or Broken naming the host.
    """
    addresses = [parse(host, tls is not None) for host in hosts]
    if len({address.text for address in addresses}) != len(addresses):
        raise Conflict("the same host is given twice")
    server = Server(engine)
    try:
        for address in addresses:
            await server.listen(address, tls)
            if address.host and not address.loopback and (tls is None or not tls.ca):
                sys.stderr.write(f"{phrases.EXPOSED}\n")
                log.warning("%s: anyone who reaches %s is root on this host", phrases.EXPOSED, address.text)
    except BaseException:
        await server.close()
        raise
    return server
