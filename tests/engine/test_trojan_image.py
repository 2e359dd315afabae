"""An image in which everything that an engine might run by name is a trap (rows 19, 26; P4-P6): nothing of it ever runs."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import tarfile
from collections.abc import Iterator

import pytest
import zstandard

from support.daemon import BUSYBOX, Daemon
from support.tars import archive, directory, member

NAMES = (
    "sh bash ash tar gzip gunzip pigz unpigz xz unxz bzip2 zstd unzstd unzip ps top ip iptables nft nsenter mount umount python "
    "python3 python3.11 python3.12 ldconfig ldd git newuidmap newgidmap getent id passwd cat ls cp mv rm find stat chown chmod "
    "mkdir ln env true kill sleep init tini docker-init runc sampan perl awk sed grep"
).split()
TRAP = b'#!/bin/real/busybox sh\necho "$0 $*" >> /CANARY_RAN\n'
PYTHON = b"open('/CANARY_RAN', 'a').write(__file__ + chr(10))\n"
EVIL = [
    "PATH=/bin", "LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/lib", "PYTHONPATH=/evil", "PYTHONSTARTUP=/evil/sitecustomize.py",
    "GCONV_PATH=/evil", "BASH_ENV=/bin/sh", "ENV=/bin/sh", "TAR_OPTIONS=--checkpoint=1", "GZIP=-9", "XZ_OPT=-9",
]  # fmt: skip


def rootfs() -> bytes:
    folders = ["bin", "bin/real", "sbin", "usr", "usr/bin", "usr/sbin", "etc", "lib", "evil", "evil/encodings", "data"]
    files = [member("bin/real/busybox", content=BUSYBOX.read_bytes(), mode=0o755)]
    files += [member(f"{place}/{name}", content=TRAP, mode=0o755) for place in ("bin", "usr/bin", "sbin") for name in NAMES]
    files += [member(f"lib/libnss_{name}.so.2", content=TRAP, mode=0o755) for name in ("files", "compat", "dns", "evil")]
    files += [member("etc/nsswitch.conf", content=b"passwd: evil\ngroup: evil\n"), member("evil.so", content=TRAP, mode=0o755)]
    files += [member("etc/ld.so.preload", content=b"/evil.so\n"), member("etc/passwd", content=b"root:x:0:0::/:/bin/sh\n")]
    files += [member("etc/group", content=b"root:x:0:\n"), member("data/file", content=b"x" * 5000)]
    trees = {f"usr/lib/python3.{minor}" for minor in range(9, 16)} | {entry.lstrip("/") for entry in sys.path if entry[:1] == "/"}
    for name in ("encodings/__init__.py", "encodings/idna.py", "tarfile.py", "pwd.py"):
        files += [member(f"{place}/{name}", content=PYTHON) for place in trees]
    return archive(*(directory(name) for name in folders), *files)


@pytest.fixture
def trojan(daemon: Daemon) -> Iterator[str]:
    """A running container of the image."""
    daemon.ok("POST", "/images/create?fromSrc=-&repo=trojan&tag=latest", rootfs())
    health = {"Test": ["CMD", "/bin/real/busybox", "test", "-d", "/data"], "Interval": 10**9, "Timeout": 10**9}
    container = daemon.create(
        "/bin/real/busybox",
        "sleep",
        "1000",
        image="trojan",
        Env=EVIL,
        Healthcheck=health,
        HostConfig={"Binds": ["trojan-vol:/data"]},
    )
    daemon.ok("POST", f"/containers/{container}/start")
    yield container
    daemon.remove_all()
    for image in ("trojan", "trojan-copy", "trojan-built"):
        daemon.call("DELETE", f"/images/{image}?force=1")
    daemon.call("DELETE", "/volumes/trojan-vol?force=1")


def ran(daemon: Daemon, container: str) -> str:
    """Return what the traps have written, read from the host's side; a control that reading works is in the test."""
    found = []
    for folder, _, files in os.walk(daemon.data_root):
        if "CANARY_RAN" in files:
            with open(f"{folder}/CANARY_RAN") as file:
                found.append(file.read())
    return "\n".join(found)


def packed() -> Iterator[bytes]:
    plain = archive(member("new", content=b"n" * 3000))
    yield from (plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain), zstandard.compress(plain))


def test_row_19_row_26_no_operation_runs_or_loads_anything_of_the_image(daemon: Daemon, trojan: str) -> None:
    base = f"/containers/{trojan}"

    def call(method: str, path: str, body: object = None, **more: object) -> int:
        status = daemon.call(method, path, body, **more).status  # type: ignore[arg-type]
        assert status < 500 or status == 501, (method, path, status)
        return status

    for method, path in (
        ("GET", "/top"), ("GET", "/top?ps_args=aux"), ("GET", "/stats?stream=0"), ("GET", "/changes"), ("GET", "/export"),
        ("GET", "/archive?path=/data"), ("HEAD", "/archive?path=/data/file"), ("GET", "/archive?path=/etc/passwd"),
        ("GET", "/logs?stdout=1&stderr=1"), ("GET", "/json?size=1"), ("POST", "/resize?h=10&w=10"),
    ):  # fmt: skip
        call(method, base + path)
    for data in packed():
        for place in ("/data", "/etc"):
            call("PUT", f"{base}/archive?path={place}", data, headers={"Content-Type": "application/x-tar"})
    call("POST", f"/commit?container={trojan}&repo=trojan-copy", {})
    for user in ("", "root", "root:root", "0:0"):
        made = daemon.ok("POST", f"{base}/exec", {"Cmd": ["/bin/real/busybox", "true"], "User": user, "Env": EVIL})["Id"]
        daemon.ok("POST", f"/exec/{made}/start", {"Detach": True})
    daemon.docker("cp", f"{trojan}:/data/file", "/dev/null", check=False)
    context = archive(
        member("Dockerfile", content=b"FROM scratch\nCOPY --from=trojan --chown=root:root /data /\nENV LD_PRELOAD=/evil.so\n")
    )
    call("POST", "/build?t=trojan-built&version=1", context, headers={"Content-Type": "application/x-tar"})
    call("POST", "/images/trojan/tag?repo=trojan-copy&tag=2")
    assert daemon.call("GET", "/images/trojan/get").status == 200
    for verb in ("restart?t=0", "stop?t=0", "start", "pause", "unpause", "kill", "start"):
        call("POST", f"{base}/{verb}")
    call("GET", f"{base}/export")
    while daemon.ok("GET", f"{base}/json")["State"].get("Health", {"Status": "none"})["Status"] == "starting":
        daemon.ok("GET", "/_ping")

    assert ran(daemon, trojan) == ""
    # The control: a trap that is run is seen, and so is one that only the image's own shell runs.
    made = daemon.ok("POST", f"{base}/exec", {"Cmd": ["sh", "-c", "ps"], "AttachStdout": True})["Id"]
    daemon.ok("POST", f"/exec/{made}/start", {})
    assert "/bin/sh -c ps" in ran(daemon, trojan)


def test_row_19_the_image_holds_what_the_engine_would_have_met(daemon: Daemon, trojan: str) -> None:
    data = daemon.call("GET", f"/containers/{trojan}/archive?path=/bin").body
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = {name.rpartition("/")[2] for name in tar.getnames()}
    assert set(NAMES) <= names
    assert json.loads(daemon.call("GET", f"/containers/{trojan}/json").body)["Config"]["Env"] == EVIL
