"""Pulling: what it brings, what it says, and how it goes on after a break."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import random
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.content.images import LayerRef
from sampan.content.partials import Partial
from sampan.engine.images.layers import _Fetch
from sampan.errors import Broken, Forbidden, InvalidRequest, NotFound, SampanError, Unauthorized, Unsupported
from sampan.registry.hosts import Hosts
from sampan.wire.registry import AuthConfig
from support.places import QUICK, Place, collect
from support.registry import DOCKER, INDEX, MANIFEST, Authority, Handler, Registry, basic, begun, config_of, descriptor, digest
from support.tars import archive, directory, member

BASE = archive(directory("etc/"), member("etc/a", content=b"base"))
TOP = archive(directory("etc/"), member("etc/b", content=b"top"))
NOISE = random.Random(1).randbytes(3 << 20)
LARGE = archive(member("large", content=NOISE.hex().encode()))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


def auth(**fields: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


def once(condition: Any, work: Any) -> Any:
    """A hook that does `work` the first time `condition` holds."""
    done = threading.Event()

    def hook(handler: Handler) -> bool:
        if condition(handler) and not done.is_set():
            done.set()
            return work(handler) is not False
        return False

    return hook


def test_a_pull_brings_the_image_and_says_what_docker_says(place: Place, registry: Registry) -> None:
    made = registry.image("a/b", "1", BASE, TOP)
    name = f"{registry.host}/a/b"
    said = [(one.id, one.status) for one in place.pull(name) if one.status != "Downloading" and one.status != "Extracting"]

    short = [digest(blob).removeprefix("sha256:")[:12] for blob in made.blobs]
    assert said[0] == ("1", "Pulling from a/b")
    assert [status for id, status in said if id == short[0]] == [
        "Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete",
    ]  # fmt: skip
    assert said[-2:] == [("", f"Digest: {made.digest}"), ("", f"Status: Downloaded newer image for {name}:1")]
    image = place.images.resolve(f"{name}:1")
    assert (image.id, image.digests) == (digest(made.config), (f"{name}@{made.digest}",))
    assert place.files(f"{name}:1") == {"etc/a": "base", "etc/b": "top"}
    assert ("pull", f"{name}:1") in place.events


def test_a_filter_by_reference_shows_the_names_alone_that_fit(place: Place, registry: Registry) -> None:
    registry.image("a", "1", BASE)
    name = f"{registry.host}/a"
    place.pull(name)
    place.run(place.images.tag(f"{name}:1", "mine", "2"))

    def seen(pattern: str) -> tuple[list[str], int]:
        (one,) = place.run(place.images.list(all=False, filters={"reference": (pattern,)}, shared_size=False))
        return one.repo_tags, len(one.repo_digests)

    assert seen("mine") == (["mine:2"], 0) and seen(name) == ([f"{name}:1"], 1) and seen("*/a@*") == ([], 1)


def test_a_second_pull_fetches_nothing_and_says_so(place: Place, registry: Registry) -> None:
    registry.image("a/b", "1", BASE)
    place.pull(f"{registry.host}/a/b")
    registry.log.clear()
    said = [one.status for one in place.pull(f"{registry.host}/a/b")]

    assert said[-1] == f"Status: Image is up to date for {registry.host}/a/b:1"
    assert registry.asked("GET", "/blobs/") == []


def test_layers_that_are_here_are_not_fetched_again(place: Place, registry: Registry) -> None:
    first, second = registry.image("a", "1", BASE), registry.image("b", "1", BASE, TOP)
    place.pull(f"{registry.host}/a")
    said = [(one.id, one.status) for one in place.pull(f"{registry.host}/b")]

    assert (digest(first.blobs[0])[7:19], "Already exists") in said
    assert registry.sent[digest(second.blobs[0])] == len(second.blobs[0])


@pytest.mark.parametrize(
    ("pack", "kind"),
    [
        (lambda data: data, "application/vnd.oci.image.layer.v1.tar"),
        (zstandard.ZstdCompressor().compress, "application/vnd.oci.image.layer.v1.tar+zstd"),
        (lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]), "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ],
    ids=["plain", "zstd", "gzip members"],
)
def test_layers_come_plain_gzipped_and_zstandard(place: Place, registry: Registry, pack: Any, kind: str) -> None:
    registry.image("a", "1", BASE, TOP, pack=pack, layer_type=kind)
    place.pull(f"{registry.host}/a")

    assert place.files(f"{registry.host}/a:1") == {"etc/a": "base", "etc/b": "top"}


def test_a_pull_by_digest_gives_no_tag(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", BASE)
    said = place.pull(f"{registry.host}/a", made.digest)

    assert said[0].id == f"{registry.host}/a@{made.digest}"
    assert place.images.resolve(f"{registry.host}/a@{made.digest}").tags == ()


def test_every_tag_is_pulled_page_by_page(place: Place, registry: Registry) -> None:
    for tag in ("1", "2", "3", "4", "5"):
        registry.image("a", tag, BASE, archive(member(tag)))
    said = [one.status for one in place.pull(f"{registry.host}/a", "")]

    assert len(place.images.catalogue.tags()) == 5
    assert said[-1] == f"Status: Downloaded newer image for {registry.host}/a"
    with pytest.raises(NotFound, match="repository .*/zzz not found"):
        place.pull(f"{registry.host}/zzz", "")


def test_the_index_entry_for_the_platform_is_taken_and_its_digest_kept(place: Place, registry: Registry) -> None:
    arm = registry.image("a", "arm", TOP, config=config_of(TOP, architecture="arm64"))
    amd = registry.image("a", "amd", BASE)
    attestation = descriptor(MANIFEST, arm.manifest, platform={"os": "unknown", "architecture": "unknown"})
    attestation["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
    inner = registry.index("a", "inner", descriptor(MANIFEST, amd.manifest, platform={"os": "linux", "architecture": "amd64"}))
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    index = registry.index("a", "1", attestation, descriptor(MANIFEST, arm.manifest, platform=platform), descriptor(INDEX, inner))
    place.pull(f"{registry.host}/a", platform="linux/amd64")
    assert place.images.resolve(f"{registry.host}/a:1").id == digest(amd.config)
    assert place.images.resolve(f"{registry.host}/a:1").digests == (f"{registry.host}/a@{digest(index)}",)
    place.pull(f"{registry.host}/a", platform="linux/arm64")
    assert place.images.resolve(f"{registry.host}/a:1").architecture == "arm64"
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        place.pull(f"{registry.host}/a", platform="linux/s390x")


def test_an_unknown_name_is_404_in_dockers_words(place: Place, registry: Registry) -> None:
    with pytest.raises(NotFound, match=f"^manifest for {registry.host}/a:1 not found: manifest unknown: manifest unknown$"):
        place.pull(f"{registry.host}/a")
    with pytest.raises(Forbidden, match="'scratch' is a reserved name"):
        place.pull("scratch", "latest")
    with pytest.raises(Broken, match="connect: connection refused"):
        place.pull("127.0.0.1:1/a")


# Breaks


def cut_after(size: int) -> Any:
    def work(handler: Handler) -> None:
        name, content, start = begun(handler)
        handler.wfile.write(content[start : start + size])
        handler.registry.went(name, min(size, len(content) - start))
        handler.cut()

    return work


def is_blob(name: str) -> Any:
    return lambda handler: handler.command == "GET" and handler.path.endswith(name)


def test_a_cut_transfer_goes_on_where_it_broke_and_no_byte_comes_twice(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", LARGE)
    name, size = digest(made.blobs[0]), len(made.blobs[0])
    registry.hooks += [once(is_blob(name), cut_after(1_000_000)), once(is_blob(name), cut_after(700_000))]
    place.pull(f"{registry.host}/a")

    assert registry.sent[name] == size
    assert [seen.headers.get("Range") for seen in registry.asked("GET", name)] == [None, "bytes=1000000-", "bytes=1700000-"]
    assert place.files(f"{registry.host}/a:1") == {"large": NOISE.hex()}


def test_a_later_daemon_goes_on_with_what_an_earlier_one_had(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", BASE, LARGE)
    name, size = digest(made.blobs[1]), len(made.blobs[1])

    whole = threading.Event()
    keep = place.images.catalogue.keep_layer

    def kept(layer: LayerRef, now: int) -> None:
        keep(layer, now)
        whole.set()

    place.images.catalogue.keep_layer = kept  # type: ignore[method-assign]

    def cut(handler: Handler) -> bool:
        if not is_blob(name)(handler):
            return False
        assert whole.wait(20)  # the other layer is whole before the pull fails
        handler.cut()
        return True

    registry.hooks += [once(is_blob(name), cut_after(2_000_000)), cut]
    with pytest.raises(Broken):
        place.pull(f"{registry.host}/a")
    assert registry.sent[name] == 2_000_000
    place.again()
    registry.hooks.clear()
    said = [(one.id, one.status) for one in place.pull(f"{registry.host}/a")]

    assert registry.sent[name] == size
    assert (digest(made.blobs[0])[7:19], "Already exists") in said
    assert registry.sent[digest(made.blobs[0])] == len(made.blobs[0])
    assert not list((place.root / "content/partial").iterdir())


def test_a_registry_without_ranges_begins_again(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", LARGE)
    name = digest(made.blobs[0])

    def whole(handler: Handler) -> bool:
        if is_blob(name)(handler):
            handler.reply(200, made.blobs[0])
            return True
        return False

    registry.hooks += [once(is_blob(name), cut_after(1_000_000)), whole]
    place.pull(f"{registry.host}/a")
    assert place.files(f"{registry.host}/a:1") == {"large": NOISE.hex()}


def test_what_a_power_cut_spoilt_is_fetched_once_more(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", LARGE)
    name = digest(made.blobs[0])
    registry.hooks += [
        once(is_blob(name), cut_after(2_000_000)),
        lambda handler: is_blob(name)(handler) and (handler.cut() or True),
    ]
    with pytest.raises(Broken):
        place.pull(f"{registry.host}/a")
    (partial,) = (place.root / "content/partial").iterdir()
    with open(partial, "r+b") as file:
        file.seek(1_000_000)
        file.write(bytes(4096))
    place.again()
    registry.hooks.clear()
    place.pull(f"{registry.host}/a")

    assert place.files(f"{registry.host}/a:1") == {"large": NOISE.hex()}


def test_a_cancelled_pull_keeps_finished_layers_and_leaves_nothing_running(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", BASE, LARGE)
    held = threading.Event()

    def hold(handler: Handler) -> bool:
        if is_blob(digest(made.blobs[1]))(handler):
            held.wait(10)
        return False

    registry.hooks.append(hold)

    async def main() -> None:
        stream = place.images.pull(f"{registry.host}/a", tag="1", platform="", auth="")
        async for one in stream:
            if one.status == "Pull complete":
                break
        await stream.aclose()  # type: ignore[attr-defined]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    held.set()
    registry.hooks.clear()
    assert not place.images.catalogue.all()
    place.again()
    said = [(one.id, one.status) for one in place.pull(f"{registry.host}/a")]
    assert (digest(made.blobs[0])[7:19], "Already exists") in said


def test_a_layer_may_be_whole_before_its_unpacking_begins(
    place: Place, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is where the threads that unpack are busy."""
    registry.image("a", "1", BASE)
    whole, commit, unpack = threading.Event(), Partial.commit, _Fetch._unless_gone

    def committed(self: Partial) -> None:
        commit(self)
        whole.set()

    def late(self: _Fetch, work: Any) -> Any:
        assert whole.wait(10)
        return unpack(self, work)

    monkeypatch.setattr(Partial, "commit", committed)
    monkeypatch.setattr(_Fetch, "_unless_gone", late)
    place.pull(f"{registry.host}/a")
    assert place.files(f"{registry.host}/a:1")


