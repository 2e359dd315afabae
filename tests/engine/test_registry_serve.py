"""`sampan registry serve`: the distribution specification's promises, access, and clients that behave badly."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from sampan import registryd
from sampan.content.blobs import Blobs
from sampan.content.repositories import UPLOAD_LIFE, Repositories
from sampan.errors import NotFound
from sampan.registry.server import app, blobs
from sampan.registry.server.access import Access, Passwords
from sampan.registry.server.faults import Fault
from sampan.state import State
from support.places import Place
from support.registry import HTPASSWD, INDEX, MANIFEST, Authority, basic, config_of, descriptor, digest
from support.served import Served
from support.tars import archive, directory, member

BASE = archive(directory("etc/"), member("etc/a", content=b"base"))


@pytest.fixture(scope="module")
def registry() -> Iterator[Served]:
    with Served() as made:
        yield made


def upload(registry: Served, name: str, content: bytes) -> str:
    status, headers, _ = registry.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
    assert status == 202
    status, headers, body = registry.ask("PUT", f"{headers['Location']}?digest={digest(content)}", content)
    assert (status, headers["Docker-Content-Digest"]) == (201, digest(content)), body
    return digest(content)


def manifest(registry: Served, name: str, tag: str, *blobs: bytes, **more: Any) -> bytes:
    config = config_of()
    for blob in (config, *blobs):
        upload(registry, name, blob)
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", blob) for blob in blobs], **more}  # fmt: skip
    content = json.dumps(body).encode()
    status, headers, answer = registry.ask("PUT", f"/v2/{name}/manifests/{tag or digest(content)}", content, Content_Type=MANIFEST)
    assert (status, headers["Docker-Content-Digest"]) == (201, digest(content)), answer
    return content


def code(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[2])["errors"][0]["code"]


def test_the_base_answers(registry: Served) -> None:
    status, headers, body = registry.ask("GET", "/v2/")
    assert (status, body, headers["Docker-Distribution-API-Version"]) == (200, b"{}", "registry/2.0")


def test_blobs_go_in_whole_and_come_out_in_ranges(registry: Served) -> None:
    content = os.urandom(300_000)
    name = upload(registry, "a/b", content)
    path = f"/v2/a/b/blobs/{name}"

    assert registry.ask("GET", path)[2] == content
    status, headers, body = registry.ask("HEAD", path)
    assert (status, headers["Content-Length"], body) == (200, "300000", b"")
    status, headers, body = registry.ask("GET", path, Range="bytes=299990-")
    assert (status, headers["Content-Range"], body) == (206, "bytes 299990-299999/300000", content[-10:])
    assert registry.ask("GET", path, Range="bytes=5-9")[2] == content[5:10]
    assert registry.ask("GET", path, Range="bytes=-4")[2] == content[-4:]
    assert code(registry.ask("GET", path, Range="bytes=300000-")) == (416, "RANGE_INVALID")
    assert code(registry.ask("GET", f"/v2/other/blobs/{name}")) == (404, "BLOB_UNKNOWN")
    status, headers, _ = registry.ask("POST", f"/v2/a/b/blobs/uploads/?digest={digest(b'x')}", b"x")
    assert status == 201 and registry.ask("GET", headers["Location"])[2] == b"x"


def test_chunks_come_in_order_and_an_upload_survives_a_kill(tmp_path: Path) -> None:
    registry = Served().start()
    try:
        content = os.urandom(200_000)
        location = registry.ask("POST", "/v2/a/blobs/uploads/", b"")[1]["Location"]
        status, headers, _ = registry.ask("PATCH", location, content[:100_000], Content_Range="0-99999")
        assert (status, headers.get("Range")) == (202, "0-99999")
        status, headers, _ = registry.ask("PATCH", location, content[:5], Content_Range="0-4")
        assert (status, headers["Range"]) == (416, "0-99999")
        registry.stop(signal.SIGKILL)
        registry.start()
        status, headers, _ = registry.ask("GET", location)
        assert (status, headers["Range"]) == (204, "0-99999")
        status, headers, _ = registry.ask("PATCH", headers["Location"], content[100_000:150_000], Content_Range="100000-149999")
        assert status == 202
        status, _, body = registry.ask("PUT", f"{headers['Location']}?digest={digest(content)}", content[150_000:])
        assert status == 201, body
        assert registry.ask("GET", f"/v2/a/blobs/{digest(content)}")[2] == content
        other = registry.ask("POST", "/v2/a/blobs/uploads/", b"")[1]["Location"]
        assert registry.ask("DELETE", other)[0] == 204
        assert code(registry.ask("GET", other)) == (404, "BLOB_UPLOAD_UNKNOWN")
    finally:
        registry.__exit__()


def test_a_mount_needs_a_repository_that_has_the_blob(registry: Served) -> None:
    name = upload(registry, "source", b"to be mounted")
    status, headers, _ = registry.ask("POST", f"/v2/target/blobs/uploads/?mount={name}&from=source", b"")
    assert (status, headers["Location"]) == (201, f"/v2/target/blobs/{name}")
    assert registry.ask("HEAD", f"/v2/target/blobs/{name}")[0] == 200
    assert registry.ask("POST", f"/v2/target/blobs/uploads/?mount={digest(b'no')}&from=source", b"")[0] == 202
    assert registry.ask("POST", f"/v2/third/blobs/uploads/?mount={name}&from=nowhere", b"")[0] == 202
    assert registry.ask("DELETE", f"/v2/target/blobs/{name}")[0] == 202
    assert code(registry.ask("DELETE", f"/v2/target/blobs/{name}")) == (404, "BLOB_UNKNOWN")
    assert registry.ask("GET", f"/v2/source/blobs/{name}")[2] == b"to be mounted"  # another repository has it still


def test_manifests_tags_and_pages(registry: Served) -> None:
    content = manifest(registry, "m/n", "v1", b"layer")
    for tag in ("v2", "v3"):
        registry.ask("PUT", f"/v2/m/n/manifests/{tag}", content, Content_Type=MANIFEST)
    status, headers, body = registry.ask("GET", "/v2/m/n/manifests/v1")
    assert (status, headers["Content-Type"], headers["Docker-Content-Digest"], body) == (200, MANIFEST, digest(content), content)
    assert registry.ask("HEAD", f"/v2/m/n/manifests/{digest(content)}")[1]["Content-Length"] == str(len(content))
    assert json.loads(registry.ask("GET", "/v2/m/n/tags/list")[2]) == {"name": "m/n", "tags": ["v1", "v2", "v3"]}
    status, headers, body = registry.ask("GET", "/v2/m/n/tags/list?n=2")
    assert json.loads(body)["tags"] == ["v1", "v2"]
    assert headers["Link"] == '</v2/m/n/tags/list?n=2&last=v2>; rel="next"'
    assert json.loads(registry.ask("GET", "/v2/m/n/tags/list?n=2&last=v2")[2])["tags"] == ["v3"]
    assert json.loads(registry.ask("GET", "/v2/m/n/tags/list?n=0")[2])["tags"] == []
    assert "m/n" in json.loads(registry.ask("GET", "/v2/_catalog")[2])["repositories"]
    assert registry.ask("DELETE", "/v2/m/n/manifests/v3")[0] == 202
    assert code(registry.ask("GET", "/v2/m/n/manifests/v3")) == (404, "MANIFEST_UNKNOWN")
    assert registry.ask("DELETE", f"/v2/m/n/manifests/{digest(content)}")[0] == 202
    assert code(registry.ask("GET", "/v2/m/n/manifests/v1")) == (404, "MANIFEST_UNKNOWN")
    assert code(registry.ask("GET", "/v2/none/tags/list")) == (404, "NAME_UNKNOWN")


def test_what_refers_to_a_manifest_is_listed_by_type(registry: Served) -> None:
    subject = manifest(registry, "r", "v1")
    sbom = manifest(
        registry, "r", "", subject=descriptor(MANIFEST, subject), artifactType="application/spdx+json", annotations={"k": "v"}
    )
    status, headers, body = registry.ask("GET", f"/v2/r/referrers/{digest(subject)}")
    assert (status, headers["Content-Type"]) == (200, INDEX)
    assert json.loads(body)["manifests"] == [
        {**descriptor(MANIFEST, sbom), "artifactType": "application/spdx+json", "annotations": {"k": "v"}}
    ]
    status, headers, body = registry.ask("GET", f"/v2/r/referrers/{digest(subject)}?artifactType=other/x")
    assert (json.loads(body)["manifests"], headers["OCI-Filters-Applied"]) == ([], "artifactType")
    assert json.loads(registry.ask("GET", f"/v2/r/referrers/{digest(b'none')}")[2])["manifests"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "wanted"),
    [
        ("GET", "/v2/UPPER/manifests/v1", None, (400, "NAME_INVALID")),
        ("GET", "/v2/a/../b/manifests/v1", None, (400, "NAME_INVALID")),
        ("GET", "/v2/a/blobs/sha256:../../etc/passwd", None, (400, "DIGEST_INVALID")),
        ("GET", "/v2/a/blobs/md5:aa", None, (400, "DIGEST_INVALID")),
        ("PUT", "/v2/a/manifests/v1", b"{}", (400, "MANIFEST_INVALID")),
        ("PUT", "/v2/a/manifests/v1", b"[" * 100_000, (400, "MANIFEST_INVALID")),
        ("PUT", "/v2/a/manifests/v1", b" " * (5 << 20), (413, "SIZE_INVALID")),
        ("GET", "/v2/a/tags/list?n=x", None, (404, "NAME_UNKNOWN")),
        ("PATCH", "/v2/a/blobs/uploads/../../x", b"x", (404, "BLOB_UPLOAD_UNKNOWN")),
        ("PATCH", "/v2/a/blobs/uploads/" + "a" * 32, b"x", (404, "BLOB_UPLOAD_UNKNOWN")),
        ("DELETE", "/v2/", None, (200, "")),
        ("PUT", "/v2/a/blobs/" + digest(b"x"), b"x", (405, "UNSUPPORTED")),
        ("GET", "/v2/a/nonsense", None, (404, "UNSUPPORTED")),
    ],
)
def test_what_makes_no_sense_is_refused_in_the_specifications_words(
    registry: Served, method: str, path: str, body: bytes | None, wanted: tuple[int, str]
) -> None:
    answer = registry.ask(method, path, body, Content_Type=MANIFEST)
    assert (answer[0], "" if answer[0] == 200 else code(answer)[1]) == wanted


def test_a_manifest_whose_blobs_are_missing_is_refused(registry: Served) -> None:
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"none"),
        "layers": [],
    }
    answer = registry.ask("PUT", "/v2/a/manifests/v1", json.dumps(body).encode(), Content_Type=MANIFEST)
    assert code(answer) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert json.loads(answer[2])["errors"][0]["detail"] == {"digest": digest(b"none")}
    content = manifest(registry, "lie", "v1")
    answer = registry.ask("PUT", f"/v2/lie/manifests/{digest(b'other')}", content, Content_Type=MANIFEST)
    assert code(answer) == (400, "DIGEST_INVALID")


def test_wrong_content_is_refused_and_the_upload_is_gone(registry: Served) -> None:
    location = registry.ask("POST", "/v2/a/blobs/uploads/", b"")[1]["Location"]
    assert code(registry.ask("PUT", f"{location}?digest={digest(b'right')}", b"wrong")) == (400, "DIGEST_INVALID")
    assert code(registry.ask("GET", location)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert not (registry.work / "data/content/blobs/sha256" / hashlib.sha256(b"right").hexdigest()).exists()


def test_a_body_that_breaks_off_leaves_what_came(registry: Served) -> None:
    location = registry.ask("POST", "/v2/a/blobs/uploads/", b"")[1]["Location"]
    host, _, port = registry.host.partition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(f"PATCH {location} HTTP/1.1\r\nHost: r\r\nContent-Length: 1000000\r\n\r\n".encode() + b"x" * 100_000)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(10)
        while sock.recv(65536):
            pass
    for _ in range(200):
        status, headers, _ = registry.ask("GET", location)
        if headers["Range"] == "0-99999":
            break
        threading.Event().wait(0.02)  # the registry learns of the end in its own time
    assert (status, headers["Range"]) == (204, "0-99999")


@pytest.mark.parametrize("tokens", [False, True])
def test_only_users_with_the_right_password_get_in(tmp_path: Path, tokens: bool) -> None:
    (tmp_path / "users").write_text(HTPASSWD + "\n")
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("registry", "IP:127.0.0.1")
    options = ["--htpasswd", str(tmp_path / "users"), "--tlscert", str(certificate), "--tlskey", str(key)]
    (tmp_path / "data").mkdir()
    with Served(*options, *(["--token"] if tokens else [])) as registry, Place(tmp_path / "data") as place:
        status, headers, _ = registry.ask("GET", "/v2/")
        assert status == 401 and headers["WWW-Authenticate"].startswith("Bearer" if tokens else "Basic")
        for wrong in (basic("user", "wrong"), basic("nobody", "secret"), "Basic !", "Bearer x", "Bearer " + "A" * 400):
            assert registry.ask("GET", "/v2/", Authorization=wrong)[0] == 401
        if not tokens:
            assert registry.ask("GET", "/v2/", Authorization=basic("user", "secret"))[0] == 200
        auth = base64.b64encode(b'{"username":"user","password":"secret"}').decode()
        import io

        from support.places import collect

        place.run(
            collect(place.images.import_(io.BytesIO(BASE), repo=f"{registry.host}/a", tag="1", message="", changes=[], platform=""))
        )
        place.push(f"{registry.host}/a", auth=auth)
        place.run(place.images.remove(f"{registry.host}/a:1", force=True, prune=True))
        place.pull(f"{registry.host}/a", auth=auth)
        assert place.files(f"{registry.host}/a:1") == {"etc/a": "base"}
        if tokens:
            token = json.loads(registry.ask("GET", "/token?scope=repository:a:pull", Authorization=basic("user", "secret"))[2])[
                "token"
            ]
            assert registry.ask("GET", "/v2/a/tags/list", Authorization=f"Bearer {token}")[0] == 200
            assert registry.ask("GET", "/v2/b/tags/list", Authorization=f"Bearer {token}")[0] == 401
            assert registry.ask("POST", "/v2/a/blobs/uploads/", b"", Authorization=f"Bearer {token}")[0] == 401


def test_clients_that_say_nothing_or_too_little_are_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (registryd, "IDLE", 0.2), (registryd, "LINGER", 0.2), (registryd, "MAX_CONNECTIONS", 4),
        (blobs, "STALL", 0.2), (blobs, "SLOW", 1 << 40),
        (app, "MAX_OF_ONE", 2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    state = State(tmp_path)
    storage = Repositories(state, Blobs(tmp_path))
    large = storage.blobs.put(bytes(32 << 20))
    storage.link("a", large)
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    stalled, kept = asyncio.Event(), blobs._Pace.kept

    async def watched(self: blobs._Pace, step: Any, size: int = 0) -> Any:
        try:
            return await kept(self, step, size)
        except Fault:
            stalled.set()
            raise

    monkeypatch.setattr(blobs._Pace, "kept", watched)

    async def asked(head: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*address, limit=1 << 10)
        writer.write(head.replace("\n", "\r\n").encode() + body)
        return reader, writer

    async def until_closed(reader: asyncio.StreamReader) -> bytes:
        found = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                found += data
        return found

    registry = app.Registry(storage, Access(None))

    async def main() -> None:
        runner, server = await registryd.serving(registry, listening, None)
        async with asyncio.timeout(30):
            for head in ("", "GET /v2/ HTTP/1.1\nHost: r\n"):  # no request, and never a whole one
                reader, writer = await asked(head)
                assert await until_closed(reader) == b""
                writer.close()
            upload = storage.begin("a")
            reader, writer = await asked(f"PATCH /v2/a/blobs/uploads/{upload} HTTP/1.1\nHost: r\nContent-Length: 9\n\n", b"xx")
            assert (await until_closed(reader)).startswith(b"HTTP/1.1 408")
            writer.close()
            assert storage.upload("a", upload).read_bytes() == b"xx"  # what came is kept
            stalled.clear()
            deaf, writer = await asked(f"GET /v2/a/blobs/{large} HTTP/1.1\nHost: r\n\n")  # it does not read
            await stalled.wait()
            assert len(await until_closed(deaf)) < 32 << 20
            writer.close()
            monkeypatch.setattr(blobs, "STALL", 30)
            slow = [await asked(f"PUT /v2/a/manifests/{n} HTTP/1.1\nHost: r\nContent-Length: 9\n\n") for n in (1, 2)]
            while registry._running.total() < 2:
                await asyncio.sleep(0)
            reader, writer = await asked("GET /v2/ HTTP/1.1\nHost: r\n\n")
            assert (await until_closed(reader)).startswith(b"HTTP/1.1 429")  # too many of one address
            for _, one in (*slow, (reader, writer)):
                one.close()
            while runner.server is not None and runner.server.connections:
                await asyncio.sleep(0)
            silent = [await asked("") for _ in range(4)]
            reader, writer = await asked("GET /v2/ HTTP/1.1\nHost: r\n\n")
            assert await until_closed(reader) == b""  # one too many
            for _, one in (*silent, (reader, writer)):
                one.close()
        server.close()
        await runner.cleanup()

    asyncio.run(main())
    state.close()


def test_a_collection_takes_no_upload_that_has_just_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path)
    storage = Repositories(state, Blobs(tmp_path))
    write = Path.write_text

    def between(self: Path, text: str) -> int:
        storage.collect()
        count = write(self, text)
        storage.collect()
        return count

    monkeypatch.setattr(Path, "write_text", between)
    upload = storage.begin("a")
    monkeypatch.undo()
    assert storage.upload("a", upload).read_bytes() == b""
    storage.collect(time.time() + UPLOAD_LIFE + 60)
    with pytest.raises(NotFound):
        storage.upload("a", upload)
    assert not list((tmp_path / "content/uploads").iterdir())
    state.close()


def test_passwords_to_be_checked_wait_in_a_short_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong ones by the hundred: two are checked at a time, the rest is told to come again, and who is known goes past."""
    monkeypatch.setattr(app, "MAX_PROOFS", 8)
    (tmp_path / "users").write_text("user:hash\n")
    lock, going, most, held = threading.Lock(), 0, 0, threading.Event()

    def check(password: str, stored: str) -> bool:
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
        if password != "secret":
            held.wait(10)
        with lock:
            going -= 1
        return password == "secret"

    access = Access(Passwords(tmp_path / "users", check))
    state = State(tmp_path)
    registry = app.Registry(Repositories(state, Blobs(tmp_path)), access)

    async def main() -> list[int]:
        async with TestClient(TestServer(registry.application())) as client:

            async def asked(password: str) -> int:
                async with client.get("/v2/", headers={"Authorization": basic("user", password)}) as reply:
                    return reply.status

            assert await asked("secret") == 200
            wrong = [asyncio.ensure_future(asked(f"wrong{number}")) for number in range(40)]
            while sum(one.done() for one in wrong) < 32:
                await asyncio.wait([one for one in wrong if not one.done()], return_when=asyncio.FIRST_COMPLETED)
            assert await asked("secret") == 200
            held.set()
            return sorted(await asyncio.gather(*wrong))

    assert asyncio.run(main()) == [401] * 8 + [429] * 32
    assert most == 2
    state.close()


def test_a_read_only_registry_changes_nothing() -> None:
    with Served("--read-only") as registry:
        assert registry.ask("GET", "/v2/")[0] == 200
        assert code(registry.ask("POST", "/v2/a/blobs/uploads/", b"")) == (405, "UNSUPPORTED")
        assert code(registry.ask("DELETE", "/v2/a/manifests/v1")) == (405, "UNSUPPORTED")


def test_a_blob_beyond_the_limit_is_cut_and_metrics_count(tmp_path: Path) -> None:
    with Served("--max-blob", "1m") as registry:
        location = registry.ask("POST", "/v2/a/blobs/uploads/", b"")[1]["Location"]
        assert code(registry.ask("PATCH", location, bytes(1_500_000))) == (413, "SIZE_INVALID")
        upload(registry, "a", b"small")
        metrics = registry.ask("GET", "/metrics")[2].decode()
        assert 'sampan_registry_requests_total{method="PUT",status="201"} 1' in metrics
        assert 'status="413"} 1' in metrics
