"""Attach and exec start: exact heads, half-close both ways, back-pressure, detach keys, clients that vanish."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api, head_of, until_end

from fakes.engine import ID, FakeStream
from sampan.api.hijack import Escape
from sampan.api.query import detach_keys
from sampan.errors import Broken, InvalidRequest
from sampan.wire.frames import frame

UPGRADE = b"Upgrade: tcp\r\nConnection: Upgrade\r\n"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


def attach(api: Api, early: bytes = b"", version: str = "v1.50", keys: str = "") -> tuple[socket.socket, FakeStream, bytes]:
    sock = api.connect()
    target = f"/{version}/containers/web/attach?stream=1&stdin=1&stdout=1{keys}".encode()
    sock.sendall(b"POST " + target + b" HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n" + early)
    head = head_of(sock)
    stream = api.engine.containers.streams[-1]
    stream.far.settimeout(10)
    return sock, stream, head


def test_the_head_of_an_upgraded_attach(api: Api) -> None:
    sock, _, head = attach(api)
    with sock:
        assert head == (
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
    sock, _, head = attach(api, version="v1.41")
    with sock:
        assert b"raw-stream" in head
    api.engine.containers.tty = True
    sock, _, head = attach(api)
    with sock:
        assert b"raw-stream" in head


def test_without_an_upgrade_the_head_is_200_and_raw(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /containers/web/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\nearly")
        assert head_of(sock) == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
        stream = api.engine.containers.streams[0]
        assert stream.far.recv(100) == b"early"
        stream.far.sendall(b"out")
        stream.far.close()
        assert until_end(sock) == b"out"


def test_bytes_sent_with_the_head_are_not_lost_and_half_close_passes(api: Api) -> None:
    sock, stream, _ = attach(api, early=b"first ")
    with sock:
        sock.sendall(b"second")
        sock.shutdown(socket.SHUT_WR)
        assert until_end(stream.far) == b"first second"
        stream.far.sendall(b"answer after the end of input")
        stream.far.close()
        assert until_end(sock) == b"answer after the end of input"
    api.call(stream.closed.wait)


def test_the_end_of_output_ends_the_connection(api: Api) -> None:
    sock, stream, _ = attach(api)
    with sock:
        stream.far.sendall(b"bye")
        stream.far.shutdown(socket.SHUT_WR)
        assert until_end(sock) == b"bye"
    api.call(stream.closed.wait)


def test_megabytes_pass_both_ways_at_once_unharmed(api: Api) -> None:
    sock, stream, _ = attach(api)
    data = bytes(range(256)) * 32768
    got: list[bytes] = []

    def echo() -> None:
        while piece := stream.far.recv(1 << 16):
            stream.far.sendall(piece)
        stream.far.close()

    def send() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=echo), threading.Thread(target=send)]
    with sock:
        for thread in threads:
            thread.start()
        got.append(until_end(sock))
        for thread in threads:
            thread.join(10)
    assert got[0] == data


def test_row_95_a_dead_reader_makes_the_process_wait_not_the_daemon_grow(api: Api) -> None:
    sock, stream, _ = attach(api)
    sent = 0
    stream.far.settimeout(0.5)
    with sock, pytest.raises(TimeoutError):
        while True:
            sent += stream.far.send(b"y" * 65536)
    assert sent < 8 << 20
    api.call(stream.closed.wait)


def test_row_95_clients_that_vanish_from_silent_processes_are_noticed(api: Api) -> None:
    for _ in range(20):
        sock, stream, _ = attach(api)
        sock.close()
        api.call(stream.closed.wait)
    sock, stream, _ = attach(api)
    sock.shutdown(socket.SHUT_WR)
    assert stream.far.recv(10) == b""
    sock.close()
    api.call(stream.closed.wait)
    assert api.call(lambda: len(api.server._taken)) == 0


def test_a_refused_attach_is_plain_text_on_a_raw_head(api: Api) -> None:
    answer = api.raw(b"POST /containers/x/attach HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
    assert answer == (b"HTTP/1.1 404 Not Found\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nNo such container: x\r\n")
    answer = api.raw(b"POST /containers/web/attach?detachKeys=ctrl-! HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"Invalid detach keys (ctrl-!) provided\r\n")


def test_detach_keys_end_a_tty_attach_and_nothing_else(api: Api) -> None:
    api.engine.containers.tty = True
    sock, stream, _ = attach(api)
    with sock:
        sock.sendall(b"a\x10")
        assert stream.far.recv(10) == b"a"
        sock.sendall(b"b\x10\x11ignored")
        assert until_end(sock) == b""
        assert stream.far.recv(10) == b"\x10b"
    assert stream.was_detached
    api.engine.containers.tty = False
    sock, stream, _ = attach(api)
    with sock:
        sock.sendall(b"\x10\x11")
        assert stream.far.recv(10) == b"\x10\x11"


def test_detach_keys_are_found_across_pieces() -> None:
    escape = Escape(b"aab")
    assert escape.feed(b"xa") == (b"x", False)
    assert escape.feed(b"a") == (b"", False)
    assert escape.feed(b"ab") == (b"a", True)
    assert detach_keys("ctrl-@,z,ctrl-_") == b"\x00z\x1f"
    for bad in ("ctrl-", "ab", ",", "ctrl-A", "é"):
        with pytest.raises(InvalidRequest):
            detach_keys(bad)


def exec_start(api: Api, body: bytes, upgrade: bytes = UPGRADE, name: str = ID) -> socket.socket:
    sock = api.connect()
    head = b"POST /v1.50/exec/%b/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n" % name.encode()
    sock.sendall(head + upgrade + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return sock


def test_exec_start_takes_over_with_the_daemon_s_headers(api: Api) -> None:
    with exec_start(api, b'{"Detach":false,"Tty":true}') as sock:
        head = head_of(sock)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n")
        assert b"Upgrade: tcp\r\nApi-Version: 1.50\r\n" in head
        api.call(api.engine.execs.started.wait)
        far = api.engine.execs.streams[0].far
        sock.sendall(b"in")
        assert far.recv(10) == b"in"
        far.sendall(b"out")
        far.close()
        assert until_end(sock) == b"out"


def test_exec_failures_after_the_takeover_are_in_the_stream(api: Api) -> None:
    api.engine.execs.error = Broken("exec failed: no")
    with exec_start(api, b"{}") as sock:
        assert head_of(sock).startswith(b"HTTP/1.1 101")
        assert until_end(sock) == b"\x01\0\0\0\0\0\0\x11exec failed: no\r\n"


def test_exec_failures_before_the_takeover_are_json(api: Api) -> None:
    with exec_start(api, b"{}", name="nope") as sock:
        head = head_of(sock)
        assert head.startswith(b"HTTP/1.1 404")
        assert json.loads(sock.recv(1000))["message"] == "No such exec instance: nope"
    with exec_start(api, b'{"Detach":true}', upgrade=b"Connection: close\r\n") as sock:
        assert b"Content-Length: 0\r\n" in head_of(sock)


def test_the_server_s_end_closes_takeovers(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        sock, stream, _ = attach(api)
    with sock:
        assert until_end(sock) == b""
    assert stream.near.fileno() == -1


def test_a_websocket_carries_binary_frames(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(
            b"GET /containers/web/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head_of(sock)
        far = api.engine.containers.streams[0].far
        sock.sendall(b"\x82\x82\1\2\3\4" + bytes((ord("h") ^ 1, ord("i") ^ 2)))
        assert far.recv(10) == b"hi"
        far.sendall(frame(2, b"x" * 200))
        assert sock.recv(1000) == b"\x82\x7e\x00\xc8" + b"x" * 200
        sock.sendall(b"\xf2\x82\1\2\3\4hi")
        assert until_end(sock) == b"\x88\x02\x03\xea"
    assert api.ask("GET", "/containers/web/attach/ws")[0] == 400