def test_layers_are_fetched_side_by_side(place: Place, registry: Registry) -> None:
    """None is answered before three are asked for."""
    layers = [archive(member(f"f{number}", content=bytes([number]) * 100)) for number in range(3)]
    made = registry.image("a", "1", *layers)
    names, together = [digest(blob) for blob in made.blobs], threading.Barrier(3)

    def wait(handler: Handler) -> bool:
        if any(is_blob(name)(handler) for name in names):
            together.wait(10)
        return False

    registry.hooks.append(wait)
    place.pull(f"{registry.host}/a")
    assert not together.broken


def test_two_pulls_of_the_same_layers_fetch_them_once(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", BASE, LARGE)
    registry.image("b", "1", BASE, LARGE, archive(member("more")))

    async def main() -> None:
        names = [f"{registry.host}/a", f"{registry.host}/b", f"{registry.host}/a"]
        await asyncio.gather(*(collect(place.images.pull(name, tag="1", platform="", auth="")) for name in names))

    asyncio.run(main())
    for blob in made.blobs:
        assert registry.sent[digest(blob)] == len(blob)
    assert len(place.images.catalogue.all()) == 2


def test_one_of_two_pulls_leaving_does_not_stop_the_other(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", LARGE)

    async def main() -> None:
        first = place.images.pull(f"{registry.host}/a", tag="1", platform="", auth="")
        async for one in first:
            if one.status == "Pulling fs layer":
                break
        second = asyncio.ensure_future(collect(place.images.pull(f"{registry.host}/a", tag="1", platform="", auth="")))
        await asyncio.sleep(0)
        await first.aclose()  # type: ignore[attr-defined]
        await second

    asyncio.run(main())
    assert len(place.images.catalogue.all()) == 1
    assert registry.sent[digest(made.blobs[0])] >= len(made.blobs[0])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_is_asked_again_and_not_for_ever(place: Place, registry: Registry, status: int) -> None:
    made = registry.image("a", "1", BASE)
    busy = lambda handler: handler.error(status, "TOOMANYREQUESTS", Retry_After="0") is None  # noqa: E731
    registry.hooks += [once(is_blob(digest(made.blobs[0])), busy), once(lambda handler: "/manifests/" in handler.path, busy)]
    place.pull(f"{registry.host}/a")
    registry.log.clear()
    registry.hooks[:] = [busy]
    with pytest.raises(Broken):
        place.pull(f"{registry.host}/a", "2")
    assert len(registry.log) == QUICK.attempts


# Who may


def test_credentials_answer_a_basic_challenge(place: Place, registry: Registry) -> None:
    registry.image("a", "1", BASE)
    registry.auth = "basic"
    name = f"{registry.host}/a"

    with pytest.raises(NotFound, match="pull access denied for .*, repository does not exist or may require 'docker login'"):
        place.pull(name)
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        place.pull(name, auth=auth(username="user", password="wrong"))
    place.pull(name, auth=auth(username="user", password="secret", serveraddress=registry.host))
    with pytest.raises(NotFound, match="pull access denied"):
        place.pull(name, auth=auth(username="user", password="secret", serveraddress="other.example"))


@pytest.mark.parametrize(
    "given",
    [
        {"username": "user", "password": "secret"},
        {"identitytoken": "refresh"},
        {"registrytoken": "good"},
        {"auth": base64.b64encode(b"user:secret").decode()},
    ],
)
def test_tokens_are_fetched_once_for_a_repository(place: Place, registry: Registry, given: dict[str, str]) -> None:
    registry.image("a/b", "1", BASE, TOP)
    registry.auth = "bearer"
    place.pull(f"{registry.host}/a/b", auth=auth(**given))

    asked = [seen for seen in registry.log if seen.path.startswith("/token")]
    assert len(asked) == (0 if "registrytoken" in given else 1)
    if "username" in given:
        assert "scope=repository:a/b:pull" in asked[0].path and "account=user" in asked[0].path and "service=tests" in asked[0].path


def test_wrong_passwords_are_401_and_no_password_is_404(place: Place, registry: Registry) -> None:
    registry.image("a", "1", BASE)
    registry.auth = "bearer"
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        place.pull(f"{registry.host}/a", auth=auth(username="user", password="wrong"))
    with pytest.raises(NotFound, match="pull access denied"):
        place.pull(f"{registry.host}/a")


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_login_tells_right_from_wrong(place: Place, registry: Registry, kind: str) -> None:
    registry.auth = kind
    right = AuthConfig(username="user", password="secret", serveraddress=registry.host)

    answer = place.run(place.images.login(right))
    assert (answer.status, answer.identity_token) == ("Login Succeeded", "refresh" if kind == "bearer" else "")
    with pytest.raises(Unauthorized):
        place.run(place.images.login(AuthConfig(username="user", password="wrong", serveraddress=registry.host)))


def test_mirrors_are_asked_first_without_credentials(tmp_path: Path, registry: Registry) -> None:
    with Registry() as mirror, Place(tmp_path, mirrors=(f"{registry.host}=http://{mirror.host}",)) as place:
        mirror.image("a", "1", BASE)
        registry.image("b", "1", TOP)
        place.pull(f"{registry.host}/a", auth=auth(username="user", password="secret"))
        assert registry.log == []
        assert place.images.resolve(f"{registry.host}/a:1").tags == (f"{registry.host}/a:1",)
        place.pull(f"{registry.host}/b")
        assert place.files(f"{registry.host}/b:1") == {"etc/b": "top"}
        mirror.auth = "basic"
        mirror.log.clear()
        registry.image("c", "1", TOP)
        place.pull(f"{registry.host}/c", auth=auth(username="user", password="secret"))
        assert all("Authorization" not in seen.headers for seen in mirror.log)


def test_a_proxy_is_gone_through(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def proxy(handler: Handler) -> bool:
        seen.append(handler.path)
        handler.path = handler.path.removeprefix("http://registry.test")
        return False

    registry.hooks.append(proxy)
    registry.image("a", "1", BASE)
    with Place(tmp_path, insecure=("registry.test",), http_proxy=f"http://{registry.host}") as place:
        place.pull("registry.test/a")
    assert seen[-1].startswith("http://registry.test/v2/a/")


def test_tls_goes_through_a_proxy_as_a_tunnel(tmp_path: Path) -> None:
    """The proxy gets its own credentials and sees names; what it carries is verified with certs.d as always."""
    authority = Authority(tmp_path / "ca")
    (tmp_path / "data").mkdir()
    certificates = tmp_path / "certs/registry.test"
    certificates.mkdir(parents=True)
    (certificates / "ca.crt").write_bytes(authority.certificate.read_bytes())

    def tunnel(handler: Handler) -> bool:
        handler.send_response(200)
        handler.end_headers()
        with socket.create_connection(("127.0.0.1", registry.port)) as far:
            ends = {handler.connection: far, far: handler.connection}
            while all(data := [(one, one.recv(1 << 16)) for one in select.select(list(ends), [], [], 10)[0]]):
                for one, content in data:
                    ends[one].sendall(content)
                if any(not content for _, content in data):
                    break
        handler.close_connection = True
        return True

    with Registry(authority.context("server", "DNS:registry.test")) as registry, Registry() as proxy:
        registry.image("a", "1", BASE)
        registry.auth = "basic"
        proxy.hooks.append(tunnel)
        settings = {"https_proxy": f"http://me:word@{proxy.host}", "certificates": (str(tmp_path / "certs"),)}
        with Place(tmp_path / "data", **settings) as place:
            place.pull("registry.test/a", auth=auth(username="user", password="secret"))
            assert place.files("registry.test/a:1") == {"etc/a": "base"}
        assert {(seen.method, seen.path) for seen in proxy.log} == {("CONNECT", "registry.test:443")}
        assert {seen.headers.get("Proxy-Authorization") for seen in proxy.log} == {basic("me", "word")}
        assert all("Authorization" not in seen.headers for seen in proxy.log)
        assert all("Proxy-Authorization" not in seen.headers for seen in registry.log)


# Others


def test_docker_hubs_index_is_searched(place: Place, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"name": name, "description": "d", "star_count": stars, "is_official": official, "is_automated": False, "pull_count": 9}
        for name, stars, official in (("busybox", 30, True), ("some/box", 3, False))
    ]
    registry.hooks.append(lambda handler: handler.reply(200, json.dumps({"results": rows}).encode()) is None)
    here = Hosts.endpoint
    monkeypatch.setattr(Hosts, "endpoint", lambda self, domain, _: here(self, domain, registry.host))

    def found(term: str, **filters: tuple[str, ...]) -> list[str]:
        return [one.name for one in place.run(place.images.search(term, limit=5, filters=filters, auth=""))]

    assert found("busy box/é") == ["busybox", "some/box"]
    assert registry.log[-1].path == "/v1/search?q=busy%20box%2F%C3%A9&n=5"
    assert found("box", stars=("10",)) == ["busybox"] and found("box", **{"is-official": ("false",)}) == ["some/box"]
    assert found("docker.io/box") == ["busybox", "some/box"] and "q=box&" in registry.log[-1].path


def test_distribution_says_what_a_registry_has(place: Place, registry: Registry) -> None:
    made = registry.image("a", "1", BASE, kind=DOCKER)
    registry.index("a", "2", descriptor(DOCKER, made.manifest, platform={"os": "linux", "architecture": "arm", "variant": "v7"}))
    one = place.run(place.images.distribution(f"{registry.host}/a:1", auth=""))
    two = place.run(place.images.distribution(f"{registry.host}/a:2", auth=""))

    assert (one.descriptor.digest, one.descriptor.size, one.platforms[0].architecture) == (made.digest, len(made.manifest), "amd64")
    assert (two.descriptor.media_type, two.platforms[0].variant) == (INDEX, "v7")
    assert not place.images.catalogue.all()
    with pytest.raises(NotFound):
        place.run(place.images.distribution(f"{registry.host}/a:9", auth=""))


def test_a_registry_of_ones_own_cannot_be_searched_and_says_why(place: Place, registry: Registry) -> None:
    with pytest.raises(Unsupported, match="the distribution API has no search"):
        place.run(place.images.search(f"{registry.host}/a", limit=0, filters={}, auth=""))
    with pytest.raises(InvalidRequest, match="outside the range"):
        place.run(place.images.search("a", limit=101, filters={}, auth=""))
    with contextlib.suppress(SampanError):  # no network here
        place.run(place.images.search("a", limit=1, filters={}, auth=""))
