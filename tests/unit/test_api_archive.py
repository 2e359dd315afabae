"""The endpoints on a container's files, to the byte."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api

from sampan.wire.archive import Change


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as made:
        yield made


def test_head_has_the_path_s_stat_in_a_header_and_no_body(api: Api) -> None:
    status, headers, body = api.ask("HEAD", "/v1.41/containers/web/archive?path=/d")

    stat = json.loads(base64.b64decode(headers["x-docker-container-path-stat"]))
    assert (status, body) == (200, b"")
    assert stat == {"name": "d", "size": 4096, "mode": 2147484141, "mtime": "2026-11-24T02:00:54.16402812Z", "linkTarget": ""}
    assert api.ask("HEAD", "/v1.41/containers/web/archive")[0] == 400
    assert api.ask("HEAD", "/v1.41/containers/nope/archive?path=/d")[0] == 404


def test_get_streams_a_tar_with_the_stat_and_closes_it(api: Api) -> None:
    status, headers, body = api.ask("GET", "/v1.41/containers/web/archive?path=/d")

    assert (status, headers["content-type"]) == (200, "application/x-tar")
    assert "x-docker-container-path-stat" in headers
    assert b"a" * 512 in body and b"b" * 512 in body
    assert api.engine.containers.out[0].closed


def test_put_hands_over_the_body_and_both_flags(api: Api) -> None:
    target = "/v1.41/containers/web/archive?path=/d&noOverwriteDirNonDir=1&copyUIDGID=true"

    status, _, body = api.ask("PUT", target, b"tar", "Content-Type: application/x-tar")

    assert (status, body) == (200, b"")
    assert api.engine.containers.calls[-1] == ("copy_in", ("/d", b"tar", True, True))


def test_export_is_an_octet_stream(api: Api) -> None:
    status, headers, _ = api.ask("GET", "/v1.41/containers/web/export")

    assert (status, headers["content-type"]) == (200, "application/octet-stream")


def test_changes_are_numbers_and_null_when_there_are_none(api: Api) -> None:
    assert api.ask("GET", "/v1.41/containers/web/changes")[2] == b"null\n"

    api.engine.containers.changed = [Change(path="/etc", kind=0), Change(path="/etc/x", kind=2)]

    assert json.loads(api.ask("GET", "/v1.41/containers/web/changes")[2]) == [
        {"Path": "/etc", "Kind": 0},
        {"Path": "/etc/x", "Kind": 2},
    ]


def test_commit_hands_over_query_and_body_and_answers_with_the_id(api: Api) -> None:
    target = "/v1.41/commit?container=web&repo=r&tag=t&comment=c&author=a&pause=0&changes=ENV%20A=1&changes=CMD%20x%0AUSER%20y"

    for body, user in ((b"null\n", ""), (b'{"User": "1"}', "1"), (None, "")):
        status, _, answer = api.ask("POST", target, body)
        name, (options, config) = api.engine.containers.calls[-1]
        assert (status, json.loads(answer)["Id"][:7], name, config.user) == (201, "sha256:", "commit", user)
    assert (options.repo, options.tag, options.comment, options.author, options.pause) == ("r", "t", "c", "a", False)
    assert options.changes == ["ENV A=1", "CMD x", "USER y"]
    assert api.ask("POST", "/v1.41/commit")[0] == 400 and api.ask("POST", "/v1.41/commit?container=nope")[0] == 404
