"""Registries that lie, lure, drip and burst (SECURITY.md rows 41 to 60): a clear error, and nothing left behind."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import resource
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.errors import SampanError
from sampan.oci import image as oci
from sampan.registry import repository as registry_repository
from support.places import Place, collect
from support.registry import INDEX, LAYER, MANIFEST, Authority, Handler, Registry, config_of, descriptor, digest
from support.tars import archive, directory, hardlink, member, open_fds, symlink

BASE = archive(directory("etc/"), member("etc/a", content=b"base"))
CANARY = b"of the host"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


def refused(place: Place, name: str, tag: str = "1", *, within: float = 10.0, **more: Any) -> str:
    """Pull what must fail; return the words; nothing is left."""
    begun = time.monotonic()
    with pytest.raises(SampanError) as caught:
        place.pull(name, tag, **more)
    assert time.monotonic() - begun < within
    place.again()  # what is kept for a later try goes first
    place.images.partials.sweep(older_than=-1)
    place.images.catalogue.drop_kept(1 << 62)
    place.images.sweep()
    assert place.is_clean()
    return str(caught.value)


def manifest_of(config: bytes, *layers: dict[str, Any], **more: Any) -> bytes:
    body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(oci.OCI_CONFIG, config), "layers": list(layers), **more}
    return json.dumps(body).encode()


# Trees


@pytest.mark.parametrize(
    "layers",
    [
        [archive(symlink("a", "/"), member("a/CANARY", content=b"x"))],
        [archive(member("../CANARY", content=b"x"))],
        [archive(symlink("a", "..")), archive(member("a/CANARY", content=b"x"))],
        [archive(symlink("a", "/etc"), member("a/.wh.passwd"))],
        [archive(hardlink("a", "../../CANARY"), member("a", content=b"x"))],
        [archive(symlink("x", "CANARY"), hardlink("y", "x"), member("y", content=b"x", mode=0o777))],
    ],
)
def test_rows_41_42_43_no_layer_reaches_out_of_its_tree(place: Place, registry: Registry, layers: list[bytes]) -> None:
    canary = place.root / "CANARY"
    canary.write_bytes(CANARY)
    canary.chmod(0o600)
    registry.image("a", "1", *layers)
    try:
        place.pull(f"{registry.host}/a")
    except SampanError:
        pass
    assert (canary.read_bytes(), canary.stat().st_mode & 0o777, canary.stat().st_nlink) == (CANARY, 0o600, 1)
    assert Path("/etc/passwd").exists()


def test_row_41_images_that_unpack_at_once_do_not_meet(place: Place, registry: Registry) -> None:
    """One brings the link, another writes below the same name: each has a tree of its own, whatever the order."""
    canary = place.root / "CANARY"
    canary.write_bytes(CANARY)
    registry.image(
        "link", "1", *[archive(symlink("a", str(place.root)), member(f"l{n}", content=os.urandom(9000))) for n in (1, 2)]
    )
    registry.image(
        "file", "1", *[archive(member("a/CANARY", content=b"x"), member(f"f{n}", content=os.urandom(9000))) for n in (1, 2)]
    )

    async def main() -> None:
        for _ in range(5):
            names = [f"{registry.host}/{name}" for name in ("link", "file")]
            await asyncio.gather(*(collect(place.images.pull(name, tag="1", platform="", auth="")) for name in names))
            for name in names:
                await place.images.remove(f"{name}:1", force=True, prune=True)

    asyncio.run(main())
    assert canary.read_bytes() == CANARY


def test_row_44_absolute_links_are_relative_to_the_image(place: Place, registry: Registry) -> None:
    registry.image(
        "a", "1", archive(directory("run/"), directory("var/"), symlink("var/run", "/run"), member("var/run/x", content=b"1"))
    )
    place.pull(f"{registry.host}/a")
    assert place.files(f"{registry.host}/a:1") == {"run/x": "1"}


# Documents


def test_row_47_what_could_be_manifest_and_index_is_neither(place: Place, registry: Registry) -> None:
    config = config_of()
    registry.add(config)
    both = manifest_of(config, manifests=[])
    for number, kind in enumerate((MANIFEST, INDEX)):
        registry.put("a", both, kind, str(number))
        assert "manifest and an index at once" in refused(place, f"{registry.host}/a", str(number)) or number
    plain = manifest_of(config)
    registry.put("a", plain, INDEX, "2")
    assert "calls itself" in refused(place, f"{registry.host}/a", "2")


BAD_DIGESTS = [
    "sha256:../../x", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32, "", "sha256:", "a" * 64, "sha512:" + "a" * 64,
    "sha256:" + "a" * 64 + "/..", "sha256:" + "\u0661" * 64,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_DIGESTS)
@pytest.mark.parametrize("where", ["config", "layer", "index", "diff_id", "header"])
def test_row_48_a_digest_that_is_none_is_never_used(place: Place, registry: Registry, text: str, where: str) -> None:
    made = registry.image("a", "good", BASE)
    config = json.loads(made.config)
    wanted = {"mediaType": LAYER, "digest": text, "size": 10}
    if where == "index":
        registry.index("a", "1", {**wanted, "mediaType": MANIFEST})
    elif where == "header":
        if not text.isascii() or not text:
            return  # no header can hold it
        registry.hooks.append(
            lambda h: (
                h.path.endswith("/1") and h.reply(200, made.manifest, Content_Type=MANIFEST, Docker_Content_Digest=text) is None
            )
        )
    elif where == "diff_id":
        config["rootfs"]["diff_ids"] = [text]
        registry.image("a", "1", BASE, config=json.dumps(config).encode())
    else:
        body = json.loads(made.manifest)
        body["config" if where == "config" else "layers"] = wanted if where == "config" else [wanted]
        registry.put("a", json.dumps(body).encode(), MANIFEST, "1")
    refused(place, f"{registry.host}/a")
    assert not (place.root.parent / "x").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda blob: bytes([blob[20] ^ 1]).join((blob[:20], blob[21:])), lambda blob: blob[:-1], lambda blob: blob + b"\0",
        lambda blob: b"", lambda blob: os.urandom(len(blob)),
    ],
    ids=["one bit", "truncated", "longer", "empty", "other"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["layer", "config"])
def test_row_48_content_that_is_not_what_its_digest_says_is_refused(
    place: Place, registry: Registry, change: Callable[[bytes], bytes], where: str
) -> None:
    made = registry.image("a", "1", BASE)
    original = made.blobs[0] if where == "layer" else made.config
    registry.blobs[digest(original)] = change(original)
    refused(place, f"{registry.host}/a")


def test_row_48_a_manifest_by_digest_is_verified(place: Place, registry: Registry) -> None:
    made, evil = registry.image("a", "1", BASE), registry.image("a", "2", archive(member("evil")))
    registry.manifests["a", made.digest] = (MANIFEST, evil.manifest)
    registry.hooks.append(
        lambda h: (
            made.digest in h.path and h.reply(200, evil.manifest, Content_Type=MANIFEST, Docker_Content_Digest=made.digest) is None
        )
    )
    assert "content is" in refused(place, f"{registry.host}/a", made.digest)


def test_row_48_wrong_sizes_and_diff_ids_are_refused(place: Place, registry: Registry) -> None:
    made = registry.image("a", "good", BASE)
    for size in (len(made.blobs[0]) - 1, len(made.blobs[0]) + 1, 0, -1, 1 << 62):
        body = json.loads(made.manifest)
        body["layers"][0]["size"] = size
        registry.put("a", json.dumps(body).encode(), MANIFEST, "1")
        refused(place, f"{registry.host}/a")
    registry.image("a", "1", BASE, config=config_of(archive(member("other"))))
    assert "diffID" in refused(place, f"{registry.host}/a")
    registry.image("a", "1", BASE, config=config_of(BASE, BASE))
    assert "1 layers, the configuration 2" in refused(place, f"{registry.host}/a")


BAD_JSON = [
    b'{"schemaVersion":2,"schemaVersion":2}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"schemaVersion":' + b"9" * 1_000_000 + b"}",
    b'{"schemaVersion":NaN}',
    b"\xff\xfe",
    b"",
    b"null",
    b"[]",
    b'"x"',
    b'{"schemaVersion":2,"SchemaVersion":2}',
    b"[" + b"1," * 900_000 + b"1]",
    b'{"schemaVersion":2,"mediaType":"\\ud800"}',
    b"{" + b" " * (4 << 20) + b"}",
]


@pytest.mark.parametrize("number", range(len(BAD_JSON)))
@pytest.mark.parametrize("where", ["manifest", "config"])
def test_row_49_ambiguous_and_monstrous_json_is_refused(place: Place, registry: Registry, number: int, where: str) -> None:
    content = BAD_JSON[number]
    if where == "manifest":
        registry.put("a", content, MANIFEST, "1")
    else:
        registry.image("a", "1", config=content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(place, f"{registry.host}/a", within=2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10  # KiB


def test_obsolete_and_foreign_things_are_refused_by_name(place: Place, registry: Registry) -> None:
    old = json.dumps({"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": [], "history": []}).encode()
    for number, kind in enumerate(("application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json", "text/plain")):
        registry.put("a", old, kind, str(number))
        assert "schema 1" in refused(place, f"{registry.host}/a", str(number))
    for kind in (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ):
        registry.image("a", "1", BASE, layer_type=kind)
        assert kind in refused(place, f"{registry.host}/a")
    body = json.loads(registry.image("a", "1", BASE).manifest)
    body["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    registry.put("a", json.dumps(body).encode(), MANIFEST, "1")
    assert "is no image" in refused(place, f"{registry.host}/a")


# Lures


def authorizations(registry: Registry) -> list[str]:
    return [seen.headers["Authorization"] for seen in registry.log if "Authorization" in seen.headers]


def credentials() -> str:
    return base64.b64encode(json.dumps({"username": "user", "password": "secret"}).encode()).decode()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Names that resolve as a test says, on this machine only."""
    known: dict[str, str] = {}
    ask = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(self: Any, host: Any, port: Any, **more: Any) -> Any:
        found = known.get(host)
        if found is None:
            return await ask(self, host, port, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found.split(",")]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return known


