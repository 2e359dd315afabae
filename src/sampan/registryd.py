"""`sampan registry serve`: the registry's rooms, wired by hand: blobs and repositories below, HTTP above."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from sampan.content.blobs import Blobs
from sampan.content.repositories import Repositories
from sampan.errors import InvalidRequest, SampanError
from sampan.kernel import passwords
from sampan.registry.server.access import Access, Passwords
from sampan.registry.server.app import Registry
from sampan.state import State

log = logging.getLogger("sampan.registry")
COLLECT_EVERY = 3600.0  # seconds
GRACE = 10.0  # seconds that requests get to end
IDLE = 75.0  # seconds that a connection may be open without a whole head of a request
LINGER = 5.0  # seconds that the rest of a refused body is read, so that its sender gets to see the refusal
HANDSHAKE = 15.0  # seconds for TLS
MAX_CONNECTIONS = 512  # what a usual limit of 1024 descriptors allows, with a file for each


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said."""

    listen: str = "127.0.0.1:5000"
    data_root: str = "/var/lib/sampan-registry"
    tlscert: str = ""
    tlskey: str = ""
    htpasswd: str = ""
    token: bool = False
    read_only: bool = False
    max_blob: int = 1 << 40


def main(settings: dict[str, Any]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.umask(0o077)
    try:
        options = msgspec.convert(settings, Options)
        asyncio.run(_serve(options))
    except (SampanError, msgspec.ValidationError, OSError) as error:
        sys.stderr.write(f"sampan: {error}\n")
        return 1
    return 0


def _context(options: Options) -> ssl.SSLContext | None:
    if bool(options.tlscert) != bool(options.tlskey):
        raise InvalidRequest("--tlscert and --tlskey belong together")
    if not options.tlscert:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(options.tlscert, options.tlskey)
    return made


def _socket(listen: str, *, safe: bool) -> socket.socket:
    """Return the bound socket.  Raises InvalidRequest: an address for all the world needs TLS or it is told."""
    host, colon, port = listen.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit() and len(port) < 6) or int(port) > 65535:
        raise InvalidRequest(f"--listen {listen}: HOST:PORT is needed")
    host = host.strip("[]")
    if not safe and host not in ("127.0.0.1", "::1", "localhost"):
        log.warning("%s: passwords and images can be read by everybody on the way: use --tlscert and --tlskey", listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=1024)


async def _serve(options: Options) -> None:
    if options.token and not options.htpasswd:
        raise InvalidRequest("--token needs --htpasswd: tokens are given to its users")
    context = _context(options)
    data_root = Path(options.data_root).absolute()
    data_root.mkdir(mode=0o700, parents=True, exist_ok=True)
    users = Passwords(Path(options.htpasswd), passwords.matches) if options.htpasswd else None
    state = State(data_root)
    try:
        blobs = Blobs(data_root)
        blobs.sweep()
        storage = Repositories(state, blobs)
        registry = Registry(storage, Access(users, tokens=options.token), read_only=options.read_only, max_blob=options.max_blob)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        runner, server = await serving(registry, _socket(options.listen, safe=context is not None), context)
        collecting = asyncio.ensure_future(_collect(storage, options.read_only))
        log.info("registry on %s, data in %s", options.listen, data_root)
        _ready()
        await stop.wait()
        collecting.cancel()
        server.close()
        await runner.cleanup()
    finally:
        state.close()


async def serving(
    registry: Registry, listening: socket.socket, context: ssl.SSLContext | None
) -> tuple[web.AppRunner, asyncio.Server]:
    """Answer on a socket.  A connection that sends no whole request for a while is closed, and so is one too many."""
    runner = web.AppRunner(
        registry.application(), access_log=None, shutdown_timeout=GRACE, keepalive_timeout=IDLE, lingering_time=LINGER
    )
    await runner.setup()
    handlers = runner.server
    assert handlers is not None

    def connection() -> asyncio.BaseProtocol:
        return handlers() if len(handlers.connections) < MAX_CONNECTIONS else _Full()

    loop, handshake = asyncio.get_running_loop(), HANDSHAKE if context is not None else None
    return runner, await loop.create_server(connection, sock=listening, ssl=context, backlog=1024, ssl_handshake_timeout=handshake)


class _Full(asyncio.Protocol):
    """What a connection beyond the limit gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _collect(storage: Repositories, read_only: bool) -> None:
    while not read_only:
        with suppress(OSError):
            freed = await asyncio.to_thread(storage.collect)
            if freed:
                log.info("collected %d bytes", freed)
        await asyncio.sleep(COLLECT_EVERY)


def _ready() -> None:
    """Tell who waits that requests are answered from now on (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told, suppress(OSError):
            told.sendto(b"READY=1\n", "\0" + address[1:] if address.startswith("@") else address)
