"""A real daemon under what no client should send: clear errors, no 500, no hang, and nothing left afterwards."""

from __future__ import annotations

import json
import os
import random
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from support import malformed, nonsense
from support.daemon import Daemon
from support.holds import Holds, nothing_more_than

PATIENCE = 20.0


@pytest.fixture(scope="module")
def target() -> Iterator[Daemon]:
    """A daemon of the module's own, so that what it holds can be counted."""
    made = Daemon().start()
    try:
        made.import_busybox()
        made.create("true", name="web")
        yield made
        assert "Traceback" not in made.log
    finally:
        made.close()


def send(daemon: Daemon, data: bytes, *, over: bool = False) -> bytes:
    """Send bytes, with `over` say that nothing more comes, return everything until the server closes."""
    answer = b""
    deadline = time.monotonic() + PATIENCE
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.sock))
        sock.setblocking(False)
        left = memoryview(data)
        while (rest := deadline - time.monotonic()) > 0:
            readable, writable, _ = select.select([sock], [sock] if left else [], [], rest)
            if writable:
                try:
                    left = left[sock.send(left) :]
                    if not left and over:
                        sock.shutdown(socket.SHUT_WR)
                except (BrokenPipeError, ConnectionResetError):
                    left = memoryview(b"")
            if readable:
                try:
                    piece = sock.recv(1 << 16)
                except ConnectionResetError:  # told before the server's last words (unix(7)): they are still there
                    continue
                if not piece:
                    return answer
                answer += piece
    raise AssertionError(f"no end of the answer: {answer[:200]!r}")


def ask(daemon: Daemon, what: str, data: bytes) -> bytes:
    return send(daemon, data, over=what.startswith("head"))


def judge(what: str, answer: bytes, *, head_only: bool) -> None:
    if head_only and not answer:
        return  # closed without a word: it was no request
    status = int(answer.split(b" ", 2)[1])
    if head_only:
        assert status < 500 or status in (501, 505), (what, answer[:300])
        return
    assert 400 <= status < 500, (what, answer[:300])
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"application/json" in head:
        body = json.loads(body)["message"]
    assert len(body) > 8, (what, answer[:300])  # attach says it in plain text, as Docker's does


def test_row_64_every_malformed_request_is_refused_and_leaves_nothing(target: Daemon) -> None:
    corpus = list(malformed.requests())
    assert len(corpus) >= 300
    for what, data in corpus:  # the first round makes what a daemon makes once: threads, modules
        judge(what, ask(target, what, data), head_only=what.startswith("head"))
    before = Holds.now(target)
    pid = target.pid

    for what, data in corpus:
        began = time.monotonic()
        judge(what, ask(target, what, data), head_only=what.startswith("head"))
        assert time.monotonic() - began < 5, what

    nothing_more_than(target, before)
    assert Path(f"/proc/{pid}").exists() and target.ok("GET", "/_ping")


def test_row_64_a_request_that_is_cut_anywhere_leaves_nothing(target: Daemon) -> None:
    body = json.dumps({"Image": "busybox", "Cmd": ["true"], "Labels": {"x": "y" * 3000}}).encode()
    whole = malformed.request("POST", "/containers/create?name=cut", body)
    chunked = whole.replace(f"Content-Length: {len(body)}".encode(), b"Transfer-Encoding: chunked").partition(b"\r\n\r\n")[0]
    whole2 = chunked + b"\r\n\r\n%x\r\n%s\r\n" % (len(body), body)  # and never the last chunk
    send(target, whole[:-1], over=True)
    before = Holds.now(target)

    for data in (whole, whole2):
        for cut in [*range(1, len(data), 97), len(data) - 1]:
            if cut < len(data):
                send(target, data[:cut], over=True)

    nothing_more_than(target, before)


@pytest.mark.timeout(600)
def test_row_64_settings_that_mean_nothing_are_refused_or_harmless(target: Daemon) -> None:
    """Each is created and, if that was allowed, started: 4xx or a container that ran, and nothing stays of either."""

    def attempt(what: str, body: dict[str, object]) -> None:
        answer = target.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], **body})
        assert answer.status < 500 or answer.status == 501, (what, answer)
        if answer.status != 201:
            return
        container = answer.json["Id"]
        try:
            started = target.call("POST", f"/containers/{container}/start")
            assert started.status < 500, (what, started)
        finally:
            target.ok("DELETE", f"/containers/{container}?force=1&v=1")
            target.ok("POST", '/volumes/prune?filters={"all":["true"]}')  # volumes with a name stay

    corpus = list(nonsense.bodies())
    if not os.environ.get("SAMPAN_TEST_LONG"):
        corpus = random.Random(2).sample(corpus, 400)
    for what, body in corpus[:40]:
        attempt(what, body)
    before = Holds.now(target)
    for what, body in corpus:
        attempt(what, body)
    nothing_more_than(target, before)


@pytest.mark.timeout(600)
def test_row_64_no_request_that_means_nothing_ends_in_a_500(target: Daemon) -> None:
    """Networks, volumes, execs, updates, commits, archives, builds, prunes: 4xx, or what was made can go again."""
    running = target.create("sleep", "1000", name="run")
    target.ok("POST", f"/containers/{running}/start")

    def attempt(method: str, path: str, body: dict[str, object] | bytes | None) -> None:
        headers = {"Content-Type": "application/x-tar"} if isinstance(body, bytes) else None
        answer = target.call(method, path, body, headers=headers)
        what = (method, path[:120], str(body)[:200], answer)
        # 501: not here; 503: only in a swarm.  As with Docker, a registry that is not there and a missing Dockerfile are 500.
        as_docker = path == "/auth" or b"Cannot locate specified Dockerfile" in answer.body
        assert answer.status < 500 or answer.status in (501, 503) or as_docker, what
        if "/rename" in path and answer.status == 204:
            target.ok("POST", f"/containers/{running}/rename?name=run")
        if answer.status != 201:
            return
        if path.endswith("/exec"):
            assert target.call("POST", f"/exec/{answer.json['Id']}/start", {"Detach": True}).status < 500, what
        elif path == "/networks/create":
            target.ok("DELETE", f"/networks/{answer.json['Id']}")
        elif path == "/volumes/create":
            target.ok("DELETE", f"/volumes/{quote(answer.json['Name'], safe='')}")
        elif path.startswith("/commit"):
            target.ok("DELETE", f"/images/{answer.json['Id']}?force=1")

    corpus = list(nonsense.requests())
    if not os.environ.get("SAMPAN_TEST_LONG"):
        corpus = random.Random(3).sample(corpus, 600)
    for method, path, body in corpus[:60]:
        attempt(method, path, body)
    before = Holds.now(target)
    for method, path, body in corpus:
        attempt(method, path, body)
    nothing_more_than(target, before)
    target.ok("DELETE", f"/containers/{running}?force=1")