def test_row_50_an_evil_realm_gets_no_credentials(tmp_path: Path, registry: Registry, names: dict[str, str]) -> None:
    registry.image("a", "1", BASE)
    registry.auth = "bearer"
    names["evil.example"] = "127.0.0.1"
    with Registry() as evil, Place(tmp_path) as place:
        registry.realm = f"http://evil.example:{evil.port}/token"
        evil.hooks.append(lambda h: h.reply(200, b'{"token":"good"}') is None)
        place.pull(f"{registry.host}/a", auth=credentials())
        assert evil.log and authorizations(evil) == []
        for realm in (
            "http://169.254.169.254/latest",
            "file:///etc/passwd",
            "gopher://x",
            "http://u:p@127.0.0.1/",
            "nothing",
            "http://[fe80::1]/",
        ):
            registry.realm = realm
            registry.image("a", "2", BASE)
            with pytest.raises(SampanError):
                place.pull(f"{registry.host}/a", "2", auth=credentials())


def test_row_50_a_redirected_blob_takes_no_authorization_along(tmp_path: Path, registry: Registry, names: dict[str, str]) -> None:
    made = registry.image("a", "1", BASE)
    registry.auth = "basic"
    names["evil.example"] = "127.0.0.1"
    with Registry() as evil, Place(tmp_path) as place:
        evil.blobs.update(registry.blobs)
        registry.hooks.append(
            lambda h: (
                "/blobs/" in h.path
                and h.reply(307, Location=f"http://evil.example:{evil.port}{h.path}?X-Signature=a%2Fb%3D") is None
            )
        )
        place.pull(f"{registry.host}/a", auth=credentials())
        assert authorizations(registry) and authorizations(evil) == []
        assert any(seen.path.endswith("?X-Signature=a%2Fb%3D") for seen in evil.log)
        assert evil.sent[digest(made.blobs[0])] == len(made.blobs[0])


