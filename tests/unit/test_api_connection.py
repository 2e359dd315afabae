"""Connections: pieces of any size, pipelines, typed-ahead bytes, slow and vanishing clients, too many of them, the server's end."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from aiohttp.web_protocol import RequestHandler
from api_support import Api, head_of, until_end

from fakes.engine import ID
from sampan.api import body, connection, server
from sampan.errors import InvalidRequest
from sampan.wire import images as i

PING = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
LAST = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
LOAD = b"POST /images/load HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
EXEC = b"POST /exec/%b/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n" % ID.encode()
UPGRADE = b"Upgrade: tcp\r\nConnection: Upgrade\r\n"
BODIES = {
    "length": b"Content-Length: 2\r\n\r\n{}",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked, pieces and extensions": b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\n{\r\n1\r\n}\r\n0;c\r\n\r\n",
    "chunked, trailers": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
    "no body": b"\r\n",
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


def dribble(sock: socket.socket, data: bytes, size: int = 1) -> None:
    for at in range(0, len(data), size):
        sock.sendall(data[at : at + size])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_requests_and_bodies_may_come_in_pieces_and_behind_each_other(api: Api, size: int) -> None:
    evil = b"\r\n\r\nGET /version HTTP/1.1\r\n\r\n"
    upload = b"POST /images/load HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(evil), evil)
    counted = b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(evil) + evil
    with api.connect() as sock:
        dribble(sock, PING + upload + PING + b"\r\n" + counted + LAST, size)
        answer = until_end(sock)
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert answer.count(b"Loaded image") == 2
    assert api.engine.images.read == len(evil)


@pytest.mark.parametrize("upgrade", [UPGRADE, b""], ids=["upgrade", "plain"])
@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_what_is_typed_ahead_of_a_takeover_reaches_the_process(api: Api, body: bytes, size: int, upgrade: bytes) -> None:
    typed = b"GET /version HTTP/1.1\r\nHost: d\r\n\r\n\0\xff0\r\n\r\n"
    with api.connect() as sock:
        dribble(sock, EXEC + upgrade + body + typed, size)
        assert head_of(sock).startswith(b"HTTP/1.1 101 UPGRADED" if upgrade else b"HTTP/1.1 200 OK")
        sock.shutdown(socket.SHUT_WR)
        api.call(api.engine.execs.started.wait)
        far = api.engine.execs.streams[0].far
        assert until_end(far) == typed
        far.sendall(b"out")
        far.close()
        assert until_end(sock) == b"out"


def test_row_95_much_typed_ahead_waits_in_the_client(api: Api) -> None:
    stop = threading.Event()
    api.engine.execs.error = InvalidRequest("later")
    with api.connect() as sock:
        sock.sendall(b"POST /containers/web/wait HTTP/1.1\r\nHost: d\r\n\r\n")
        head_of(sock)
        sock.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while not stop.is_set():
                sent += sock.send(b"x" * 65536)
    assert sent < 4 << 20


def test_row_94_a_head_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_DEADLINE", 0.2)
    monkeypatch.setattr(server, "SWEEP", 0.05)
    with Api(tmp_path) as api, api.connect() as silent, api.connect() as slow, api.connect() as kept:
        kept.sendall(PING)
        slow.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nA:")
        answer = until_end(slow)
        assert answer.startswith(b"HTTP/1.1 408 ") and json.loads(answer.partition(b"\r\n\r\n")[2])["message"]
        assert until_end(silent) == b""
        head_of(kept)  # one that has asked before may be idle
        kept.recv(10)
        kept.sendall(LAST)
        assert until_end(kept).endswith(b"OK")


def test_row_94_the_next_head_has_its_deadline_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_DEADLINE", 0.2)
    monkeypatch.setattr(server, "SWEEP", 0.05)
    with Api(tmp_path) as api, api.connect() as sock:
        sock.sendall(PING)
        head_of(sock)
        assert sock.recv(10) == b"OK"
        sock.sendall(b"GET /_ping HTTP/1.1\r\n")
        assert until_end(sock).startswith(b"HTTP/1.1 408 ")


def test_row_94_a_head_without_end_is_refused_before_its_end(api: Api) -> None:
    for piece in (b"A" * 70000, b"GET /" + b"a" * 70000, b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(9000))):
        with api.connect() as sock:
            sock.sendall(piece)
            answer = until_end(sock)
        assert 400 <= int(answer.split(b" ")[1]) < 500
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["message"]


def test_row_94_connections_have_a_limit_and_come_back(api: Api) -> None:
    api.server._room = 4
    kept = [api.connect() for _ in range(4)]
    for sock in kept:
        sock.sendall(PING)
        head_of(sock)
    with api.connect() as late:
        assert until_end(late) == b""
    kept.pop().close()
    while True:
        with api.connect() as sock:
            try:
                sock.sendall(LAST)
                if until_end(sock).endswith(b"OK"):
                    break
            except BrokenPipeError:
                continue
    for sock in kept:
        sock.close()


def test_row_94_a_body_that_breaks_off_ends_its_reader(api: Api) -> None:
    for rest in (b"zz\r\n", b"5\r\nabcdefgh\r\n", b"-1\r\n"):
        with api.connect() as sock:
            sock.sendall(LOAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            head_of(sock)
            sock.sendall(rest)
            assert b"malformed body" in until_end(sock)
    with api.connect() as sock:
        sock.sendall(LOAD + b"Content-Length: 10\r\n\r\nabc")
        sock.shutdown(socket.SHUT_WR)
        assert b"errorDetail" not in until_end(sock)


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (b"Content-Length: 100\r\n\r\n", b"abc"),
        (b"Content-Length: 100\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nab"),
    ],
)
@pytest.mark.parametrize("half", [True, False])
def test_row_94_a_body_that_nobody_reads_and_that_breaks_off_is_no_news(
    api: Api, head: bytes, sent: bytes, half: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /containers/nope/kill HTTP/1.1\r\nHost: d\r\n" + head + sent)
        sock.shutdown(socket.SHUT_WR)
        assert until_end(sock).startswith(b"HTTP/1.1 404 ")
    with api.connect() as sock:
        sock.sendall(b"POST /containers/nope/kill HTTP/1.1\r\nHost: d\r\n" + head)
        assert head_of(sock).startswith(b"HTTP/1.1 404 ")
        try:
            sock.sendall(sent)
            if half:
                sock.shutdown(socket.SHUT_WR)
                until_end(sock)
        except BrokenPipeError:  # it is known already that no more is read
            pass
    deadline = time.monotonic() + 5
    while api.call(lambda: len(api.server._open)):
        assert time.monotonic() < deadline
    assert caplog.records == []


def test_a_client_that_has_shut_its_side_is_answered(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(PING + PING)
        sock.shutdown(socket.SHUT_WR)
        answer = until_end(sock)
    assert answer.count(b"HTTP/1.1 200 OK") == 2 and answer.endswith(b"OK")
    with api.connect() as sock:
        sock.sendall(b"GET /_ping HT")
        sock.shutdown(socket.SHUT_WR)
        assert until_end(sock) == b""


def test_the_answer_to_a_long_upload_that_nobody_reads_arrives(api: Api) -> None:
    piece, sent = b"x" * 65536, 0
    with api.connect() as sock:
        sock.sendall(b"POST /containers/nope/kill HTTP/1.1\r\nHost: d\r\nContent-Length: 100000000\r\n\r\n")
        while sent < 50_000_000:
            sent += sock.send(piece)
        answer = until_end(sock)
    assert b"404" in answer and b"No such container: nope" in answer


@pytest.mark.parametrize("unread", [0, 100_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_row_95_an_upload_read_late_or_not_to_its_end_leaves_no_connection(api: Api, chunked: bool, unread: int) -> None:
    full, rest = 2 * body.HIGH // 2 - 100, 1000  # the last piece fills the buffer: the parser stops just before the body's end
    size = full + rest

    async def late(tar: BinaryIO, *, quiet: bool, only: Sequence[str] = ()) -> AsyncIterator[i.Progress]:
        while not any(one._full for one in api.server._open):
            await asyncio.sleep(0)
        api.engine.images.read = len(await asyncio.to_thread(tar.read, size - unread))
        yield i.Progress(stream="enough")

    def begin() -> socket.socket:
        sock = api.connect()
        sock.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\n")
        sock.sendall(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size if chunked else b"Content-Length: %d\r\n\r\n" % size)
        head_of(sock)
        sock.sendall(bytes(full))
        while not api.call(lambda: any(one._raw and one._raw.content.total_bytes == full for one in api.server._open)):
            pass
        sock.sendall(bytes(rest) + (b"\r\n0\r\n\r\n" if chunked else b""))
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += sock.recv(65536)
        assert b"enough" in answer
        return sock

    api.engine.images.load = late  # type: ignore[method-assign]
    for _ in range(3):
        with begin() as sock:
            sock.sendall(LAST)
            assert until_end(sock).endswith(b"OK") or (chunked and unread)  # nobody knows how many chunks still come
        begin().close()
    deadline = time.monotonic() + 5
    while api.call(lambda: len(api.server._open)):
        assert time.monotonic() < deadline


def test_row_95_a_reader_that_stands_still_makes_the_source_wait(api: Api) -> None:
    made = 0
    ended = threading.Event()

    async def endless(refs: list[str]) -> AsyncIterator[bytes]:
        nonlocal made
        try:
            while True:
                made += 1
                yield bytes(65536)
        finally:
            ended.set()

    api.engine.images.save = endless  # type: ignore[method-assign]
    with api.connect() as sock:
        sock.sendall(b"GET /images/x/get HTTP/1.1\r\nHost: d\r\n\r\n")
        head_of(sock)
        for _ in range(3):
            seen = -1
            while seen != made:  # until it has stopped
                seen = made
                threading.Event().wait(0.1)
            assert made < 64
            sock.sendall(b"GET /version HTTP/1.1\r\n")  # what it says meanwhile changes nothing
        for _ in range(100):
            sock.recv(65536)
    assert ended.wait(10)
    assert api.ask("GET", "/_ping")[0] == 200


def test_nothing_of_aiohttps_is_overwritten_by_accident() -> None:
    """An attribute of the same name would be shared silently: the base class keeps its own in slots."""
    theirs = {name for kind in RequestHandler.__mro__ for name in getattr(kind, "__slots__", ())}
    source = inspect.getsource(connection.Connection)

    assert "_paused" in theirs
    assert set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? =", source)) & theirs == {"transport"}


def test_uploads_are_not_slow(api: Api) -> None:
    data = bytes(range(256)) * 4096
    began = time.monotonic()
    with api.connect() as sock:
        sock.sendall(LOAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(64):
            sock.sendall(b"%x\r\n" % len(data) + data + b"\r\n")
        sock.sendall(b"0\r\n\r\n")
        assert b"Loaded image" in until_end(sock)
    assert api.engine.images.read == 64 << 20
    assert time.monotonic() - began < 5


def test_the_server_s_end_lets_an_answer_out_and_closes_the_idle(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        idle, busy = api.connect(), api.connect()
        idle.sendall(PING)
        head_of(idle)
        busy.sendall(LOAD + b"Content-Length: 3\r\n\r\na")
        head_of(busy)
        closing = threading.Thread(target=lambda: api.call(api.server.close))
        closing.start()
        assert until_end(idle) == b"OK"
        closing.join(10)
    with idle, busy:
        until_end(busy)


def test_the_answer_that_was_under_way_is_whole_at_the_server_s_end(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        release = threading.Event()

        async def slow(*, all: bool) -> list[object]:
            await asyncio.to_thread(release.wait, 10)
            return []

        api.engine.system.jobs = slow  # type: ignore[method-assign,assignment]
        sock = api.connect()
        sock.sendall(b"GET /sampan/jobs HTTP/1.1\r\nHost: d\r\n\r\n")
        while not api.call(lambda: any(one.request for one in api.server._open)):
            pass
        closing = threading.Thread(target=lambda: api.call(api.server.close))
        closing.start()
        while not api.server.closing:
            pass
        release.set()
        answer = until_end(sock)
        closing.join(10)
    sock.close()
    assert answer.startswith(b"HTTP/1.1 200 OK") and b"Connection: close" in answer and answer.endswith(b"[]\n")
