"""Named contexts: folders, archives, URLs, images and OCI layouts under a name of their own."""

from __future__ import annotations

import http.server
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.builds import before, build, config, context, link, show
from support.builds import web as served
from support.daemon import Daemon

DANGLING = "/images/prune?filters=%7B%22dangling%22:%5B%22true%22%5D%7D"


@pytest.fixture
def clean(daemon: Daemon) -> Iterator[Daemon]:
    daemon.ok("POST", DANGLING)
    daemon.ok("POST", "/build/prune?all=1")
    there = sorted(one["Id"] for one in daemon.ok("GET", "/images/json?all=1"))
    yield daemon
    daemon.ok("POST", DANGLING)
    daemon.ok("POST", "/build/prune?all=1")
    assert list((daemon.data_root / "build/contexts").iterdir()) == []
    assert sorted(one["Id"] for one in daemon.ok("GET", "/images/json?all=1")) == there


def told(*uploads: tuple[str, str]) -> dict[str, object]:
    return {"uploads": [{"kind": kind, "name": name} for kind, name in uploads]}


def test_uploaded_folders_are_copied_mounted_and_built_from(clean: Daemon) -> None:
    text = (
        "FROM busybox\nCOPY --from=one /a /d/\nCOPY --from=two . /e/\n"
        "RUN --mount=from=one,target=/m cat /m/a /m/sub/b > /mounted\n"
        "RUN --mount=from=two,target=/m,rw echo x > /m/new && ls /m > /listed\nCOPY own /own\n"
    )
    one, two = context({"a": "A", "sub/b": "B"}), context({"c": ("C", 0o750)})
    made = before(clean, text, {"own": "o"}, told(("context", "one"), ("context", "two")), one, two).ok

    assert show(clean, made.id, "cat /d/a /mounted /listed /own; stat -c '%a %u' /e/c; ls /m 2>&1 | grep -c 'No such'") == (
        "AABc\nnew\no750 0\n1\n"
    )


def test_what_a_context_has_is_what_the_cache_goes_by(clean: Daemon) -> None:
    text = "FROM busybox\nCOPY --from=one a /a\n"
    before(clean, text, {}, told(("context", "one")), context({"a": "1", "b": "1"})).ok
    same = before(clean, text, {}, told(("context", "one")), context({"a": "1", "b": "2"})).ok
    other = before(clean, text, {}, told(("context", "one")), context({"a": "2"}), sampan__explain=1).ok

    assert (same.cached, other.cached) == (1, 0)
    assert show(clean, other.id, "cat /a") == "2"
    assert "Not cached: file a changed" in other.text


def test_a_stage_may_begin_with_files(clean: Daemon) -> None:
    saved = clean.call("GET", "/images/busybox/get").body
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        files = tar.extractfile(manifest[0]["Layers"][0])
        assert files is not None
        root = files.read()
    made = before(clean, "FROM files\nRUN echo made > /x\nCMD cat /x\n", {}, told(("context", "files")), root).ok
    again = before(clean, "FROM files\nRUN echo made > /x\nCMD cat /x\n", {}, told(("context", "files")), root).ok

    assert show(clean, made.id, "cat /x") == "made\n"
    assert (again.cached, again.id) == (2, made.id)
    history = clean.ok("GET", f"/images/{made.id}/history")
    assert history[-1]["CreatedBy"] == "FROM files"


def test_a_context_takes_the_place_of_an_image_and_of_a_stage(clean: Daemon) -> None:
    build(clean, "FROM busybox\nENV WHICH=other\nRUN echo other > /which\n", t="other").ok
    image = build(
        clean, "FROM nowhere.invalid/base:1\nRUN cat /which\n", sampan__context="nowhere.invalid/base:1=docker-image://other"
    ).ok
    stage = build(
        clean, "FROM busybox AS s\nRUN false\nFROM busybox\nCOPY --from=s /which /\n", sampan__context="s=docker-image://other"
    ).ok
    clean.ok("DELETE", "/images/other")

    assert "WHICH=other" in config(clean, image.id)["Config"]["Env"]
    assert "other\n" in image.text
    assert show(clean, stage.id, "cat /which") == "other\n"


