"""Two hundred and more things that no client should send: each is a clear 4xx in less than 100 ms, none a 500."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api
from test_wire_strict import AMBIGUOUS

NAMES = [
    "..",
    "a/../b",
    "%2e%2e",
    "%2e%2e%2f",
    "%00",
    "a%00b",
    "a%0ab",
    "%0d%0aX:%20y",
    "%ff",
    "%zz",
    "%",
    "%4",
    "%e2%80%ae",
    "x" * 300,
    "-a",
    "_",
    ".",
    "/",
    "//",
    "a%20b",
    "%E2%82%AC",
    "../../etc/passwd",
    "a" * 5000,
    "%25",
    "sha256:",
    "*",
    "$(id)",
]
CREATE_NAMES = [
    "..",
    "a",
    "-a",
    "a/b",
    "%2e%2e",
    "a%00b",
    "a%0a",
    "a%20b",
    "%E2%80%AEabc",
    "x" * 300,
    "a%2fb",
    "%ff%fe",
    "/",
    "//a",
    "a,b",
    "%u0041",
    "a%",
    "é".encode().hex("%")[:0] + "%C3%A9a",
    "a%7f",
    ".a",
    "_a",
    "a:b",
    "a@b",
    "a~b",
]
QUERIES = [
    ("GET", "/containers/json?limit=x"),
    ("GET", "/containers/json?limit=1e3"),
    ("GET", "/containers/json?limit=%D9%A1"),
    ("GET", "/containers/json?limit=99999999999999999999999"),
    ("GET", "/containers/json?limit=" + "9" * 30000),
    ("GET", "/containers/json?limit=0x10"),
    ("GET", "/containers/json?limit=1_000"),
    ("GET", "/containers/json?limit=%201"),
    *(
        ("GET", f"/containers/json?filters={text}")
        for text in (
            "x",
            "%7B",
            "[]",
            "1",
            "%22a%22",
            "%7B%22nope%22:[%22a%22]%7D",
            "%7B%22name%22:1%7D",
            "%7B%22name%22:[1]%7D",
            "%7B%22name%22:%7B%22a%22:1%7D%7D",
            "%7B%22exited%22:[%22x%22]%7D",
            "%7B%22status%22:[%22x%22]%7D",
            "%7B%22is-task%22:[%22x%22]%7D",
            "%7B%22name%22:[%22a%22],%22name%22:[%22b%22]%7D",
            "[" * 20000,
            "%7B%22health%22:[%22x%22]%7D",
            "%7B%22name%22:null%7D",
            "%7B%22exited%22:[%22%D9%A1%22]%7D",
            "%7B%22name%22:[%22%5Cud800%22]%7D",
            "%ff",
        )
    ),
    ("GET", "/images/json?filters=%7B%22dangling%22:[%22x%22]%7D"),
    ("GET", "/images/json?filters=%7B%22name%22:[%22x%22]%7D"),
    ("GET", "/networks?filters=%7B%22x%22:[%22x%22]%7D"),
    ("GET", "/networks/bridge?verbose=x"),
    ("GET", "/events?since=x"),
    ("GET", "/events?since=1.x"),
    ("GET", "/events?until=1."),
    ("GET", "/events?until=.5"),
    ("GET", "/events?since=" + "9" * 5000),
    ("GET", "/events?since=%D9%A1"),
    ("GET", "/events?since=10&until=5"),
    ("GET", "/events?filters=x"),
    ("GET", "/containers/web/logs"),
    ("GET", "/containers/web/logs?stdout=0"),
    ("GET", "/containers/web/logs?stdout=1&since=yesterday"),
    ("GET", "/containers/web/logs?stdout=1&until=-"),
    ("POST", "/containers/web/kill?signal=FOO"),
    ("POST", "/containers/web/kill?signal=0"),
    ("POST", "/containers/web/kill?signal=65"),
    ("POST", "/containers/web/kill?signal=-9"),
    ("POST", "/containers/web/kill?signal=%D9%A1"),
    ("POST", "/containers/web/kill?signal=RTMIN%2B99"),
    ("POST", "/containers/web/kill?signal=RTMIN-1"),
    ("POST", "/containers/web/kill?signal=" + "9" * 10000),
    ("POST", "/containers/web/kill?signal=SIG"),
    ("POST", "/containers/web/kill?signal=%00"),
    ("POST", "/containers/web/stop?t=x"),
    ("POST", "/containers/web/stop?t=1.5"),
    ("POST", "/containers/web/stop?t=-2"),
    ("POST", "/containers/web/stop?t=99999999999"),
    ("POST", "/containers/web/stop?signal=nope"),
    ("POST", "/containers/web/restart?t=x"),
    ("POST", "/containers/web/resize"),
    ("POST", "/containers/web/resize?h=1"),
    ("POST", "/containers/web/resize?h=x&w=1"),
    ("POST", "/containers/web/resize?h=-1&w=1"),
    ("POST", "/containers/web/resize?h=4294967296&w=1"),
    ("POST", "/containers/web/rename"),
    ("POST", "/containers/web/rename?name=.."),
    ("POST", "/containers/web/wait?condition=x"),
    ("POST", "/containers/web/attach?detachKeys=ctrl-"),
    ("POST", "/containers/web/attach?detachKeys=abc"),
    ("POST", "/images/create"),
    ("POST", "/images/busybox/tag"),
    ("POST", "/sampan/images/bootstrap"),
    ("POST", "/sampan/images/bootstrap?recipe=../x"),
    ("GET", "/images/get"),
    ("GET", "/_ping?" + "&".join(f"a{n}=1" for n in range(2000))),
    ("GET", "/version?a=%"),
    ("GET", "/version?a=%00"),
    ("GET", "/version?%ff=1"),
    ("GET", "/v/version"),
    ("GET", "/v1..2/version"),
    ("GET", "/v./version"),
    ("GET", "/v1.2.3.4.5.6/version"),
    ("GET", "/v" + "9" * 5000 + "/version"),
    ("GET", "/v1.50//version"),
    ("GET", "/v99.99/_ping"),
    ("GET", "/%2e%2e/version"),
    ("GET", "/exec/x/json"),
    ("POST", "/exec/x/start"),
    ("POST", "/exec/x/resize?h=1&w=1"),
    ("DELETE", "/containers/x"),
    ("DELETE", "/images/x"),
    ("TRACE", "/version"),
    ("GET", "/containers//json"),
    ("GET", "/images//json"),
    ("BREW", "/pot"),
]
HEADS = [
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET  / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1 x\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"GET / HTTP/1.2\r\n\r\n",
    b"GET / http/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /_ping HTTP/1.1\n\n",
    b"\x16\x03\x01\x02\x00",
    b"\0\0\0\0",
    b"GET /_ping HTTP/1.1\r\nA\r\n\r\n",
    b"GET /_ping HTTP/1.1\r\n: x\r\n\r\n",
    b"GET /_ping HTTP/1.1\r\nA : x\r\n\r\n",
    b"GET /_ping HTTP/1.1\r\nA: x\r\n b\r\n\r\n",
    b"GET /_ping HTTP/1.1\r\nA: \0\r\n\r\n",
    b"GET /_ping HTTP/1.1\r\nA: b\rc\r\n\r\n",
    b"GET /_ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /_\xff HTTP/1.1\r\n\r\n",
    b"GET /a\0 HTTP/1.1\r\n\r\n",
    b"GET ftp://x/ HTTP/1.1\r\n\r\n",
    b"GET * HTTP/1.1\r\n\r\n",
    b"GET _ping HTTP/1.1\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"G\xc3\x89T / HTTP/1.1\r\n\r\n",
    b"GET /_ping HTTP/1.1\r\nExpect: x\r\n\r\n",
    b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
    b"GET /_ping HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n",
    *(
        b"POST /containers/create HTTP/1.1\r\nContent-Type: application/json\r\n" + lines + b"\r\n\r\n"
        for lines in (
            b"Content-Length: x",
            b"Content-Length: -1",
            b"Content-Length: +1",
            b"Content-Length: 1,1",
            b"Content-Length: 0x1",
            b"Content-Length: \xd9\xa1",
            b"Content-Length: " + b"9" * 30,
            b"Content-Length: 0\r\nContent-Length: 1",
            b"Content-Length: 2\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: gzip",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: identity",
            b"Content-Length: 5000000",
            b"Content-Type: text/plain\r\nContent-Length: 2",
            b"Content-Length:",
        )
    ),
    *(
        b"POST /containers/create HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        for body in (
            b"x\r\n",
            b"-1\r\n",
            b"0x2\r\n{}\r\n",
            b" 2\r\n{}\r\n",
            b"2\n{}\n",
            b"2\r\n{}x\r\n",
            b"2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
            b"2;" + b"e" * 300 + b"\r\n{}\r\n",
            b"1" + b"0" * 20 + b"\r\n",
            b"0\r\n\r\n",
            b"2\r\n{}\r\r",
            b"\r\n",
        )
    ),
]
BODIES = [
    ("/containers/create", b"{}", "application/json"),
    ("/containers/create", b'{"Image":"x"}', "text/plain"),
    ("/containers/create", b'{"Image":"x"}', "application/jsonx"),
    ("/containers/create", b'{"Image":"x"}', "application/x-www-form-urlencoded"),
    ("/containers/create", b" " * (4 * 1024 * 1024 + 1), "application/json"),
    ("/containers/create", b"\x1f\x8b\x08\0\0\0\0\0\0\0", "application/json"),
    ("/containers/web/exec", b"{}", "application/json"),
    ("/containers/web/exec", b'{"Cmd":[]}', "application/json"),
    ("/containers/web/exec", b'{"Cmd":"x"}', "application/json"),
    ("/containers/web/exec", b'{"Cmd":["x"],"DetachKeys":"ctrl-"}', "application/json"),
    ("/containers/web/exec", b"", "application/json"),
    ("/containers/web/start", b"12345678", "application/json"),
    ("/exec/x/start", b'{"Detach":1}', "application/json"),
    ("/exec/x/start", b"{", "application/json"),
]


def refused(status: int, body: bytes, began: float) -> None:
    took = time.monotonic() - began
    assert 400 <= status < 500, (status, body[:200])
    assert took < 0.1, took


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with Api(Path(tmp_path_factory.mktemp("api"))) as running:
        yield running
        assert running.ask("GET", "/_ping")[0] == 200
        assert running.call(lambda: len(running.server._open)) <= 1


def test_there_are_more_than_two_hundred() -> None:
    assert len(AMBIGUOUS) + len(NAMES) * 3 + len(CREATE_NAMES) + len(QUERIES) + len(HEADS) + len(BODIES) >= 200


@pytest.mark.parametrize("body", AMBIGUOUS, ids=range(len(AMBIGUOUS)))
def test_row_49_bodies(api: Api, body: bytes) -> None:
    began = time.monotonic()
    status, _, answer = api.ask("POST", "/containers/create", body)
    refused(status, answer, began)
    assert json.loads(answer)["message"]


@pytest.mark.parametrize("template", ["GET /containers/{}/json", "GET /images/{}/json", "POST /containers/{}/start"])
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_row_91_names_in_paths(api: Api, template: str, name: str) -> None:
    method, _, path = template.partition(" ")
    began = time.monotonic()
    status, _, answer = api.ask(method, path.format(name))
    refused(status, answer, began)


@pytest.mark.parametrize("name", CREATE_NAMES, ids=range(len(CREATE_NAMES)))
def test_row_91_new_names(api: Api, name: str) -> None:
    began = time.monotonic()
    status, _, answer = api.ask("POST", f"/containers/create?name={name}", b'{"Image":"x"}')
    refused(status, answer, began)


@pytest.mark.parametrize(("method", "target"), QUERIES, ids=range(len(QUERIES)))
def test_queries_and_paths(api: Api, method: str, target: str) -> None:
    began = time.monotonic()
    status, _, answer = api.ask(method, target)
    refused(status, answer, began)


@pytest.mark.parametrize("data", HEADS, ids=range(len(HEADS)))
def test_row_94_heads(api: Api, data: bytes) -> None:
    began = time.monotonic()
    with api.connect() as sock:
        sock.sendall(data)
        answer = sock.recv(65536)
    refused(int(answer.split(b" ")[1]), answer, began)


@pytest.mark.parametrize(("path", "body", "kind"), BODIES, ids=range(len(BODIES)))
def test_row_86_bodies_and_their_types(api: Api, path: str, body: bytes, kind: str) -> None:
    began = time.monotonic()
    status, _, answer = api.ask("POST", path, body, f"Content-Type: {kind}")
    refused(status, answer, began)