@pytest.mark.parametrize(
    "location", ["", "ftp://x/", "http://[", "http://169.254.169.254/x", "http://0.0.0.0/x", "//u:p@127.0.0.1/x", "LOOP"]
)
def test_row_50_redirects_into_nowhere_end(place: Place, registry: Registry, location: str) -> None:
    registry.image("a", "1", BASE)
    registry.hooks.append(
        lambda h: "/blobs/" in h.path and h.reply(307, Location=h.path if location == "LOOP" else location) is None
    )
    refused(place, f"{registry.host}/a")
    assert len(registry.log) < 12


def test_row_50_foreign_urls_of_a_layer_are_never_asked(place: Place, registry: Registry) -> None:
    with Registry() as evil:
        made = registry.image("a", "good", BASE)
        body = json.loads(made.manifest)
        body["layers"][0]["urls"] = [f"http://{evil.host}/x"]
        registry.put("a", json.dumps(body).encode(), MANIFEST, "1")
        del registry.blobs[digest(made.blobs[0])]
        refused(place, f"{registry.host}/a")
        assert evil.log == []


def test_row_51_a_name_with_a_loopback_address_still_needs_tls(tmp_path: Path, registry: Registry, names: dict[str, str]) -> None:
    registry.image("a", "1", BASE)
    names["rebind.example"] = "127.0.0.1,127.0.0.2"
    with Place(tmp_path) as place:
        refused(place, f"rebind.example:{registry.port}/a")
    assert registry.log == []


