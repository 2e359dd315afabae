"""Cached steps that travel: exported by one daemon, imported by another that is told to, and believed by no other build."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator

import pytest

from support.builds import before, build, show
from support.daemon import Daemon
from support.registry import Registry

TEXT = (
    "FROM busybox AS tool\nRUN mkdir /t && cat /proc/sys/kernel/random/uuid > /t/uuid\n"
    "FROM busybox\nCOPY a /a\nRUN cat /proc/sys/kernel/random/uuid > /own\nCOPY --link --from=tool /t/uuid /uuid\n"
)
FILES = {"a": "1"}
FROM = '["{}"]'


@pytest.fixture(scope="module")
def other(engine_daemon: Daemon) -> Iterator[Daemon]:
    """A second daemon with the same base image."""
    made = Daemon().start()
    try:
        made.ok("POST", "/images/load", engine_daemon.call("GET", "/images/busybox/get").body)
        yield made
    finally:
        made.close()


@pytest.fixture
def pair(daemon: Daemon, other: Daemon) -> Iterator[tuple[Daemon, Daemon]]:
    """Two daemons that have built nothing."""

    def empty() -> None:
        for one in (daemon, other):
            for image in one.ok("GET", "/images/json"):
                if "busybox:latest" not in (image["RepoTags"] or []):
                    one.ok("DELETE", f"/images/{image['Id']}?force=1")
            one.ok("POST", "/build/prune?all=1")

    empty()
    yield daemon, other
    empty()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as made:
        yield made


def test_a_registry_takes_steps_from_one_daemon_to_another(pair: tuple[Daemon, Daemon], registry: Registry) -> None:
    here, there = pair
    name = f"{registry.host}/cache:1"
    first = build(here, TEXT, FILES, sampan__cache__to=f"type=registry,ref={name},mode=max", t="app").ok
    second = build(there, TEXT, FILES, cachefrom=FROM.format(name)).ok

    assert "Exporting 4 steps" in first.text
    assert second.text.count(f"Using cache of {name}") == 4
    probe = "cat /a /own /uuid"
    assert show(there, second.id, probe) == show(here, first.id, probe)
    assert here.call("GET", f"/images/{name}/json").status == 404
    manifest = json.loads(registry.manifests["cache", "1"][1])
    assert manifest["config"]["mediaType"] == "application/vnd.sampan.buildcache.config.v0+json"
    assert there.call("POST", f"/images/create?fromImage={name}").body.find(b"is no image") > 0


def test_row_58_imported_steps_are_no_cache_for_a_build_that_did_not_ask(pair: tuple[Daemon, Daemon], registry: Registry) -> None:
    here, there = pair
    name = f"{registry.host}/cache:1"
    build(here, TEXT, FILES, sampan__cache__to=f"type=registry,ref={name},mode=max").ok
    build(there, TEXT, FILES, cachefrom=FROM.format(name)).ok
    alone = build(there, TEXT, FILES).ok
    with_another = build(there, TEXT, FILES, cachefrom='["nothing.invalid/x"]').ok

    assert "Using cache" not in alone.text
    assert with_another.cached == 4, "by now they are its own"
    assert "[Warning] cache-from nothing.invalid/x" in with_another.text


def test_min_exports_what_the_image_is_made_of(pair: tuple[Daemon, Daemon], registry: Registry) -> None:
    here, there = pair
    name = f"{registry.host}/cache:1"
    build(here, TEXT, FILES, sampan__cache__to=name).ok
    second = build(there, TEXT, FILES, cachefrom=FROM.format(f"type=registry,ref={name}")).ok

    assert second.text.count("Using cache of") == 2  # COPY and RUN; what is copied of `tool` differs here


def test_an_image_brings_its_own_steps(pair: tuple[Daemon, Daemon], registry: Registry) -> None:
    here, there = pair
    name = f"{registry.host}/app:1"
    plain = build(here, TEXT, FILES).ok
    build(here, TEXT, FILES, buildargs={"BUILDKIT_INLINE_CACHE": "1"}, t=name).ok
    pushed = here.call("POST", f"/images/{registry.host}/app/push?tag=1", headers={"X-Registry-Auth": "e30="})
    assert b"errorDetail" not in pushed.body, pushed.body
    remote = build(there, TEXT, FILES, cachefrom=FROM.format(name)).ok
    here.ok("POST", "/build/prune?all=1")
    local = build(here, TEXT, FILES, cachefrom=FROM.format(name)).ok

    assert remote.text.count("Using cache of") == 2
    assert local.text.count("Using cache of") == 2
    assert "sampan.buildcache" not in here.call("GET", f"/images/{plain.id}/get").body.decode("latin1")


def layout(daemon: Daemon, text: str, **query: str) -> bytes:
    made = build(daemon, text, FILES, sampan__cache__to="type=local,mode=max", **query)
    keys = next(message["aux"]["CacheSteps"] for message in made.messages if "CacheSteps" in message.get("aux", {}))
    return daemon.call("POST", "/sampan/cache", keys).body


def test_a_client_may_keep_the_steps(pair: tuple[Daemon, Daemon]) -> None:
    here, there = pair
    archive = layout(here, TEXT)
    made = before(there, TEXT, FILES, {"uploads": [{"kind": "cache", "name": ""}]}, archive).ok
    gone = here.call("POST", "/sampan/cache", ["0" * 64])

    assert made.text.count("Using cache of the client's cache") == 4
    assert gone.status == 404
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {"oci-layout", "index.json"} < set(tar.getnames())


def test_row_48_a_cache_whose_content_is_another_is_not_used(pair: tuple[Daemon, Daemon], registry: Registry) -> None:
    """The blob fits its digest, but does not unpack to what the step is said to have given: the step runs instead."""
    here, there = pair
    name = f"{registry.host}/cache:1"
    build(here, TEXT, FILES, sampan__cache__to=f"type=registry,ref={name},mode=max").ok
    manifest = json.loads(registry.manifests["cache", "1"][1])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("evil")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    blob = gzip.compress(out.getvalue(), mtime=0)
    for layer in manifest["layers"]:
        layer.update(digest=registry.add(blob), size=len(blob))
    registry.put("cache", json.dumps(manifest).encode(), manifest["mediaType"], "1")
    made = build(there, TEXT, FILES, cachefrom=FROM.format(name)).ok

    assert "Using cache" not in made.text
    assert made.text.count(f"[Warning] {name}") == 3  # the last step copies something else now: it is not asked for
    assert show(there, made.id, "ls /evil 2>&1").startswith("1: ")


@pytest.mark.parametrize("damage", ["no steps", "key", "layer", "count", "no JSON"])
def test_row_64_a_malformed_cache_is_a_warning(daemon: Daemon, registry: Registry, damage: str) -> None:
    layer = gzip.compress(b"\0" * 1024, mtime=0)
    diff_id = "sha256:" + hashlib.sha256(b"\0" * 1024).hexdigest()
    steps = [{"key": "x" if damage == "key" else "a" * 64, "text": "", "layer": "x" if damage == "layer" else diff_id}]
    diff_ids = [] if damage == "count" else [diff_id]
    document = {"rootfs": {"diff_ids": diff_ids}, "sampan.buildcache.v0": 7 if damage == "no steps" else steps}
    config = b"{" if damage == "no JSON" else json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/x", "digest": registry.add(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": registry.add(layer), "size": len(layer)}],
    }  # fmt: skip
    registry.put("bad", json.dumps(manifest).encode(), manifest["mediaType"], "1")  # type: ignore[arg-type]
    made = build(daemon, "FROM busybox\nCOPY a /a\n", FILES, cachefrom=FROM.format(f"{registry.host}/bad:1")).ok

    assert f"[Warning] cache-from {registry.host}/bad:1: " in made.text


def test_an_export_that_fails_fails_the_build_unless_it_may(daemon: Daemon) -> None:
    text = "FROM busybox\nCOPY a /a\n"
    failed = build(daemon, text, FILES, sampan__cache__to="type=registry,ref=127.0.0.1:9/x", t="unnamed")
    lenient = build(daemon, text, FILES, sampan__cache__to="type=registry,ref=127.0.0.1:9/x,ignore-error=true").ok
    wrong = [build(daemon, text, FILES, sampan__cache__to=one) for one in ("type=s3", "type=registry", "a,mode=x=,mode=mid")]

    assert failed.error
    assert daemon.call("GET", "/images/unnamed/json").status == 404
    assert "[Warning] cache-to 127.0.0.1:9/x" in lenient.text
    assert [one.status for one in wrong] == [400, 400, 400]


def test_a_cache_mount_and_secret_are_in_no_export(daemon: Daemon) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=cache,target=/c --mount=type=secret,id=s,required "
        "echo cached-text > /c/f; cat /run/secrets/s > /dev/null; echo out > /o\n"
    )
    secret = {"secrets": {"s": "aHVudGVyMg=="}}
    made = before(daemon, text, {}, secret, sampan__cache__to="type=local,mode=max").ok
    keys = next(message["aux"]["CacheSteps"] for message in made.messages if "CacheSteps" in message.get("aux", {}))
    archive = daemon.call("POST", "/sampan/cache", keys).body

    assert b"out\n" in archive
    assert b"hunter2" not in archive
    assert b"cached-text\n" not in archive
