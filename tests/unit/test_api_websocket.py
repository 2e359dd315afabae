"""Attach over a websocket: frames both ways, whoever is slow or leaves, and clients that do not speak it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api, head_of, until_end

from fakes.engine import FakeStream
from sampan.api import websocket
from sampan.errors import Conflict
from sampan.wire import frames

HANDSHAKE = (
    b"Host: d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ALL = "stream=1&stdin=1&stdout=1"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


def frame(kind: int, data: bytes, last: bool = True) -> bytes:
    """A client's frame, masked."""
    mask = b"\1\2\3\4"
    size = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xff" + len(data).to_bytes(8, "big")
    whole = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)) if len(data) < 1000 else _masked(data, mask)
    return bytes((kind | (0x80 if last else 0),)) + size + mask + whole


def _masked(data: bytes, mask: bytes) -> bytes:
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


def received(sock: socket.socket) -> tuple[int, bytes]:
    """The next whole frame of the server's."""
    first, size = _exactly(sock, 2)
    assert first & 0x80 and not size & 0x80
    if size >= 126:
        size = int.from_bytes(_exactly(sock, 2 if size == 126 else 8), "big")
    return first & 0x0F, _exactly(sock, size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, data
        data += piece
    return data


def attach(api: Api, query: str = ALL, early: bytes = b"", version: str = "v1.50") -> tuple[socket.socket, FakeStream]:
    sock = api.connect()
    sock.sendall(f"GET /{version}/containers/web/attach/ws?{query} HTTP/1.1\r\n".encode() + HANDSHAKE + early)
    head = head_of(sock)
    assert head.startswith(b"HTTP/1.1 101 ") and b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    stream = api.engine.containers.streams[-1]
    stream.far.settimeout(10)
    return sock, stream


def test_data_frames_of_every_size_pass_both_ways(api: Api) -> None:
    sock, stream = attach(api, early=frame(BINARY, b"early "))
    with sock:
        sock.sendall(frame(TEXT, "text é ".encode()) + frame(BINARY, b"in ", last=False) + frame(0, b"pieces"))
        wanted = "early text é in pieces".encode()
        assert _exactly(stream.far, len(wanted)) == wanted
        for size in (1, 125, 126, 65535, 65536):
            stream.far.sendall(frames.frame(1 + size % 2, b"x" * size))
            got = b""
            while len(got) < size:
                kind, piece = received(sock)
                assert kind == BINARY
                got += piece
            assert got == b"x" * size
        sock.sendall(frame(PING, b"hello"))
        assert received(sock) == (PONG, b"hello")


def test_the_end_of_output_closes_the_websocket(api: Api) -> None:
    sock, stream = attach(api)
    with sock:
        stream.far.sendall(frames.frame(2, b"bye"))
        stream.far.close()
        assert received(sock) == (BINARY, b"bye")
        assert received(sock) == (CLOSE, b"\x03\xe8")
        sock.sendall(frame(CLOSE, b"\x03\xe8"))
        assert until_end(sock) == b""
    api.call(stream.closed.wait)


def test_row_95_clients_that_close_or_vanish_end_the_attach_and_no_process(api: Api) -> None:
    sock, stream = attach(api)
    with sock:
        sock.sendall(frame(CLOSE, b"\x03\xe8"))
        assert received(sock)[0] == CLOSE
    api.call(stream.closed.wait)
    for _ in range(10):
        sock, stream = attach(api)
        sock.close()
        api.call(stream.closed.wait)
    assert api.ask("GET", "/_ping")[0] == 200
    assert api.call(lambda: len(api.server._open)) <= 1


def test_row_95_a_websocket_that_is_not_read_makes_the_process_wait(api: Api) -> None:
    sock, stream = attach(api)
    stream.far.settimeout(0.3)
    sent = 0
    with sock, pytest.raises(TimeoutError):
        while True:
            stream.far.sendall(frames.frame(1, b"y" * 65528))
            sent += 65536
    assert sent < 8 << 20
    api.call(stream.closed.wait)


def test_row_95_a_process_that_reads_nothing_makes_the_client_wait(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "LAST_WORDS", 0.1)
    sock, stream = attach(api)
    sock.settimeout(0.3)
    sent, piece = 0, frame(BINARY, b"z" * 65536)
    with sock, pytest.raises(TimeoutError):
        while True:
            sock.sendall(piece)
            sent += len(piece)
    assert sent < 8 << 20
    api.call(stream.closed.wait)


def test_megabytes_come_back_unharmed(api: Api) -> None:
    sock, stream = attach(api)
    data = bytes(range(256)) * 8192

    def echo() -> None:
        left = len(data)
        while left:
            piece = stream.far.recv(1 << 16)
            stream.far.sendall(frames.frame(1, piece))
            left -= len(piece)
        stream.far.close()

    def send() -> None:
        for at in range(0, len(data), 100_000):
            sock.sendall(frame(BINARY, data[at : at + 100_000]))

    threads = [threading.Thread(target=echo), threading.Thread(target=send)]
    got = b""
    with sock:
        for thread in threads:
            thread.start()
        while (one := received(sock))[0] == BINARY:
            got += one[1]
        for thread in threads:
            thread.join(10)
    assert got == data


def test_detach_keys_end_a_tty_websocket(api: Api) -> None:
    api.engine.containers.tty = True
    sock, stream = attach(api, ALL + "&detachKeys=ctrl-a,b")
    with sock:
        sock.sendall(frame(BINARY, b"x\x01") + frame(BINARY, b"bnot passed on"))
        assert received(sock)[0] == CLOSE
        assert stream.far.recv(10) == b"x"
    api.call(stream.closed.wait)
    assert stream.was_detached


@pytest.mark.parametrize("data", [b"\xf2\x82\1\2\3\4hi", frame(3, b"x"), b"\x82\xff" + (2 << 20).to_bytes(8, "big") + b"\1\2\3\4"])
def test_row_94_frames_that_no_client_should_send_close_it(api: Api, data: bytes) -> None:
    sock, stream = attach(api)
    with sock:
        sock.sendall(data)
        kind, reason = received(sock)
        assert kind == CLOSE and int.from_bytes(reason[:2], "big") in (1002, 1009)
    api.call(stream.closed.wait)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket", b"Upgrade: tcp"),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"Version: 13", b"Version: 7"),
        (b"Version: 13", b"Version: x"),
        (b"Bub25jZQ==", b"B"),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"\xff\xfe"),
    ],
    ids=range(7),
)
def test_a_bad_handshake_is_a_400_and_attaches_nothing(api: Api, old: bytes, new: bytes) -> None:
    request = f"GET /containers/web/attach/ws?{ALL} HTTP/1.1\r\n".encode() + HANDSHAKE.replace(old, new)
    with api.connect() as sock:
        sock.sendall(request)
        head = head_of(sock)
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(sock.recv(1000))["message"]
        if b"Connection: close" not in head:
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            assert until_end(sock).endswith(b"OK")
    assert api.engine.containers.streams == []


def test_refusals_are_json_before_the_handshake(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(b"GET /containers/nope/attach/ws HTTP/1.1\r\n" + HANDSHAKE)
        assert head_of(sock).startswith(b"HTTP/1.1 404 ")
    api.engine.containers.error = Conflict("paused")
    with api.connect() as sock:
        sock.sendall(b"GET /containers/web/attach/ws HTTP/1.1\r\n" + HANDSHAKE)
        assert head_of(sock).startswith(b"HTTP/1.1 409 ")


def test_the_server_s_end_closes_websockets(tmp_path: Path) -> None:
    got: list[tuple[int, bytes]] = []
    with Api(tmp_path) as api:
        sock, stream = attach(api)

        def client() -> None:
            with sock:
                got.append(received(sock))

        reading = threading.Thread(target=client)
        reading.start()
    reading.join(10)
    assert got == [(CLOSE, b"\x03\xe8")]
    assert stream.near.fileno() == -1
