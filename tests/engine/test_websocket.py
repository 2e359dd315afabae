"""Attach over a websocket to real containers, with aiohttp's client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

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
