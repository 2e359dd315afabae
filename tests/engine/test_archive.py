"""Copying in and out of containers, export and changes: effects in a real daemon."""

from __future__ import annotations

import base64
import io
import json
import socket
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from support.daemon import Answer, Daemon

MODES = ("running", "stopped", "created")


def tar_of(*entries: tuple[str, bytes | None], **attributes: Any) -> bytes:
    """Return a tar of files, and of folders where there is no content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = (tarfile.DIRTYPE, 0o755) if content is None else (tarfile.REGTYPE, 0o644)
            for key, value in attributes.items():
                setattr(entry, key, value)
            entry.size = len(content or b"")
            tar.addfile(entry, io.BytesIO(content or b""))
    return out.getvalue()


def put(daemon: Daemon, container: str, path: str, tar: bytes, options: str = "") -> Answer:
    return daemon.call("PUT", f"/containers/{container}/archive?path={quote(path)}{options}", tar)


def get(daemon: Daemon, container: str, path: str) -> dict[str, tarfile.TarInfo]:
    return {member.name: member for member in opened(daemon, container, path)}


def opened(daemon: Daemon, container: str, path: str) -> tarfile.TarFile:
    answer = daemon.call("GET", f"/containers/{container}/archive?path={quote(path)}")
    assert answer.status == 200, answer
    return tarfile.open(fileobj=io.BytesIO(answer.body))


def read(daemon: Daemon, container: str, path: str) -> bytes:
    tar = opened(daemon, container, path)
    file = tar.extractfile(tar.getmembers()[0])
    assert file is not None
    return file.read()


def execute(daemon: Daemon, container: str, command: str) -> str:
    return daemon.docker("exec", container, "sh", "-c", command).stdout.decode()


def started(daemon: Daemon, command: str = "", **body: Any) -> str:
    """Return a container that has done `command` and now waits."""
    container = daemon.create("sh", "-c", f"{command or 'true'}; touch /tmp/done; exec sleep 600", **body)
    daemon.ok("POST", f"/containers/{container}/start")
    execute(daemon, container, "until [ -e /tmp/done ]; do usleep 10000; done; rm /tmp/done")
    return container


@pytest.fixture(params=MODES)
def container(request: pytest.FixtureRequest, daemon: Daemon) -> str:
    """A container in each state, with a volume at /vol."""
    host = {"HostConfig": {"Binds": ["filesvol:/vol"]}}
    if request.param == "created":
        return daemon.create("sleep", "600", **host)
    made = started(daemon, **host)
    if request.param == "stopped":
        daemon.ok("POST", f"/containers/{made}/stop?t=0")
    return made


def test_what_is_put_in_comes_out_and_is_seen_inside_with_its_owner(daemon: Daemon, container: str) -> None:
    tar = tar_of(("d", None), ("d/f", b"content"), uid=1000, gid=2000, mtime=1_700_000_000)

    assert put(daemon, container, "/tmp", tar).status == 200

    member = get(daemon, container, "/tmp/d/f")["f"]
    assert (member.uid, member.gid, member.mode, member.mtime) == (1000, 2000, 0o644, 1_700_000_000)
    assert read(daemon, container, "/tmp/d/f") == b"content"
    daemon.call("POST", f"/containers/{container}/start")
    assert execute(daemon, container, "stat -c '%u:%g %Y' /tmp/d /tmp/d/f; cat /tmp/d/f") == (
        "1000:2000 1700000000\n1000:2000 1700000000\ncontent"
    )


def test_a_volume_in_the_path_is_written_and_read(daemon: Daemon, container: str) -> None:
    assert put(daemon, container, "/vol", tar_of(("in", b"volume"), uid=7)).status == 200
    assert put(daemon, container, "/", tar_of(("vol/root", b"from above"))).status == 200

    assert get(daemon, container, "/vol/in")["in"].uid == 7
    assert {"vol", "vol/in", "vol/root"} <= set(get(daemon, container, "/vol"))
    other = started(daemon, HostConfig={"Binds": ["filesvol:/elsewhere"]})
    assert execute(daemon, other, "cat /elsewhere/in /elsewhere/root; stat -c %u /elsewhere/in") == "volumefrom above7\n"


def test_stat_and_names_are_dockers(daemon: Daemon) -> None:
    container = started(daemon, "mkdir /d; echo x >/d/f; ln -s /d /l; ln -s no /gone; chmod 6755 /d/f; mkfifo /d/p")

    def stat(path: str) -> tuple[str, int, str] | int:
        answer = daemon.call("HEAD", f"/containers/{container}/archive?path={path}")
        if answer.status != 200:
            return answer.status
        found = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
        return found["name"], found["mode"], found["linkTarget"]

    assert stat("/d") == stat("d/") == stat("../../d") == ("d", 1 << 31 | 0o755, "")
    assert stat("/d/.") == (".", 1 << 31 | 0o755, "") and stat("/") == ("/", 1 << 31 | 0o755, "")
    assert stat("/d/f") == ("f", 1 << 23 | 1 << 22 | 0o755, "") and stat("/d/p") == ("p", 1 << 25 | 0o644, "")
    assert stat("/l") == ("l", 1 << 27 | 0o777, "/d") and stat("/l/") == ("l", 1 << 31 | 0o755, "")
    assert stat("/gone") == ("gone", 1 << 27 | 0o777, "/no")
    assert (stat("/d/f/"), stat("/nope"), stat("")) == (400, 404, 400)
    assert set(get(daemon, container, "/d/.")) == {".", "./f", "./p"}
    assert set(get(daemon, container, "/l/")) == {"l", "l/f", "l/p"}
    assert get(daemon, container, "/l")["l"].linkname == "/d"
    answer = daemon.call("GET", f"/containers/{container}/archive?path=/nope")
    assert answer.status == 404 and "Could not find the file /nope in container" in answer.json["message"]


def test_refusals_have_dockers_words(daemon: Daemon, tmp_path: Path) -> None:
    container = started(daemon, "echo >/f; mkdir /d", HostConfig={"Binds": [f"{tmp_path}:/ro:ro"]})
    frozen = started(daemon, HostConfig={"ReadonlyRootfs": True, "Binds": ["filesvol:/vol"], "Tmpfs": {"/tmp": ""}})
    tar = tar_of(("x", b"x"))

    def refused(where: str, path: str, body: bytes = tar, options: str = "") -> tuple[int, str]:
        answer = put(daemon, where, path, body, options)
        return answer.status, answer.json["message"] if answer.body else ""

    assert refused(container, "/f") == (400, "extraction point is not a directory")
    assert refused(container, "/nope")[0] == 404
    assert refused(container, "/ro") == (403, "mounted volume is marked read-only")
    assert refused(container, "/", tar_of(("ro/x", b"")))[0] == 403
    assert refused(frozen, "/") == (403, "container rootfs is marked read-only")
    assert refused(frozen, "/vol") == (200, "")
    assert refused(container, "/etc", tar_of(("hosts", b""))) == (409, "unlinkat /etc/hosts: device or resource busy")
    assert refused(container, "/", tar_of(("proc", b"")))[0] == 409
    assert "cannot overwrite directory" in refused(container, "/", tar_of(("d", b"")), "&noOverwriteDirNonDir=1")[1]
    assert "cannot overwrite non-directory" in refused(container, "/", tar_of(("f", None)), "&noOverwriteDirNonDir=1")[1]
    assert "leads out of the root" in refused(container, "/d", tar_of(("../x", b"")))[1]
    daemon.ok("POST", f"/containers/{frozen}/stop?t=0")
    assert refused(frozen, "/")[0] == 403 and not list(tmp_path.iterdir())
    assert "127.0.0.1" in execute(daemon, container, "cat /etc/hosts"), "the mounts are where they were"


@pytest.mark.parametrize("compress", [b"gz", b"xz", b"bz2", b""])
def test_compressed_archives_are_taken(daemon: Daemon, compress: bytes) -> None:
    container = daemon.create("true")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compress.decode()}") as tar:
        tar.addfile(tarfile.TarInfo("empty"))

    assert put(daemon, container, "/tmp", out.getvalue()).status == 200
    assert "empty" in get(daemon, container, "/tmp/empty")


def test_links_devices_and_attributes_survive_the_way_in_and_out(daemon: Daemon) -> None:
    container = started(daemon)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, more in (
            ("file", tarfile.REGTYPE, {"mode": 0o4755, "pax_headers": {"SCHILY.xattr.user.k": "v"}}),
            ("hard", tarfile.LNKTYPE, {"linkname": "file"}),
            ("soft", tarfile.SYMTYPE, {"linkname": "/no/where"}),
            ("null", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3, "mode": 0o666}),
            ("pipe", tarfile.FIFOTYPE, {"uid": 5}),
        ):
            entry = tarfile.TarInfo(name)
            entry.type = kind
            for key, value in more.items():
                setattr(entry, key, value)
            tar.addfile(entry)

    assert put(daemon, container, "/root", out.getvalue()).status == 200

    found = get(daemon, container, "/root/.")
    assert found["./file"].mode == 0o4755 and found["./file"].pax_headers["SCHILY.xattr.user.k"] == "v"
    assert found["./hard"].linkname == "./file" and found["./soft"].linkname == "/no/where"
    assert (found["./null"].type, found["./null"].devminor, found["./pipe"].uid) == (tarfile.CHRTYPE, 3, 5)
    assert execute(daemon, container, "stat -c %h /root/file") == "2\n"


def test_row_40_owners_are_numbers_and_names_are_never_looked_up(daemon: Daemon) -> None:
    container = started(daemon, User="user")
    tar = tar_of(("f", b""), uid=0, gid=0, uname="4294967296", gname="99999999999")

    assert put(daemon, container, "/tmp", tar).status == 200
    assert put(daemon, container, "/", tar_of(("g", b"")), "&copyUIDGID=1").status == 200

    assert get(daemon, container, "/tmp/f")["f"].uid == 0
    member = get(daemon, container, "/g")["g"]
    assert (member.uid, member.gid) == (1000, 1000), "as the container's user"
    for user in ("4294967296", "99999999999", "nosuch"):
        other = daemon.create("true", User=user)
        assert put(daemon, other, "/tmp", tar, "&copyUIDGID=1").status == 400
    assert put(daemon, container, "/tmp", tar_of(("h", b""), uid=2**31)).status == 200
    assert get(daemon, container, "/tmp/h")["h"].uid == 65534, "nobody, as the container sees whom it does not know"


def test_export_is_the_root_without_volumes_and_ids_are_the_containers(daemon: Daemon, container: str) -> None:
    put(daemon, container, "/", tar_of(("mine", b"x"), ("vol/in-volume", b"y"), uid=1000))

    answer = daemon.call("GET", f"/containers/{container}/export")

    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        members = {member.name: member for member in tar}
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/octet-stream"
    assert members["mine"].uid == 1000 and members["etc/passwd"].uid == 0 and "bin/busybox" in members
    assert "vol/in-volume" not in members and not any(name.startswith("proc/") for name in members)


CHANGES: tuple[tuple[str, str], ...] = (
    ("echo x>>/a/b/c/one", "C /a,C /a/b,C /a/b/c,C /a/b/c/one"),
    ("rm -rf /e; mkdir /e; echo x>/e/new", "C /e,D /e/f,A /e/new"),
    ("mv /g /gg", "D /g,A /gg,A /gg/four"),
    ("chmod 700 /h", "C /h"),
    ("touch /h/i", ""),
    ("chown 5 /six", "C /six"),
    ("chmod 644 /six; cat /six", ""),
    ("rm -rf /h", "D /h"),
    ("rm /six; mkdir /six", "C /six"),
    ("rm -r /g; echo >/g", "C /g"),
    ("ln -sf seven /lnk", "C /lnk"),
    ("ln /six /six2", "A /six2"),
    ("rm -rf /a/b; mkdir -p /a/b/c; echo 1>/a/b/c/one", "C /a,C /a/b,C /a/b/c,C /a/b/c/one,D /a/b/two"),
    ("echo x > /dev/shm/q; echo > /etc/hosts", ""),
    ("rm /etc/passwd", "C /etc,D /etc/passwd"),
)


@pytest.fixture(scope="session")
def changing(engine_daemon: Daemon) -> str:
    """An image with something to change (the expectations are dockerd's own answers)."""
    files = {"a/b/c/one": "1", "a/b/two": "2", "e/f/three": "3", "g/four": "4", "h/i/five": "5", "six": "6"}
    tar = tar_of(*((name, text.encode()) for name, text in files.items()))
    container = engine_daemon.create("sh", "-c", "ln -s six /lnk")
    assert put(engine_daemon, container, "/", tar).status == 200
    engine_daemon.ok("POST", f"/containers/{container}/start")
    engine_daemon.ok("POST", f"/containers/{container}/wait")
    root = engine_daemon.call("GET", f"/containers/{container}/export").body
    engine_daemon.ok("POST", "/images/create?fromSrc=-&repo=changing&tag=latest", root)
    return "changing"


@pytest.mark.parametrize(("command", "expected"), CHANGES)
def test_changes_are_what_dockerd_says(daemon: Daemon, changing: str, command: str, expected: str) -> None:
    container = daemon.create("sh", "-c", command, image=changing)
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/wait")

    found = daemon.ok("GET", f"/containers/{container}/changes")

    lines = [f"{'CAD'[change['Kind']]} {change['Path']}" for change in found or ()]
    assert sorted(lines, key=lambda line: line[2:]) == [line for line in expected.split(",") if line]


def test_changes_of_a_container_at_work(daemon: Daemon) -> None:
    container = started(daemon, "mkdir -p /n/m; touch /n/m/o")

    assert daemon.ok("GET", f"/containers/{container}/changes") == [
        {"Path": "/n", "Kind": 1}, {"Path": "/n/m", "Kind": 1}, {"Path": "/n/m/o", "Kind": 1},
    ]  # fmt: skip


def test_sizes_are_those_of_the_files_and_no_link_leads_the_measure_out(daemon: Daemon) -> None:
    container = started(
        daemon, "head -c 12345 /dev/zero >/a; ln /a /b; ln -s /bin /l; mkdir -p /d/e; echo x >/d/e/f; rm /etc/group"
    )
    image = daemon.ok("GET", "/images/busybox/json")["Size"]

    found = daemon.ok("GET", f"/containers/{container}/json?size=1")
    listed = daemon.ok("GET", "/containers/json?size=1")[0]

    assert found["SizeRw"] == listed["SizeRw"] == 12345 + len("/bin") + 2
    assert found["SizeRootFs"] == listed["SizeRootFs"] == image + found["SizeRw"]
    assert "SizeRw" not in daemon.ok("GET", f"/containers/{container}/json")
    daemon.ok("POST", f"/containers/{container}/stop?t=0")
    assert daemon.ok("GET", f"/containers/{container}/json?size=1")["SizeRw"] == found["SizeRw"]
    shown = daemon.docker("ps", "-as", "--format", "{{.Size}}").stdout.decode()
    assert shown.startswith("12.4kB (virtual "), shown


@pytest.mark.parametrize("running", [True, False])
def test_a_client_that_leaves_in_the_middle_holds_nothing(daemon: Daemon, running: bool) -> None:
    container = started(daemon) if running else daemon.create("sleep", "600")
    tar = tar_of(("first", b"whole"), ("second", b"x" * 3_000_000))
    head = f"PUT /containers/{container}/archive?path=/tmp HTTP/1.1\r\nHost: d\r\nContent-Length: {len(tar)}\r\n\r\n".encode()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.sock))
        client.sendall(head + tar[:2_000_000])

    assert put(daemon, container, "/tmp", tar_of(("third", b"3"))).status == 200
    daemon.ok("POST", f"/containers/{container}/{'stop?t=0' if running else 'start'}")
    assert read(daemon, container, "/tmp/third") == b"3"
    assert "Errno None" not in daemon.log