@pytest.mark.parametrize(
    ("names_of", "days", "trusted"),
    [("DNS:registry.test", 2, False), ("DNS:other.test", 2, True), ("DNS:registry.test", -1, True)],
    ids=["unknown authority", "wrong host", "expired"],
)
def test_row_52_certificates_that_prove_nothing_are_refused(
    tmp_path: Path, names: dict[str, str], names_of: str, days: int, trusted: bool
) -> None:
    authority = Authority(tmp_path / "ca")
    names["registry.test"] = "127.0.0.1"
    (tmp_path / "data").mkdir()
    with Registry(authority.context("server", names_of, days=days)) as registry:
        host = f"registry.test:{registry.port}"
        certificates = tmp_path / "certs" / host
        certificates.mkdir(parents=True)
        if trusted:
            (certificates / "ca.crt").write_bytes(authority.certificate.read_bytes())
        registry.image("a", "1", BASE)
        with Place(tmp_path / "data", certificates=(str(tmp_path / "certs"),)) as place:
            assert "tls: failed to verify certificate" in refused(place, f"{host}/a")
        assert registry.log == []


def test_certs_d_gives_authorities_and_a_client_certificate(tmp_path: Path, names: dict[str, str]) -> None:
    authority = Authority(tmp_path / "ca")
    names["registry.test"] = "127.0.0.1"
    (tmp_path / "data").mkdir()
    with Registry(authority.context("server", "DNS:registry.test", clients=True)) as registry:
        host = f"registry.test:{registry.port}"
        certificates = tmp_path / "certs" / host
        certificates.mkdir(parents=True)
        (certificates / "ca.crt").write_bytes(authority.certificate.read_bytes())
        registry.image("a", "1", BASE)
        with Place(tmp_path / "data", certificates=(str(tmp_path / "certs"),)) as place:
            refused(place, f"{host}/a")
            certificate, key = authority.issue("me", "DNS:me")
            (certificates / "me.cert").write_bytes(certificate.read_bytes())
            (certificates / "me.key").write_bytes(key.read_bytes())
            place.again()
            place.pull(f"{host}/a")
            assert place.files(f"{host}/a:1") == {"etc/a": "base"}


def test_row_50_tls_is_never_stepped_down(tmp_path: Path, names: dict[str, str]) -> None:
    authority = Authority(tmp_path / "ca")
    names["registry.test"] = "127.0.0.1"
    (tmp_path / "data").mkdir()
    with Registry(authority.context("server", "DNS:registry.test")) as registry, Registry() as plain:
        host = f"registry.test:{registry.port}"
        (tmp_path / "certs" / host).mkdir(parents=True)
        (tmp_path / "certs" / host / "ca.crt").write_bytes(authority.certificate.read_bytes())
        registry.image("a", "1", BASE)
        plain.blobs.update(registry.blobs)
        with Place(tmp_path / "data", certificates=(str(tmp_path / "certs"),)) as place:
            registry.hooks.append(lambda h: "/blobs/" in h.path and h.reply(307, Location=f"http://{plain.host}{h.path}") is None)
            assert "not encrypted" in refused(place, f"{host}/a")
            registry.hooks.clear()
            registry.auth, registry.realm = "bearer", f"http://{plain.host}/token"
            assert "without encryption" in refused(place, f"{host}/a", auth=credentials())
        assert plain.log == []


# Bursts


def test_row_53_an_index_of_indexes_does_not_multiply(place: Place, registry: Registry) -> None:
    inner = registry.index("a", "x0", descriptor(MANIFEST, b"none"))
    for level in range(30):
        inner = registry.index("a", f"x{level}", *[descriptor(INDEX, inner)] * 2)
    registry.put("a", inner, INDEX, "1")
    refused(place, f"{registry.host}/a", within=2)
    assert len(registry.log) < 40
    wide = [{"mediaType": MANIFEST, "digest": "sha256:" + f"{n:064x}", "size": 2} for n in range(2000)]
    registry.index("a", "1", *wide)
    refused(place, f"{registry.host}/a", within=3)
    assert len(registry.log) < 60


