"""Import of what an address gives: docker import http://..."""

from __future__ import annotations

import gzip
import http.server
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.errors import InvalidRequest, Unavailable
from sampan.oci.digest import of
from support.builds import web
from support.places import Place, collect
from support.tars import archive, member

LAYER = archive(member("etc/from", content=b"an address"))
PACKED = gzip.compress(LAYER)
MOVED = {"/moved": "/root.tar", "/file": "file:///etc/passwd", "/ftp": "ftp://127.0.0.1/x"}


class Files(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path in MOVED:
            self.send_response(302)
            self.send_header("Location", MOVED[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/none" else 200)
        self.close_connection = True
        if self.path == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(PACKED) + PACKED[:-20])
            return
        self.send_header("Content-Length", str(len(PACKED)))
        self.end_headers()
        self.wfile.write(PACKED[:-20] if self.path == "/cut" else PACKED)


@pytest.fixture
def address() -> Iterator[str]:
    with web(Files) as port:
        yield f"127.0.0.1:{port}"


def fetched(place: Place, source: str, **more: Any) -> list[str]:
    wanted = {"repo": "", "tag": "", "message": "", "changes": [], "platform": "", **more}
    return [one.status for one in place.run(collect(place.images.import_from(source, **wanted)))]


@pytest.mark.parametrize("path", ["root.tar", "moved"])
def test_an_address_is_fetched_and_imported(place: Place, address: str, path: str) -> None:
    said = fetched(place, f"http://{address}/{path}", repo="from", tag="web", changes=["CMD true"])
    seen = place.run(place.images.inspect("from:web"))

    assert said == [f"Downloading from http://{address}/{path}", seen.id]
    assert seen.root_fs.layers == [of(LAYER)] and seen.comment == f"Imported from http://{address}/{path}"
    assert place.files("from:web") == {"etc/from": "an address"}


def test_without_a_scheme_it_is_http_as_docker_has_it(place: Place, address: str) -> None:
    assert fetched(place, f"{address}/root.tar")[0] == f"Downloading from http://{address}/root.tar"


@pytest.mark.parametrize(
    ("path", "why", "text"),
    [
        ("cut", Unavailable, "20 bytes are missing"),
        ("chunks", Unavailable, "the answer is cut"),
        ("none", Unavailable, "404"),
        ("file", Unavailable, "not allowed"),
        ("ftp", InvalidRequest, "which is not HTTP"),
    ],
)
def test_what_is_not_given_whole_is_an_error_and_leaves_nothing(
    place: Place, address: str, path: str, why: type[Exception], text: str
) -> None:
    with pytest.raises(why, match=text):
        fetched(place, f"http://{address}/{path}")
    assert place.is_clean()


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc/passwd",
        "ftp://host/x",
        "http://",
        "http://a b/",
        "http://host:port/",
        "http://h/\n",
        f"http://{'a' * 64}/",
        "http://..",
        "http://127.0.0.1:1/\u00e9",
    ],
)
def test_only_http_is_an_address(place: Place, source: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid URL"):
        fetched(place, source)


def test_nobody_listens(place: Place) -> None:
    with pytest.raises(Unavailable, match="cannot import from http://127.0.0.1:1/x"):
        fetched(place, "http://127.0.0.1:1/x")