def layout(daemon: Daemon, image: str) -> bytes:
    """Return an OCI layout with one image that has a name."""
    saved = daemon.call("GET", f"/images/{image}/get").body
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar, tarfile.open(fileobj=out, mode="w") as made:
        for entry in tar:
            if entry.name != "manifest.json":
                made.addfile(entry, tar.extractfile(entry) if entry.isreg() else None)
    return out.getvalue()


def test_an_image_of_a_layout_is_a_base_and_gone_afterwards(clean: Daemon) -> None:
    source = build(clean, "FROM busybox\nENV FROM_LAYOUT=1\nRUN echo lay > /lay\n", t="lay:1").ok
    archive = layout(clean, "lay:1")
    clean.ok("DELETE", f"/images/{source.id}?force=1")
    clean.ok("POST", "/build/prune?all=1")
    made = before(clean, "FROM base\nRUN cat /lay\n", {}, told(("image", "base")), archive).ok
    plain = before(clean, "FROM base\n", {}, told(("image", "base")), archive).ok
    wrong = before(clean, "FROM base\n", {}, told(("image", "base")), context({"x": "1"}))

    assert "lay\n" in made.text
    assert "FROM_LAYOUT=1" in config(clean, made.id)["Config"]["Env"]
    assert clean.call("GET", "/images/lay:1/json").status == 404
    assert plain.id == source.id
    assert wrong.status == 400


class _Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/cut":
            self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(context({"d/in": "packed"}) if self.path == "/x.tar" else b"bare")


@pytest.fixture
def web() -> Iterator[str]:
    with served(_Files) as port:
        yield f"http://127.0.0.1:{port}"


def test_urls_are_archives_or_files(clean: Daemon, web: str) -> None:
    text = "FROM busybox\nCOPY --from=tar d/in /in\nCOPY --from=file name /file\nCOPY --from=tar . /all/\n"
    made = build(clean, text, sampan__context=[f"tar={web}/x.tar", f"file={web}/a/name"]).ok
    missing = build(clean, "FROM busybox\nCOPY --from=c . /\n", sampan__context="c=http://127.0.0.1:9/x")

    assert show(clean, made.id, "cat /in /file /all/d/in") == "packedbarepacked"
    assert "ADD failed" in missing.error or "Connection refused" in missing.error
    assert "1 bytes are missing" in build(clean, f"FROM busybox\nADD {web}/cut /\n").error


@pytest.mark.parametrize(
    "one", ["a", "=x", "scratch=docker-image://busybox", "a b=docker-image://busybox", "a=/etc", "a=file:///etc", "A\x01=http://x/"]
)
def test_row_65_only_images_and_urls_are_sources(clean: Daemon, one: str) -> None:
    made = build(clean, "FROM busybox\nCOPY --from=a . /x/\n", sampan__context=one)

    assert made.status == 400
    assert "build context" in made.refusal


def test_row_69_and_70_a_hostile_context_does_not_lead_out(clean: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("CANARY")
    text = "FROM busybox\nCOPY --from=c l /l/\nCOPY --from=c ../../../../../../etc/hostname /h\n"
    made = before(clean, text, {}, told(("context", "c")), context({"l": link("l", str(tmp_path))}))
    mounted = before(
        clean, "FROM busybox\nRUN --mount=from=c,source=l,target=/m cat /m/file\n", {}, told(("context", "c")),
        context({"l": link("l", str(tmp_path))}),
    )  # fmt: skip
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("../../../../../../../../" + str(tmp_path / "evil"))
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    before(clean, "FROM busybox\nCOPY --from=c . /\n", {}, told(("context", "c")), out.getvalue())

    assert "CANARY" not in made.text + mounted.text
    assert not made.id
    assert not mounted.id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_an_image_that_was_here_before_stays(clean: Daemon) -> None:
    made = before(clean, "FROM base\nRUN true\n", {}, told(("image", "base")), layout(clean, "busybox")).ok

    assert clean.call("GET", "/images/busybox/json").status == 200
    assert made.id
