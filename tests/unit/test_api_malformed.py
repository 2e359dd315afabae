"""Two hundred and more things that no client should send: each is a clear 4xx in less than 100 ms, none a 500."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api

from support.malformed import AMBIGUOUS, BODIES, CREATE_NAMES, HEADS, NAMES, PATHS, QUERIES


def refused(status: int, body: bytes, began: float) -> None:
    took = time.process_time() - began  # ours and the server's: a busy host is not its fault
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
    began = time.process_time()
    status, _, answer = api.ask("POST", "/containers/create", body)
    refused(status, answer, began)
    assert json.loads(answer)["message"]


@pytest.mark.parametrize("template", PATHS)
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_row_91_names_in_paths(api: Api, template: str, name: str) -> None:
    method, _, path = template.partition(" ")
    began = time.process_time()
    status, _, answer = api.ask(method, path.format(name))
    refused(status, answer, began)


@pytest.mark.parametrize("name", CREATE_NAMES, ids=range(len(CREATE_NAMES)))
def test_row_91_new_names(api: Api, name: str) -> None:
    began = time.process_time()
    status, _, answer = api.ask("POST", f"/containers/create?name={name}", b'{"Image":"x"}')
    refused(status, answer, began)


@pytest.mark.parametrize(("method", "target"), QUERIES, ids=range(len(QUERIES)))
def test_queries_and_paths(api: Api, method: str, target: str) -> None:
    began = time.process_time()
    status, _, answer = api.ask(method, target)
    refused(status, answer, began)


@pytest.mark.parametrize("data", HEADS, ids=range(len(HEADS)))
def test_row_94_heads(api: Api, data: bytes) -> None:
    began = time.process_time()
    with api.connect() as sock:
        sock.sendall(data)
        answer = sock.recv(65536)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["message"]
    refused(int(answer.split(b" ")[1]), answer, began)


@pytest.mark.parametrize(("path", "body", "kind"), BODIES, ids=range(len(BODIES)))
def test_row_86_bodies_and_their_types(api: Api, path: str, body: bytes, kind: str) -> None:
    began = time.process_time()
    status, _, answer = api.ask("POST", path, body, f"Content-Type: {kind}")
    refused(status, answer, began)
