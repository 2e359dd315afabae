"""Transport, routing, versions, refusals (engine-api 1)."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api, head_of, until_end

from sampan import errors
from sampan.api.errors import STATUS, status_of
from sampan.api.listeners import open_sockets
from sampan.errors import Conflict, InvalidRequest
from sampan.wire import images as i
from sampan.wire.hosts import parse


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


def test_every_kind_of_refusal_has_a_status() -> None:
    for kind in errors.SampanError.__subclasses__():
        if kind.__module__ == "sampan.errors":
            assert kind in STATUS
    assert status_of(RuntimeError()) == 500
    assert status_of(errors.StepFailed("exec", 2, "")) == 400


def test_ping_has_the_headers_that_clients_read(api: Api) -> None:
    status, headers, body = api.ask("GET", "/_ping")
    assert (status, body) == (200, b"OK")
    assert headers["api-version"] == "1.50"
    assert headers["ostype"] == "linux"
    assert headers["docker-experimental"] == "false"
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-store, must-revalidate"
    status, headers, body = api.ask("HEAD", "/v1.41/_ping")
    assert (status, headers["content-length"], body) == (200, "0", b"")


def test_there_is_no_405(api: Api) -> None:
    for method, path in (
        ("POST", "/_ping"),
        ("GET", "/nothing"),
        ("DELETE", "/version"),
        ("GET", "//v1.4/./containers"),
    ):
        status, headers, body = api.ask(method, path)
        assert (status, body) == (404, b'{"message":"page not found"}\n')
        assert "api-version" not in headers
    assert api.ask("OPTIONS", "/anything")[0] == 200


def test_versions_are_negotiated_by_number(api: Api) -> None:
    status, headers, body = api.ask("GET", "/v1.9/version")
    assert status == 400
    assert headers["content-type"].startswith("text/plain")
    assert body.startswith(b"client version 1.9 is too old. Minimum supported API version is 1.24")
    status, headers, body = api.ask("GET", "/v1.51/version")
    assert (status, headers["content-type"]) == (400, "application/json")
    assert json.loads(body)["message"] == "client version 1.51 is too new. Maximum supported API version is 1.50"
    assert api.ask("GET", "/v1.24/version")[0] == 200
    message = json.loads(api.ask("POST", "/v1.24/containers/prune")[2])["message"]
    assert message == "POST /containers/prune requires minimum API version 1.25"


def test_names_may_hold_slashes_and_escapes(api: Api) -> None:
    assert api.ask("GET", "/v1.50/images/registry:5000/a/b:tag/json")[0] == 200
    assert api.ask("GET", "/v1.50/images/registry%3A5000%2Fa%2Fb:tag/json")[0] == 200
    assert json.loads(api.ask("GET", "/networks/")[2])[0]["Name"] == "bridge"
    assert json.loads(api.ask("GET", "/containers//json")[2])["message"] == 'invalid name or ID supplied: ""'


def test_errors_are_json_with_exactly_this_content_type(api: Api) -> None:
    status, headers, body = api.ask("GET", "/containers/nope/json")
    assert (status, headers["content-type"]) == (404, "application/json")
    assert body == b'{"message":"No such container: nope"}\n'
    assert api.ask("POST", "/containers/web/start")[0] == 304


def test_an_unknown_exception_is_a_500_without_its_traceback(api: Api) -> None:
    api.engine.containers.error = RuntimeError("secret")
    status, _, body = api.ask("GET", "/containers/web/json")
    assert status == 500
    assert b"secret" not in body and b"Traceback" not in body


def test_every_request_is_a_job_but_the_cheap_reads(api: Api) -> None:
    api.ask("GET", "/_ping")
    api.ask("POST", "/containers/web/kill?signal=TERM")
    api.ask("GET", "/containers/nope/json")
    assert api.engine.jobs == ["+kill", "-kill OK", "+container_inspect", "-container_inspect ERR"]
    assert api.engine.arguments[0] == {"name": "web", "signal": "TERM"}


def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    one = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
    last = b"GET /version HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    answer = api.raw(one * 3 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.rstrip().endswith(b"}")


def test_a_body_nobody_reads_does_not_become_the_next_request(api: Api) -> None:
    evil = b"GET /version HTTP/1.1\r\nHost: d\r\n\r\n"
    first = b"POST /containers/nope/kill HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(evil)
    last = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    answer = api.raw(first + evil + last)
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.endswith(b"OK")


def test_http_1_0_is_answered_and_closed(api: Api) -> None:
    assert api.raw(b"GET /_ping HTTP/1.0\r\n\r\n").endswith(b"OK")
    assert api.raw(b"GET /events?until=5 HTTP/1.0\r\n\r\n").split(b"\r\n\r\n")[1].startswith(b'{"Type"')


def test_row_90_browsers_are_refused(api: Api) -> None:
    assert api.ask("POST", "/containers/create", b"{}", "Origin: http://evil")[0] == 403
    assert api.ask("GET", "/version", None, "Origin: null")[0] == 403


def test_row_90_rebound_names_are_refused_on_loopback_tcp(tmp_path: Path) -> None:
    with Api(tmp_path, ["tcp://127.0.0.1:0"]) as api:
        port = api.server.ports()[0]
        for host, status in (
            ("evil.example:80", b"403"),
            (f"127.0.0.1:{port}", b"200"),
            ("localhost", b"200"),
            ("[::1]:1", b"200"),
        ):
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.sendall(f"GET /_ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                assert until_end(sock).split(b" ")[1] == status, host


def test_row_90_an_open_tcp_address_is_warned_about_loudly(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Api(tmp_path, ["tcp://0.0.0.0:0"]):
        pass
    assert "[!] DON'T BIND ON ANOTHER IP ADDRESS THAN 127.0.0.1" in capfd.readouterr().err
    with Api(tmp_path, ["tcp://127.0.0.1:0"]):
        pass
    assert "DON'T BIND" not in capfd.readouterr().err


def test_row_87_the_socket_is_0660_and_goes_with_the_server(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        found = os.stat(api.path)
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o660
    assert not os.path.lexists(api.path)


def test_row_87_symlinks_files_and_live_sockets_are_refused_stale_ones_replaced(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "s.sock"
    address = parse(f"unix://{path}")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        open_sockets(address)
    path.unlink()
    path.write_text("")
    with pytest.raises(Conflict):
        open_sockets(address)
    path.unlink()
    first = open_sockets(address)[0]
    with pytest.raises(Conflict, match="in use"):
        open_sockets(address)
    first.close()
    open_sockets(address)[0].close()
    tmp_path.chmod(0o777)
    with pytest.raises(Conflict, match="others may write"):
        open_sockets(address)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("text", ["", "x", "unix://a", "http://a", "tcp://1:x", "tcp://a:99999", "unix:///" + "a" * 200, "fd://x"])
def test_a_bad_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(text)


def test_hosts_have_docker_s_defaults() -> None:
    assert parse("tcp://").host == "127.0.0.1"
    assert parse("tcp://:99").port == 99
    assert parse("tcp://[::1]").host == "::1"
    assert parse("tcp://[::1]:5").loopback
    assert parse("tcp://0.0.0.0", tls=True).port == 2376


def test_events_begin_at_once_and_end_with_the_client(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        head = head_of(sock)
        assert b"Transfer-Encoding: chunked\r\n" in head and b"Content-Type: application/json\r\n" in head
        assert b'"Action":"start"' in sock.recv(65536)
    api.call(api.engine.system.events_closed.wait)


def test_wait_sends_its_head_before_the_exit(api: Api) -> None:
    from sampan.wire.containers import WaitResult

    with api.connect() as sock:
        sock.sendall(b"POST /containers/web/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n")
        assert head_of(sock).startswith(b"HTTP/1.1 200 OK\r\n")
        wait = api.engine.containers.waits[0]
        api.call(lambda: wait.future.set_result(WaitResult(status_code=7)))
        assert sock.recv(65536).split(b"\r\n")[1] == b'{"StatusCode":7}\n'
    assert api.ask("POST", "/containers/web/wait?condition=never")[0] == 400
    assert api.ask("POST", "/containers/nope/wait")[0] == 404


def test_logs_send_a_chunk_per_frame(api: Api) -> None:
    answer = api.raw(b"GET /v1.42/containers/web/logs?stdout=1&tail=x HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/vnd.docker.multiplexed-stream" in head
    assert body.startswith(b"b\r\n\x01\0\0\0\0\0\0\x03hi\n\r\n") and body.endswith(b"0\r\n\r\n")
    assert b"raw-stream" in api.raw(b"GET /v1.41/containers/web/logs?stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
    assert api.ask("GET", "/containers/web/logs")[0] == 400


def test_row_95_followers_that_vanish_leave_nothing(api: Api) -> None:
    for _ in range(50):
        with api.connect() as sock:
            sock.sendall(b"GET /containers/web/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
            head_of(sock)
    for logs in api.engine.containers.open_logs:
        api.call(logs.closed.wait)
    assert api.ask("GET", "/_ping")[0] == 200
    assert api.call(lambda: len(api.server._open)) <= 1


def test_a_chunked_upload_is_a_file_for_the_engine(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        piece = b"x" * 100_000
        for _ in range(80):
            sock.sendall(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
        sock.sendall(b"0\r\n\r\n")
        answer = until_end(sock)
    assert api.engine.images.read == 8_000_000
    assert b'{"stream":"Loaded image: \\u003cbusybox\\u003e\\n"}\r\n' in answer


def test_expect_100_continue_is_answered_when_the_body_is_wanted(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(
            b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert head_of(sock) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert until_end(sock).startswith(b"HTTP/1.1 200 OK")
    assert api.engine.images.read == 3
    with api.connect() as sock:
        sock.sendall(b"POST /containers/web/start HTTP/1.1\r\nHost: d\r\nContent-Length: 30\r\nExpect: 100-continue\r\n\r\n")
        assert until_end(sock).startswith(b"HTTP/1.1 400")


def test_a_failed_load_is_in_band_a_failed_import_is_a_status(api: Api) -> None:
    api.engine.images.error = InvalidRequest("bad tar")
    status, _, body = api.ask("POST", "/images/load", b"xyz", "Content-Type: application/x-tar")
    assert status == 200
    assert b'"error":"bad tar","errorDetail":{"message":"bad tar"}' in body
    status, _, body = api.ask("POST", "/images/create?fromSrc=-", b"xyz", "Content-Type: application/x-tar")
    assert (status, json.loads(body)["message"]) == (400, "bad tar")


def test_a_client_that_vanishes_in_an_upload_ends_it(api: Api) -> None:
    with api.connect() as sock:
        sock.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 1000\r\n\r\nabc")
        head_of(sock)
    assert api.ask("GET", "/_ping")[0] == 200
    assert api.engine.images.read == -1


def test_row_94_slow_clients_do_not_make_others_wait(api: Api) -> None:
    slow = [api.connect() for _ in range(200)]
    try:
        for sock in slow:
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost:")
        while api.call(lambda: len(api.server._open)) < 200:
            pass
        began = time.process_time()  # ours and the server's: a busy host is not its fault
        assert api.ask("GET", "/_ping")[0] == 200
        assert time.process_time() - began < 0.1
    finally:
        for sock in slow:
            sock.close()


def test_row_94_a_body_of_tiny_chunks_and_a_flood_of_headers_are_bounded(api: Api) -> None:
    head = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nConnection: close\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    body = b'{"Image":"x","Cmd":["%b"]}' % (b"y" * 20000)
    answer = api.raw(head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 201")
    assert api.raw(b"GET /_ping HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n").startswith(b"HTTP/1.1 431")
    assert api.raw(b"GET /_ping HTTP/1.1\r\na: " + b"b" * 70000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431")


def test_older_versions_get_the_shapes_they_know(api: Api) -> None:
    new = json.loads(api.ask("GET", "/images/json?all=1")[2])[0]
    old = json.loads(api.ask("GET", "/v1.42/images/json?all=1")[2])[0]
    assert new["RepoTags"] == [] and "VirtualSize" not in new
    assert old["RepoTags"] == ["<none>:<none>"] and old["VirtualSize"] == 5
    old = json.loads(api.ask("GET", "/v1.44/containers/web/json")[2])
    assert old["NetworkSettings"]["Networks"]["mine"]["Aliases"] == ["a", "f" * 12]
    body = b'{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":null}}}'
    assert api.ask("POST", "/v1.43/containers/create", body)[0] == 400
    assert api.ask("POST", "/v1.44/containers/create", body)[0] == 201


def test_close_ends_streams_and_lets_work_finish(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        sock = api.connect()
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        head_of(sock)
    with sock:
        assert not until_end(sock).endswith(b"0\r\n\r\n")


def test_a_progress_message_leaves_out_what_is_unset() -> None:
    from sampan.api.progress import encode

    assert encode(i.Progress(status="a&b", progress_detail=i.ProgressDetail())) == b'{"status":"a\\u0026b","progressDetail":{}}\r\n'


@pytest.mark.parametrize(
    ("method", "path", "since", "refs"),
    [
        ("GET", "/images/a:1/json?platform=p", "1.49", ["a:1"]),
        ("GET", "/images/a:1/history?platform=p", "1.48", ["a:1"]),
        ("GET", "/images/a:1/get?platform=p", "1.48", ["a:1"]),
        ("GET", "/images/get?names=a:1&names=b&platform=p", "1.48", ["a:1", "b"]),
        ("POST", "/images/host/a/push?tag=2&platform=p", "1.46", ["host/a:2"]),
        ("DELETE", "/images/a:1?platforms=p", "1.50", ["a:1"]),
    ],
)
def test_a_platform_that_is_asked_for_is_looked_for(api: Api, method: str, path: str, since: str, refs: list[str]) -> None:
    status, _, body = api.ask(method, f"/v{since}{path}")
    assert (status, json.loads(body)["message"]) == (404, f"{refs} ['p']")
    before = f"1.{int(since[2:]) - 1}"
    assert b"['p']" not in api.ask(method, f"/v{before}{path}")[2]


def test_an_address_is_imported_from(api: Api) -> None:
    status, _, body = api.ask("POST", "/images/create?fromSrc=http://h/x.tar&repo=a")
    assert status == 200 and b"Downloading from http://h/x.tar" in body