def test_row_54_bombs_are_cut_short(place: Place, registry: Registry) -> None:
    zeros = bytes(1 << 20)
    size = 8 << 30
    packed = gzip.compress(zeros, 9)
    header = tarfile.TarInfo("zeros")
    header.size = size
    head = header.tobuf(tarfile.GNU_FORMAT)
    for kind, bomb in (
        (LAYER, gzip.compress(head) + packed * 2000),
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstandard.compress(head) + zstandard.compress(zeros) * 2000),
        (LAYER, zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=29)).compress(head)),
        (LAYER, gzip.compress(head)[:100]),
    ):
        registry.image("a", "1", b"", config=config_of(head), pack=lambda _, bomb=bomb: bomb, layer_type=kind)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused(place, f"{registry.host}/a", within=30)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def endless(handler: Handler) -> bool:
    """A body without an end, where none was announced."""
    handler.send_response(200)
    handler.send_header("Content-Type", MANIFEST)
    handler.send_header("Connection", "close")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * 65536)
    except OSError:
        handler.close_connection = True
    return True


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/", "/v2/"])
def test_row_54_endless_bodies_are_cut(place: Place, registry: Registry, part: str) -> None:
    registry.image("a", "1", BASE)
    registry.hooks.append(lambda handler: part in handler.path and endless(handler))
    refused(place, f"{registry.host}/a")


def drip(handler: Handler) -> bool:
    """A byte now and then, never enough."""
    handler.send_response(200)
    handler.send_header("Content-Type", MANIFEST)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    try:
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)  # the attack itself
    except OSError:
        pass
    handler.close_connection = True
    return True


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
def test_row_54_drips_are_given_up(place: Place, registry: Registry, part: str) -> None:
    from sampan.registry.session import Timing

    patience = Timing(attempts=2, delay=0.01, connect=1, stall=0.5, document=1.0)
    place.images.registries.timing = patience
    registry.image("a", "1", archive(member("x", content=os.urandom(100_000))))
    layers_only = lambda handler: part in handler.path and (part != "/blobs/" or int(handler.headers.get("X", "1")))  # noqa: E731
    registry.hooks.append(lambda handler: bool(layers_only(handler)) and drip(handler))
    refused(place, f"{registry.host}/a", within=15)


def test_row_57_a_digest_of_another_repository_is_not_found(place: Place, registry: Registry) -> None:
    registry.image("good", "1", BASE)
    evil = registry.image("evil", "1", archive(member("evil")))
    place.pull(f"{registry.host}/good")
    place.pull(f"{registry.host}/evil")
    with pytest.raises(SampanError, match="No such image"):
        place.images.resolve(f"{registry.host}/good:1@{evil.digest}")
    for name, tag in ((f"{registry.host}/good", evil.digest), (f"{registry.host}/good:1@{evil.digest}", "")):
        with pytest.raises(SampanError, match="not found"):
            place.pull(name, tag)


def test_row_59_bad_layers_leak_no_descriptor(place: Place, registry: Registry) -> None:
    registry.image("a", "1", BASE, os.urandom(3000))
    with pytest.raises(SampanError):
        place.pull(f"{registry.host}/a")

    async def many() -> None:
        for _ in range(100):
            with pytest.raises(SampanError):
                await collect(place.images.pull(f"{registry.host}/a", tag="1", platform="", auth=""))

    before = open_fds(), threading.active_count()
    asyncio.run(many())
    assert abs(open_fds() - before[0]) < 10
    assert threading.active_count() < before[1] + 25


def test_row_60_after_a_broken_layer_everything_goes_on(place: Place, registry: Registry) -> None:
    registry.image("bad", "1", BASE, b"no archive at all" * 100)
    registry.image("good", "1", BASE)

    async def main() -> list[Any]:
        names = [f"{registry.host}/{'bad' if number % 2 else 'good'}" for number in range(20)]
        work = [collect(place.images.pull(name, tag="1", platform="", auth="")) for name in names]
        async with asyncio.timeout(30):
            return await asyncio.gather(*work, return_exceptions=True)

    found = asyncio.run(main())
    assert [isinstance(one, SampanError) for one in found] == [bool(number % 2) for number in range(20)]


def test_tags_without_an_end_are_given_up(place: Place, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_repository, "MAX_PAGES", 20)
    registry.hooks.append(
        lambda h: "/tags/list" in h.path and h.reply(200, b'{"tags":["a","b"]}', Link='</v2/a/tags/list?n=1>; rel="next"') is None
    )
    assert "too many tags" in refused(place, f"{registry.host}/a", "")
    registry.hooks[:] = [
        lambda h: "/tags/list" in h.path and h.reply(200, b'{"tags":["a"]}', Link='<http://169.254.169.254/x>; rel="next"') is None
    ]
    refused(place, f"{registry.host}/a", "")
