"""The API server in a thread of its own, on a unix socket, with a fake engine behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fakes.engine import FakeEngine
from sampan.api.server import Server, serve
from sampan.wire.hosts import TlsFiles


class Api:
    """`path` is the socket; `call` runs a function in the server's loop."""

    def __init__(self, folder: Path, hosts: Sequence[str] = (), tls: TlsFiles | None = None) -> None:
        folder.chmod(0o700)
        self.path = str(folder / "s.sock")
        self._tls = tls
        self._hosts = [f"unix://{self.path}", *hosts]
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self.loop: asyncio.AbstractEventLoop
        self.engine: FakeEngine
        self.server: Server

    def __enter__(self) -> Api:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        for stream in (*self.engine.containers.streams, *self.engine.execs.streams):
            stream.far.close()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.engine = FakeEngine()
        try:
            self.server = await serve(self.engine, self._hosts, self._tls)
        finally:
            self._ready.set()
        await self._stop.wait()
        await self.server.close()

    def call(self, function: Callable[[], Any]) -> Any:
        async def run() -> Any:
            made = function()
            return await made if asyncio.iscoroutine(made) else made

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(self.path)
        return sock

    def raw(self, data: bytes) -> bytes:
        """Send bytes, return everything until the server closes."""
        with self.connect() as sock:
            sock.sendall(data)
            return until_end(sock)

    def ask(self, method: str, target: str, body: bytes | None = None, *headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers in lower case, body."""
        lines = [f"{method} {target} HTTP/1.1", "Host: docker", "Connection: close", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
            if not any(line.lower().startswith("content-type:") for line in headers):
                lines.append("Content-Type: application/json")
        head, _, answer = self.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")).partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in rest)
        return int(first.split(" ")[1]), {name.lower(): value for name, value in fields.items()}, answer


def until_end(sock: socket.socket) -> bytes:
    pieces = []
    while True:
        try:
            data = sock.recv(1 << 18)
        except ConnectionResetError:
            break
        if not data:
            break
        pieces.append(data)
    return b"".join(pieces)


def head_of(sock: socket.socket) -> bytes:
    """Read to the end of a head, not a byte further."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        assert piece, data
        data += piece
    return data
