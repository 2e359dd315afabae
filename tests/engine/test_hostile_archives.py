"""Archives that no registry should give, loaded into a real daemon: errors with a reason, and nothing left of them."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.oci import image as oci
from support.daemon import Answer, Daemon, busybox_rootfs
from support.holds import Holds, nothing_more_than
from support.images import LAYER, TOP, config, descriptor, docker_archive, index, manifest, oci_archive
from support.tar_attacks import attacks
from support.tars import END, archive, blocks, directory, hardlink, member, pax_header, raw_header, symlink

CANARY = "secret-canary"
TAGS = ("../x:y", "A:b", "a:b:c", "a@sha256:x", "a", "x" * 400 + ":y", "")


@pytest.fixture(scope="module")
def target() -> Iterator[Daemon]:
    """A daemon of the module's own, so that what it holds can be counted."""
    made = Daemon().start()
    try:
        made.import_busybox()
        load(made, docker_archive(config(LAYER), LAYER, tags=["warm:up"]))
        made.ok("DELETE", "/images/warm:up")
        yield made
        assert "Traceback" not in made.log
    finally:
        made.close()


def load(daemon: Daemon, data: bytes) -> Answer:
    return daemon.call("POST", "/images/load?quiet=1", data, headers={"Content-Type": "application/x-tar"})


def images(daemon: Daemon) -> set[str]:
    return {one["Id"] for one in daemon.ok("GET", "/images/json?all=1")}


def refused_or_whole(daemon: Daemon, what: str, data: bytes) -> bool:
    """Load it; return whether it was refused.  What was accepted is a whole image, which can go again."""
    before = images(daemon)
    answer = load(daemon, data)
    assert answer.status < 500, (what, answer)
    refused = answer.status >= 400 or b'"error"' in answer.body
    for made in images(daemon) - before:
        assert not refused, (what, answer)
        daemon.ok("DELETE", f"/images/{made}?force=1")
    return refused


