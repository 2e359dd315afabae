"""The client: frames, takeovers, refusals, broken daemons, addresses."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_support import Api

from sampan.client import connect
from sampan.client.aio import AsyncClient
from sampan.client.api import Client
from sampan.client.errors import ApiError, BadHost, ClientError, NoDaemon, ProtocolError
from sampan.client.stream import Demultiplexer, json_lines
from sampan.errors import InvalidRequest
from sampan.wire import containers as c
from sampan.wire import execs as e

ID = "f" * 64


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


@pytest.fixture
def client(api: Api) -> Client:
    return Client(f"unix://{api.path}")


def frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class Liar:
    """A daemon that reads a head and answers with these bytes."""

    def __init__(self, folder: Path, answer: bytes) -> None:
        self.path = str(folder / "liar.sock")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock:
            seen = b""
            while b"\r\n\r\n" not in seen:
                seen += sock.recv(65536)
            sock.sendall(self._answer)
            sock.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Client:
        self._thread.start()
        return Client(f"unix://{self.path}")

    def __exit__(self, *error: object) -> None:
        self._thread.join(10)
        self._listener.close()


@pytest.mark.parametrize("size", [1, 3, 8, 9, 1000])
def test_frames_come_out_whole_whatever_the_pieces(size: int) -> None:
    data = frame(1, b"out") + frame(2, b"error") + frame(0, b"in") + frame(1, b"")
    parts = Demultiplexer()
    got = {1: b"", 2: b""}

    for at in range(0, len(data), size):
        for stream, piece in parts.feed(data[at : at + size]):
            got[stream] += piece

    assert got == {1: b"outin", 2: b"error"}
    assert parts.whole


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n", frame(4, b"x"), b"\1\0\0\0\xff\xff\xff\xff", b"\1\0\1\0\0\0\0\1x"])
def test_what_is_no_frame_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Demultiplexer().feed(data))


def test_the_daemons_own_stream_is_an_error() -> None:
    with pytest.raises(ApiError, match="no log"):
        list(Demultiplexer().feed(frame(3, b"no log\n")))


def test_json_lines_are_read_across_pieces_and_too_long_ones_refused() -> None:
    class Source:
        def __init__(self, pieces: list[bytes]) -> None:
            self.pieces = pieces

        def read1(self, n: int = -1, /) -> bytes:
            return self.pieces.pop(0) if self.pieces else b""

    assert list(json_lines(Source([b'{"a"', b":1}\r\n\x1e{}\n", b"[2]"]))) == [{"a": 1}, {}, [2]]
    with pytest.raises(ProtocolError):
        list(json_lines(Source([b"x" * (1 << 20)] * 17)))
    with pytest.raises(ProtocolError):
        list(json_lines(Source([b"nonsense\n"])))


def test_verbs_send_what_they_say(api: Api, client: Client) -> None:
    made = client.containers.create(c.CreateBody(image="busybox", cmd=["true"]), name="web")
    assert made.id == ID
    client.containers.start("fff")
    client.containers.stop("web", timeout=3, signal="INT")
    client.containers.kill("web", signal="9")

    names = [name for name, _ in api.engine.containers.calls]
    assert names == ["create", "stop", "kill"]
    assert api.engine.containers.calls[1] == ("stop", (3, "INT"))
    assert client.containers.inspect("web").state.running
    assert client.containers.list(all=True)[0].names == ["/web"]


def test_a_start_of_what_runs_is_no_error(client: Client) -> None:
    client.containers.start("web")


def test_a_refusal_carries_status_and_words(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.containers.inspect("nothing")
    assert (caught.value.status, str(caught.value)) == (404, "No such container: nothing")
    with pytest.raises(ApiError, match="No such container: nothing"):
        client.containers.attach("nothing")
    with pytest.raises(ApiError):
        client.containers.inspect("")


def test_a_reference_cannot_leave_its_path(api: Api, client: Client) -> None:
    for ref in ("a b", "x?all=1", "x#y", "x\r\ny: z", "%2e%2e"):
        with pytest.raises(ApiError) as caught:
            client.containers.inspect(ref)
        assert caught.value.status in (400, 404)


def test_logs_are_taken_apart(api: Api, client: Client) -> None:
    got = b"".join(data for _, data in client.containers.logs("web"))
    assert isinstance(got, bytes)


def test_an_attach_is_a_pipe_both_ways_with_an_end_of_input(api: Api, client: Client) -> None:
    api.engine.containers.tty = True
    with client.containers.attach("web", stdin=True) as stream:
        far = api.engine.containers.streams[0].far
        far.settimeout(10)
        stream.write(b"hello")
        assert far.recv(5) == b"hello"
        far.sendall(b"world")
        assert stream.read() == b"world"
        stream.end_input()
        assert far.recv(1) == b""
        far.sendall(b"still")
        assert stream.read() == b"still"
        far.shutdown(socket.SHUT_RDWR)
        assert stream.read() == b""


def test_bytes_that_came_with_the_head_of_a_takeover_are_not_lost(tmp_path: Path) -> None:
    head = (
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    with Liar(tmp_path, head + b"early words") as client, client.hijack("/x") as stream:
        assert stream.pending()
        got = b""
        while data := stream.read():
            got += data
    assert got == b"early words"


def test_a_wait_is_noted_before_it_is_awaited(api: Api, client: Client) -> None:
    waiting = client.containers.begin_wait("web")
    assert len(api.engine.containers.waits) == 1

    api.call(lambda: api.engine.containers.waits[0].future.set_result(c.WaitResult(status_code=7)))

    assert waiting.result().status_code == 7


def test_uploads_are_streamed_and_failures_in_the_stream_are_raised(api: Api, client: Client, tmp_path: Path) -> None:
    tar = tmp_path / "t.tar"
    tar.write_bytes(b"x" * 300_000)
    with open(tar, "rb") as file:
        assert [one.stream for one in client.images.load(file)] == ["Loaded image: <busybox>\n"]
    assert api.engine.images.read == 300_000
    api.engine.images.error = InvalidRequest("no tar")
    with open(tar, "rb") as file, pytest.raises(ApiError, match="no tar"):
        list(client.images.load(file))


ANSWERS = [
    b"", b"garbage", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a":[1]',
    b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
    b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\r\n[1]",
]  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(
    "ask", [lambda x: x.system.version(), lambda x: x.containers.inspect_json("a"), lambda x: x.hijack("/x").close()]
)
def test_a_broken_daemon_is_a_client_error(tmp_path: Path, answer: bytes, ask: Callable[[Client], object]) -> None:
    with Liar(tmp_path, answer) as client:
        try:
            ask(client)
        except ClientError as error:
            assert str(error)
        else:
            assert answer.startswith(b"HTTP/1.1 200")  # a takeover that a daemon of old agrees to


def test_no_descriptor_is_left_after_any_of_it(client: Client) -> None:
    def once() -> None:
        client.system.ping()
        client.containers.list()
        list(client.containers.logs("web"))
        for verb in (client.containers.inspect, client.containers.attach, client.containers.begin_wait):
            with pytest.raises(ApiError):
                verb("nothing")

    once()
    before = len(os.listdir("/proc/self/fd"))
    once()
    assert len(os.listdir("/proc/self/fd")) <= before + 6  # the server's side of this process may lag behind


def test_nobody_there_is_told_apart_from_nobody_allowed(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match="Is the sampan daemon running"):
        Client(f"unix://{tmp_path}/none").system.ping()
    with pytest.raises(NoDaemon, match="Is the sampan daemon running"):
        Client("tcp://127.0.0.1:1").system.ping()


@pytest.mark.parametrize(
    "text",
    ["unix://relative", "unix://", "ftp://x", "tcp://h:99999", "tcp://h:x", "tcp://h/path", "tcp://u@h", "unix:///" + "x" * 200,
     "unix:///a\0b", "tcp://h:٣"],
)  # fmt: skip
def test_an_address_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(BadHost):
        connect.parse(text)


def test_addresses_are_understood() -> None:
    assert connect.parse("unix:///a/b").path == "/a/b"
    assert (connect.parse("tcp://[::1]:5").host, connect.parse("tcp://[::1]:5").port) == ("::1", 5)
    assert connect.parse("h:5").host == "h"
    assert (connect.parse("tcp://h").port, connect.parse("tcp://h", tls=True).port) == (2375, 2376)


def test_execs_run_and_tell_their_end(client: Client) -> None:
    made = client.execs.create("web", e.ExecCreate(cmd=["true"]))
    assert made
    client.execs.start_detached(made)
    assert client.execs.inspect(made).id


def test_the_asynchronous_client_has_the_main_verbs(api: Api) -> None:
    async def use() -> None:
        async with AsyncClient(f"unix://{api.path}") as client:
            made = await client.create(c.CreateBody(image="busybox"), name="xx")
            await client.start(made.id)
            assert (await client.inspect("web")).state.running
            assert len(await client.list(all=True)) == 1
            assert (await client.version()).api_version == "1.50"
            with pytest.raises(ApiError, match="No such container"):
                await client.stop("nothing", timeout=1)
            async for event in client.events():
                assert event.action == "start"
                break
        with pytest.raises(NoDaemon):
            async with AsyncClient("unix:///none") as client:
                await client.info()

    asyncio.run(use())
