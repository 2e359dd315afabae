"""TLS on TCP: who has no certificate of the CA's is nobody; takeovers and ends work as without (SECURITY.md rows 90, 94)."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api, head_of, until_end

from fakes.engine import ID
from sampan.api import server
from sampan.client.api import Client
from sampan.client.errors import ClientError
from sampan.errors import InvalidRequest
from sampan.wire.hosts import TlsFiles

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
SUBJECT = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem; server, client: signed by it; stranger: signed by itself."""
    folder = Path(tmp_path_factory.mktemp("pem"))

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", "req", "-x509", *EC, *arguments], cwd=folder, check=True, capture_output=True)

    openssl("-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        openssl(*SUBJECT, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl(*SUBJECT, "-keyout", "stranger.key", "-out", "stranger.pem")
    return folder


def files(pem: Path, name: str, ca: str = "ca", verify: bool = True) -> TlsFiles:
    return TlsFiles(str(pem / f"{ca}.pem") if ca else "", str(pem / f"{name}.pem"), str(pem / f"{name}.key"), verify)


@pytest.fixture
def api(tmp_path: Path, pem: Path) -> Iterator[Api]:
    with Api(tmp_path, ["tcp://127.0.0.1:0"], files(pem, "server")) as running:
        yield running


def url(api: Api) -> str:
    return f"tcp://127.0.0.1:{api.server.ports()[0]}"


def connected(api: Api, pem: Path) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", api.server.ports()[0]), 10)
    return files(pem, "client").client().wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_client_with_the_cas_certificate_is_served(api: Api, pem: Path) -> None:
    client = Client(url(api), files(pem, "client"))

    assert client.system.version().version
    assert client.containers.inspect("web").name == "/web"


def test_row_90_who_shows_no_certificate_of_the_cas_is_refused(api: Api, pem: Path) -> None:
    for tls in (TlsFiles(str(pem / "ca.pem")), files(pem, "stranger"), None):
        with pytest.raises(ClientError):
            Client(url(api), tls).system.version()
    assert api.engine.jobs == []
    assert Client(url(api), files(pem, "client")).system.version().version


def test_a_server_that_the_ca_did_not_sign_is_not_spoken_to(api: Api, pem: Path) -> None:
    with pytest.raises(ClientError):
        Client(url(api), files(pem, "client", ca="stranger")).system.version()
    assert Client(url(api), files(pem, "client", ca="stranger", verify=False)).system.version().version


def test_a_takeover_over_tls_carries_typed_ahead_bytes_and_megabytes(api: Api, pem: Path) -> None:
    data = bytes(range(256)) * 8192
    with connected(api, pem) as sock:
        head = b"POST /exec/%b/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n" % ID.encode()
        sock.sendall(head + b"Upgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}early")
        assert head_of(sock).startswith(b"HTTP/1.1 101 ")
        api.call(api.engine.execs.started.wait)
        far = api.engine.execs.streams[0].far
        assert far.recv(10) == b"early"

        def answer() -> None:
            far.sendall(data)
            far.close()

        writing = threading.Thread(target=answer)
        writing.start()
        assert until_end(sock) == data
        writing.join(10)


def test_a_stream_over_tls_ends_with_its_client(api: Api, pem: Path) -> None:
    with connected(api, pem) as sock:
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        head_of(sock)
    api.call(api.engine.system.events_closed.wait)


def test_row_94_a_handshake_that_does_not_come_is_given_up(tmp_path: Path, pem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_DEADLINE", 0.2)
    with Api(tmp_path, ["tcp://127.0.0.1:0"], files(pem, "server")) as api:
        with socket.create_connection(("127.0.0.1", api.server.ports()[0]), 10) as silent:
            assert silent.recv(10) == b""
        assert Client(url(api), files(pem, "client")).system.version().version


def test_files_that_cannot_be_used_are_named(pem: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="none.pem"):
        TlsFiles("", str(tmp_path / "none.pem"), str(tmp_path / "none.key")).server()
    with pytest.raises(InvalidRequest, match="ca.key"):
        TlsFiles(str(pem / "ca.key"), str(pem / "server.pem"), str(pem / "server.key")).server()
    with pytest.raises(InvalidRequest):
        asyncio.run(server.serve(None, ["tcp://127.0.0.1:0"], TlsFiles("", str(pem / "ca.pem"), "")))  # type: ignore[arg-type]