def mutated(good: bytes, seed: int) -> bytes:
    chance, data = random.Random(seed), bytearray(good)
    kind = seed % 5
    if kind == 0:
        for _ in range(chance.choice((1, 4, 40))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del data[chance.randrange(1, len(data)) :]
    elif kind == 2:
        start = 512 * chance.randrange(len(data) // 512)
        del data[start : start + 512 * chance.choice((1, 3))]
    elif kind == 3:
        start, place = (512 * chance.randrange(len(data) // 512) for _ in range(2))
        data[place:place] = data[start : start + 512]
    else:
        start = 512 * chance.randrange(len(data) // 512)
        data[start + chance.randrange(512) : start + 512] = chance.randbytes(chance.randrange(1, 512))
    return bytes(data)


def hostile_layers(canary: str) -> list[bytes]:
    up = "../" * 12
    return [
        archive(member(f"{up}{canary[1:]}/new", content=b"x")),
        archive(member(f"{canary}/new", content=b"x")),
        archive(symlink("a", canary), member("a/new", content=b"x")),
        archive(symlink("a", f"{up}{canary[1:]}"), member("a/CANARY", content=b"x")),
        archive(symlink("a", canary), directory("a", mode=0o777), member("a/new")),
        archive(hardlink("h", f"{canary}/CANARY"), member("h", content=b"x")),
        archive(hardlink("h", f"{up}{canary[1:]}/CANARY")),
        archive(symlink("s", f"{canary}/CANARY"), hardlink("h", "s"), member("h", content=b"x")),
        archive(symlink("a", canary), member("a/.wh.CANARY"), member("a/.wh..wh..opq")),
        archive(member("x", content=b"x", pax_headers={"path": f"{up}{canary[1:]}/new"})),
        archive(symlink("l", "ok", pax_headers={"linkpath": canary}), member("l/new")),
        archive(member("n" * 4096, content=b"x")),
        archive(member("/".join(["d" * 200] * 60), content=b"x")),
        archive(member(".wh..", content=b""), member(".wh...", content=b"")),
        archive(symlink("..", canary)),
        archive(directory("etc"), symlink("etc/passwd", f"{canary}/CANARY")),
        raw_header(b"neg", size=b"\xff" * 12) + END,
        raw_header(b"huge", size=b"\x80" + b"\x7f" * 11) + END,
        pax_header((b"size", b"-1")) + raw_header(b"x") + END,
        pax_header((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9" * 18)) + raw_header(b"x") + END,
        pax_header((b"SCHILY.xattr.trusted.overlay.redirect", b"/../../etc")) + raw_header(b"d", b"5") + END,
        raw_header(b"dev", b"4", devmajor=b"0000010\0", devminor=b"0000000\0") + END,
        raw_header(b"?", b"Z") + blocks(b"x" * 700) + END,
        b"\0" * 512 + LAYER,
        LAYER[:-1024] + b"x" * 5000,
        *attacks(f"{up}{canary[1:]}").values(),
    ]


def hostile_documents() -> list[bytes]:
    good = manifest(config(LAYER), LAYER)
    deep = b"[" * 100_000
    both = json.dumps({**json.loads(good), "manifests": []}).encode()
    paths = ("/etc/passwd", "../c.json", "c.json/../c.json", "", "\0", "x" * 5000)
    return [
        docker_archive(deep, LAYER),
        docker_archive(b'{"rootfs":{"diff_ids":["sha256:../../x"]}}', LAYER),
        docker_archive(b'{"rootfs":{"diff_ids":[5]}}', LAYER),
        docker_archive(b'{"rootfs":{"diff_ids":[],"diff_ids":[]}}', LAYER),
        docker_archive(config(LAYER, TOP), LAYER),
        docker_archive(config(TOP), LAYER),
        docker_archive(config(LAYER, os="windows"), LAYER),
        *(docker_archive(config(LAYER), LAYER, Config=path) for path in paths),
        *(docker_archive(config(LAYER), LAYER, Layers=[path]) for path in paths),
        *(
            docker_archive(config(LAYER), LAYER, tags=[tag])
            for tag in ("../x:y", "A:b", "a:b:c", "a@sha256:x", "a", "x" * 400 + ":y", "")
        ),
        docker_archive(config(LAYER), LAYER, RepoTags={"a": 1}),
        archive(member("manifest.json", content=deep)),
        archive(member("manifest.json", content=b"9" * 5_000_000)),
        archive(symlink("manifest.json", "/etc/passwd")),
        archive(symlink("manifest.json", "a"), symlink("a", "manifest.json")),
        archive(raw := member("manifest.json", content=b"[]"), raw),
        oci_archive(index(descriptor(both, oci.OCI_MANIFEST)), both, config(LAYER), LAYER),
        oci_archive(index(descriptor(good, oci.OCI_MANIFEST) | {"digest": "sha256:" + "0" * 64}), good, config(LAYER), LAYER),
        oci_archive(index(descriptor(good, oci.OCI_MANIFEST) | {"digest": "sha256:../../../etc/passwd"}), good),
        oci_archive(index(descriptor(good, oci.OCI_MANIFEST) | {"size": -1}), good, config(LAYER), LAYER),
        oci_archive({"schemaVersion": 2, "manifests": None}),
        oci_archive([]),
        b"",
        b"\x1f\x8b" + b"x" * 100,
        b"\x28\xb5\x2f\xfd" + b"x" * 100,
        b"\xfd7zXZ\0" + b"x" * 100,
        b"BZh9" + b"x" * 100,
    ]


def test_row_43_48_p13_mutated_archives_are_refused_or_whole_and_leave_nothing(target: Daemon) -> None:
    document = manifest(config(LAYER, TOP), LAYER, TOP)
    good = (
        docker_archive(config(LAYER, TOP), LAYER, TOP, tags=["mutated:1"]),
        oci_archive(index(descriptor(document, oci.OCI_MANIFEST)), document, config(LAYER, TOP), LAYER, TOP),
    )
    assert not any(refused_or_whole(target, "control", one) for one in good)
    before = Holds.now(target)

    refused = [refused_or_whole(target, f"mutation {seed}", mutated(good[seed % 2], seed)) for seed in range(120)]

    assert 60 <= sum(refused) < 120, sum(refused)  # some hit padding: the control that the harness does not refuse everything
    nothing_more_than(target, before)


def test_row_37_43_45_46_p13_hostile_layers_touch_nothing_outside(target: Daemon, tmp_path: Path) -> None:
    (tmp_path / "CANARY").write_text(CANARY)
    (tmp_path / "CANARY").chmod(0o600)
    outside = [(path, path.lstat()) for path in (tmp_path, tmp_path / "CANARY")]
    before = Holds.now(target)

    for number, layer in enumerate(hostile_layers(str(tmp_path))):
        refused_or_whole(target, f"layer {number}", docker_archive(config(layer), layer))
        refused_or_whole(target, f"layers {number}", docker_archive(config(layer, TOP), layer, TOP))
        gz = zlib.compressobj(wbits=31)
        squeezed = gz.compress(layer) + gz.flush()
        refused_or_whole(target, f"squeezed {number}", docker_archive(config(layer), squeezed))
        answer = target.call("POST", "/images/create?fromSrc=-&repo=hostile&tag=1", layer)  # import
        assert answer.status < 500, (number, answer)
        target.call("DELETE", "/images/hostile:1?force=1")

    assert os.listdir(tmp_path) == ["CANARY"] and (tmp_path / "CANARY").read_text() == CANARY
    for path, state in outside:
        now = path.lstat()
        assert (now.st_mode, now.st_uid, now.st_mtime_ns, now.st_nlink) == (
            state.st_mode, state.st_uid, state.st_mtime_ns, state.st_nlink,
        )  # fmt: skip
    nothing_more_than(target, before)


def test_row_46_devices_of_an_image_open_nothing(target: Daemon) -> None:
    """They come out as the layer has them, and the container may open none: not as root of the host either."""
    nodes = [member(name, kind, devmajor=major, devminor=minor, mode=0o666)
             for name, kind, major, minor in (("sda", tarfile.BLKTYPE, 8, 0), ("mem", tarfile.CHRTYPE, 1, 1))]  # fmt: skip
    devices, rootfs = archive(*nodes), busybox_rootfs()
    load(target, docker_archive(config(rootfs, devices), rootfs, devices, tags=["devices:1"]))
    script = "stat -c %F:%t:%T /sda /mem; for f in /sda /mem; do dd if=$f of=/x count=1 2>&1 | grep -c 'not permitted'; done"
    for mode in ("", "host"):
        code, output = target.run("sh", "-c", script, image="devices:1", HostConfig={"UsernsMode": mode})
        assert output.decode().splitlines() == ["block special file:8:0", "character special file:1:1", "1", "1"], (mode, code)
    target.ok("DELETE", "/images/devices:1?force=1")


def test_row_47_48_49_hostile_documents_are_refused(target: Daemon) -> None:
    before = Holds.now(target)
    for number, data in enumerate(hostile_documents()):
        began = time.monotonic()
        assert refused_or_whole(target, f"document {number}", data), number
        assert time.monotonic() - began < 5, number
    nothing_more_than(target, before)


def bombs() -> Iterator[tuple[str, bytes]]:
    gz = zlib.compressobj(9, wbits=31)
    head = raw_header(b"zeros", size=b"\x80" + (10 << 30).to_bytes(11, "big"))
    pieces = [gz.compress(head)]
    zeros = bytes(1 << 20)
    pieces += [gz.compress(zeros) for _ in range(128)]  # the archive claims 10 GiB and holds 128 MiB: 1000 to 1
    yield "gzip", b"".join([*pieces, gz.flush()])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for number in range(25_000):
            tar.addfile(tarfile.TarInfo(f"{number}"))
    yield "tiny files", out.getvalue()
    yield "zstd window", b"\x28\xb5\x2f\xfd\x00\xa8" + b"x" * 1000
    headers = b"".join(pax_header((b"comment", b"x" * 65000)) for _ in range(400))
    yield "pax headers", headers + raw_header(b"x") + END


def memory(daemon: Daemon) -> int:
    """Return the resident set in KiB."""
    for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.alone
@pytest.mark.slow
def test_row_54_bombs_fail_in_bounded_memory_while_others_are_served(target: Daemon) -> None:
    before, memory_before = Holds.now(target), memory(target)
    for what, bomb in bombs():
        layer = docker_archive(config(LAYER), bomb)
        outcome: list[Answer] = []
        loader = threading.Thread(target=lambda data, told: told.append(load(target, data)), args=(layer, outcome))
        loader.start()
        waits, most = [], 0
        while loader.is_alive():
            began = time.monotonic()
            assert target.call("GET", "/containers/json").status == 200
            waits.append(time.monotonic() - began)
            most = max(most, memory(target))
            loader.join(0.005)
        assert (outcome and b'"error"' in outcome[0].body) or outcome[0].status >= 400, (what, outcome)
        assert max(waits, default=0) < 1.0, (what, max(waits))
        assert most - memory_before < 200 << 10, (what, memory_before, most)
    nothing_more_than(target, before)


FORGED = {
    "io.podman.annotations.seccomp": "unconfined",
    "io.podman.annotations.privileged": "TRUE",
    "io.podman.annotations.userns": "host",
    "org.criu.checkpoint.container.name": "x",
    "io.kubernetes.cri-o.annotations.checkpoint.name": "x",
    "io.containerd.image.checkpoint": "true",
    "io.kubernetes.cri.log-uri": "binary:///bin/busybox",
    "cdi.k8s.io/all": "vendor.com/x=all",
    "sampan.security": "unconfined",
}


def test_row_30_no_annotation_or_label_of_an_image_opens_the_sandbox(target: Daemon) -> None:
    rootfs = target.call("GET", "/images/busybox/get").body
    with tarfile.open(fileobj=io.BytesIO(rootfs)) as saved:
        table = json.load(saved.extractfile("manifest.json"))  # type: ignore[arg-type]  # it is a file
        layer = saved.extractfile(table[0]["Layers"][0]).read()  # type: ignore[union-attr]
        old = json.load(saved.extractfile(table[0]["Config"]))  # type: ignore[arg-type]
    extra = {"checkpoint": {"path": "/"}, "process": {"capabilities": {"bounding": ["CAP_SYS_ADMIN"]}}, "linux": {"seccomp": None}}
    old["config"] = {**old.get("config", {}), "Labels": FORGED, "Annotations": FORGED, "Privileged": True, "SecurityOpt": ["x"]}
    document = json.dumps({**old, **extra, "annotations": FORGED}).encode()
    text = manifest(document, layer)
    forged = json.dumps({**json.loads(text), "annotations": FORGED}).encode()
    name = {"io.containerd.image.name": "docker.io/library/forged:1", **FORGED}
    archive_ = oci_archive(index(descriptor(forged, oci.OCI_MANIFEST, annotations=name)), forged, document, layer)
    assert b'"error"' not in load(target, archive_).body

    script = "grep -E 'Cap|Seccomp:|NoNew' /proc/self/status; cat /proc/self/uid_map /proc/mounts; ls /sys/firmware /dev"
    ordinary = target.run("sh", "-c", script)
    assert ordinary[0] == 0 and b"Seccomp:\t2" in ordinary[1]

    def plain(output: bytes) -> list[bytes]:
        return [line for line in output.splitlines() if b"overlay" not in line and b"655360" not in line and b"65536" not in line]

    assert plain(target.run("sh", "-c", script, Image="forged:1")[1]) == plain(ordinary[1])
    target.ok("DELETE", "/images/forged:1?force=1")


def test_row_31_an_archive_takes_a_name_only_with_a_clear_word(target: Daemon) -> None:
    """Names come from the archive as docker load's do: what loses its name is told, keeps its content, and stays usable."""
    old = target.ok("GET", "/images/busybox/json")["Id"]
    document = config(LAYER, logs="/etc/passwd", devices=["vendor.com/x=all"], mounts=[{"source": "/", "destination": "/host"}])
    try:
        answer = load(target, docker_archive(document, LAYER, tags=["busybox:latest"]))
        assert f"The image busybox:latest already exists, renaming the old one with ID {old}" in answer.body.decode()
        assert target.ok("GET", f"/images/{old}/json")["RepoTags"] == []
        made = target.ok("GET", "/images/busybox/json")
        assert not made["Config"].get("Volumes") and "vendor.com" not in json.dumps(made)
    finally:
        target.ok("POST", f"/images/{old}/tag?repo=busybox&tag=latest")
