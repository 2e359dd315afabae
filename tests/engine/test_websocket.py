"""Attach over a websocket to real containers, with aiohttp's client."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import aiohttp

from sampan.wire.frames import Demultiplexer
from support.daemon import Daemon

EVERYTHING = "stream=1&stdin=1&stdout=1&stderr=1"
Talk = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[bytes]]


def attached(daemon: Daemon, container: str, talk: Talk, query: str = EVERYTHING) -> bytes:
    async def run() -> bytes:
        connector = aiohttp.UnixConnector(str(daemon.sock))
        async with (
            aiohttp.ClientSession("http://docker", connector=connector) as session,
            session.ws_connect(f"/v1.50/containers/{container}/attach/ws?{query}") as socket,
        ):
            return await asyncio.wait_for(talk(socket), 60)

    return asyncio.run(run())


async def everything(socket: aiohttp.ClientWebSocketResponse) -> bytes:
    said = b""
    async for message in socket:
        assert message.type is aiohttp.WSMsgType.BINARY
        said += message.data
    return said


def started(daemon: Daemon, *command: str, **body: object) -> str:
    container = daemon.create(*command, OpenStdin=True, AttachStdin=True, **body)
    daemon.ok("POST", f"/containers/{container}/start")
    return container


def test_what_is_sent_is_the_process_s_input_and_its_output_comes_unframed(daemon: Daemon) -> None:
    container = started(daemon, "sh", "-c", "read line; echo got $line; echo err >&2; exit 5")

    async def talk(socket: aiohttp.ClientWebSocketResponse) -> bytes:
        await socket.send_bytes(b"some")
        await socket.send_str("thing\n")
        return await everything(socket)

    said = attached(daemon, container, talk)
    assert sorted(said.splitlines()) == [b"err", b"got something"]
    assert daemon.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 5


def test_a_client_that_leaves_ends_no_container_and_another_may_come(daemon: Daemon) -> None:
    container = started(daemon, "cat", Tty=True)

    async def talk(socket: aiohttp.ClientWebSocketResponse) -> bytes:
        await socket.send_bytes(b"hello\n")
        said = b""
        while said.count(b"hello") < 2:
            said += await socket.receive_bytes()
        return said

    for _ in range(3):
        assert attached(daemon, container, talk).count(b"hello\r\n") == 2
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["Running"]


def test_megabytes_pass_unharmed_and_logs_come_first_when_asked(daemon: Daemon) -> None:
    container = started(daemon, "sh", "-c", "echo begun; cat")
    while daemon.call("GET", f"/containers/{container}/logs?stdout=1").body[8:] != b"begun\n":
        pass
    data = bytes(range(1, 256)) * 8192

    async def talk(socket: aiohttp.ClientWebSocketResponse) -> bytes:
        async def send() -> None:
            for at in range(0, len(data), 65536):
                await socket.send_bytes(data[at : at + 65536])

        sending = asyncio.ensure_future(send())
        said = b""
        while len(said) < len(data) + 6:
            said += await socket.receive_bytes()
        await sending
        return said

    assert attached(daemon, container, talk, EVERYTHING + "&logs=1") == b"begun\n" + data


def test_detach_keys_leave_it_running(daemon: Daemon) -> None:
    container = started(daemon, "cat", Tty=True)

    async def talk(socket: aiohttp.ClientWebSocketResponse) -> bytes:
        await socket.send_bytes(b"\x01")
        await socket.send_bytes(b"x")
        return await everything(socket)

    assert attached(daemon, container, talk, EVERYTHING + "&detachKeys=ctrl-a,x") == b""
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["Running"]


def test_row_95_attach_with_long_logs_keeps_nobody_waiting(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "seq 1 300000; cat", OpenStdin=True)
    daemon.ok("POST", f"/containers/{container}/start")
    logged = daemon.call("GET", f"/containers/{container}/logs?stdout=1&follow=0").body
    while not logged.endswith(b"300000\n"):
        logged = daemon.call("GET", f"/containers/{container}/logs?stdout=1&follow=0").body

    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(daemon.sock))
        query = "stream=1&stdin=1&stdout=1&logs=1"
        sock.sendall(f"POST /containers/{container}/attach?{query} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        began = time.monotonic()
        assert daemon.call("GET", "/_ping").body == b"OK"
        assert time.monotonic() - began < 3  # it is not waited for the client above
        sock.sendall(b"after\n")
        said = b""
        while not said.endswith(b"after\n"):
            said += sock.recv(1 << 20)
    payload = b"".join(piece for _, piece in Demultiplexer().feed(said.partition(b"\r\n\r\n")[2]))
    assert payload == b"".join(b"%d\n" % number for number in range(1, 300001)) + b"after\n"
    with socket.socket(socket.AF_UNIX) as sock:  # one that leaves in the middle
        sock.connect(str(daemon.sock))
        sock.sendall(f"POST /containers/{container}/attach?{query} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        sock.recv(10)
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["Running"]
