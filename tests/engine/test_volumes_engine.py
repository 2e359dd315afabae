"""Volumes of a real daemon: their files, their mounts, who uses them, and what a killed daemon remembers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, busybox_rootfs


@pytest.fixture(autouse=True)
def no_volumes(daemon: Daemon) -> Iterator[None]:
    yield
    daemon.remove_all()
    for volume in daemon.ok("GET", "/volumes")["Volumes"]:
        daemon.call("DELETE", f"/volumes/{volume['Name']}")


def names(daemon: Daemon) -> list[str]:
    return sorted(one["Name"] for one in daemon.ok("GET", "/volumes")["Volumes"])


def run(daemon: Daemon, script: str, **host: Any) -> bytes:
    code, output = daemon.run("sh", "-c", script, HostConfig=host)
    assert code == 0, output
    return output


def test_a_named_volume_keeps_files_and_their_owners_between_containers(daemon: Daemon) -> None:
    run(daemon, "echo kept >/v/file; chown 1000:2000 /v/file; chmod 640 /v/file", Binds=["data:/v"])

    assert run(daemon, "cat /v/file; stat -c '%u:%g %a' /v/file", Binds=["data:/v"]) == b"kept\n1000:2000 640\n"
    volume = daemon.ok("GET", "/volumes/data")
    assert volume["Mountpoint"].endswith("/volumes/data/_data") and volume["Labels"] is None and volume["Options"] is None
    found = os.stat(f"{volume['Mountpoint']}/file")
    assert (found.st_uid, found.st_gid) == (1000, 2000)


def test_an_empty_volume_gets_the_images_files_unless_told_otherwise(daemon: Daemon) -> None:
    assert b"root:x:0:0" in run(daemon, "cat /etc/passwd", Binds=["filled:/etc"])
    assert run(daemon, "ls /etc", Binds=["bare:/etc:nocopy"]).split() == [b"hostname", b"hosts", b"resolv.conf"]
    mount = {"Type": "volume", "Source": "bare2", "Target": "/root", "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}}}
    run(daemon, "true", Mounts=[mount])
    assert daemon.ok("GET", "/volumes/bare2")["Labels"] == {"a": "b"}


def test_anonymous_volumes_go_with_their_container_when_asked(daemon: Daemon) -> None:
    kept = daemon.create("true", Volumes={"/a": {}})
    gone = daemon.create("true", Volumes={"/a": {}}, HostConfig={"Binds": ["named:/n"]})
    assert len(names(daemon)) == 3

    daemon.ok("DELETE", f"/containers/{gone}?v=1")
    assert len(names(daemon)) == 2 and "named" in names(daemon)
    daemon.ok("DELETE", f"/containers/{kept}")
    assert len(names(daemon)) == 2
    left = daemon.ok("GET", '/volumes?filters={"dangling":["true"]}')["Volumes"]
    assert [one["Labels"] for one in left if one["Name"] != "named"] == [{"com.docker.volume.anonymous": ""}]


def test_auto_remove_takes_anonymous_volumes_with_it(daemon: Daemon) -> None:
    container = daemon.create("true", Volumes={"/a": {}}, HostConfig={"AutoRemove": True, "Binds": ["named:/n"]})
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.call("POST", f"/containers/{container}/wait?condition=removed")

    assert names(daemon) == ["named"]


def test_a_volume_in_use_stays_also_after_the_daemon_was_killed(daemon: Daemon) -> None:
    container = daemon.create("sleep", "600", HostConfig={"Binds": ["data:/v"]})
    for _ in range(2):
        answer = daemon.call("DELETE", "/volumes/data?force=1")
        assert answer.status == 409
        assert answer.json["message"] == f"remove data: volume is in use - [{container}]"
        daemon.restart()
    daemon.ok("DELETE", f"/containers/{container}?force=1")

    assert daemon.call("DELETE", "/volumes/data").status == 204
    assert daemon.call("GET", "/volumes/data").status == 404
    assert not (daemon.data_root / "volumes/data").exists()


def test_a_tmpfs_volume_is_one_file_system_for_all_until_the_last_leaves(daemon: Daemon) -> None:
    daemon.ok("POST", "/volumes/create", {"Name": "fast", "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}})
    first = daemon.create("sh", "-c", "echo shared >/v/file; sleep 600", HostConfig={"Binds": ["fast:/v"]})
    daemon.ok("POST", f"/containers/{first}/start")

    assert run(daemon, "while [ ! -s /v/file ]; do :; done; cat /v/file; df /v | tail -1", Binds=["fast:/v"]).split()[:3] == [
        b"shared", b"tmpfs", b"1024",
    ]  # fmt: skip
    daemon.restart()
    point = daemon.ok("GET", "/volumes/fast")["Mountpoint"]
    assert os.path.ismount(point)
    assert run(daemon, "cat /v/file", Binds=["fast:/v:ro"]) == b"shared\n"
    daemon.ok("POST", f"/containers/{first}/stop?t=0")
    assert not os.path.ismount(point)


def test_a_bind_volume_never_loses_what_it_names(daemon: Daemon) -> None:
    folder = daemon.work / "outside"
    folder.mkdir()
    (folder / "precious").write_text("here")
    daemon.ok("POST", "/volumes/create", {"Name": "out", "DriverOpts": {"type": "none", "device": str(folder), "o": "bind"}})

    assert run(daemon, "cat /v/precious; touch /v/new", Binds=["out:/v"]) == b"here"
    daemon.ok("POST", '/volumes/prune?filters={"all":["true"]}')
    assert names(daemon) == ["out"]
    daemon.ok("DELETE", "/volumes/out")
    assert sorted(os.listdir(folder)) == ["new", "precious"]


def test_what_cannot_be_mounted_says_so_and_leaves_nothing(daemon: Daemon) -> None:
    for name, options in (
        ("gone", {"type": "none", "device": "/no/such", "o": "bind"}),
        ("nfs", {"type": "nosuchfs", "device": ":/x", "o": "addr=127.0.0.1"}),
    ):
        daemon.ok("POST", "/volumes/create", {"Name": name, "DriverOpts": options})
        container = daemon.create("true", HostConfig={"Binds": [f"{name}:/v"]})
        answer = daemon.call("POST", f"/containers/{container}/start")
        assert answer.status == 500 and "failed to mount local volume: mount " in answer.json["message"], answer
        assert not os.path.ismount(daemon.ok("GET", f"/volumes/{name}")["Mountpoint"])


def test_row_6_a_subpath_is_mounted_and_cannot_leave_its_volume(daemon: Daemon) -> None:
    run(
        daemon,
        "mkdir -p /v/a/b; echo deep >/v/a/b/file; ln -s / /v/root; ln -s ../../.. /v/up; ln -s a/b /v/inside",
        Binds=["data:/v"],
    )

    def mounted(subpath: str) -> Any:
        mount = {"Type": "volume", "Source": "data", "Target": "/m", "VolumeOptions": {"Subpath": subpath}}
        container = daemon.create("cat", "/m/file", HostConfig={"Mounts": [mount]})
        return daemon.call("POST", f"/containers/{container}/start"), container

    for good in ("a/b", "inside"):
        answer, container = mounted(good)
        assert answer.status == 204, answer
        daemon.ok("POST", f"/containers/{container}/wait")
        assert b"deep" in daemon.call("GET", f"/containers/{container}/logs?stdout=1").body
    for bad in ("root/etc", "up", "nothing"):
        answer, _ = mounted(bad)
        assert answer.status == 400 and "cannot access path" in answer.json["message"], answer


def test_volumes_from_shares_what_another_container_has(daemon: Daemon) -> None:
    first = daemon.create("true", name="first", Volumes={"/anon": {}}, HostConfig={"Binds": ["data:/v", "/usr:/usr2:ro"]})
    second = daemon.create("sh", "-c", "touch /v/x /anon/y", HostConfig={"VolumesFrom": ["first"]})
    third = daemon.create("touch", "/v/z", HostConfig={"VolumesFrom": ["first:ro"], "Binds": ["own:/anon"]})
    for container in (second, third):
        daemon.ok("POST", f"/containers/{container}/start")
        daemon.ok("POST", f"/containers/{container}/wait")

    assert daemon.ok("GET", f"/containers/{second}/json")["State"]["ExitCode"] == 0
    assert daemon.ok("GET", f"/containers/{third}/json")["State"]["ExitCode"] == 1
    mounts = {m["Destination"]: m for m in daemon.ok("GET", f"/containers/{third}/json")["Mounts"]}
    assert mounts["/anon"]["Name"] == "own" and not mounts["/v"]["RW"] and not mounts["/usr2"]["RW"]
    daemon.ok("DELETE", f"/containers/{first}?v=1")
    assert len(names(daemon)) == 3  # the second still uses the anonymous one
    assert (
        daemon.call(
            "POST", "/containers/create", {"Image": "busybox", "Cmd": ["id"], "HostConfig": {"VolumesFrom": ["nope"]}}
        ).status
        == 400
    )


def test_mounts_of_inspect_are_dockers(daemon: Daemon) -> None:
    mounts = [
        {"Type": "volume", "Target": "/mv"}, {"Type": "tmpfs", "Target": "/mt", "TmpfsOptions": {"SizeBytes": 1 << 20}},
        {"Type": "bind", "Source": "/usr", "Target": "/u", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}},
        {"Type": "volume", "Source": "mm", "Target": "/mm", "ReadOnly": True},
    ]  # fmt: skip
    host = {"Binds": ["named:/nn", "/etc:/e:ro", "named2:/w:ro,nocopy"], "Tmpfs": {"/t": "size=1m"}, "Mounts": mounts}
    container = daemon.create("true", Volumes={"/anon": {}}, HostConfig=host)
    found = {m["Destination"]: m for m in daemon.ok("GET", f"/containers/{container}/json")["Mounts"]}

    assert "/t" not in found and set(found) == {"/mv", "/mt", "/u", "/mm", "/nn", "/e", "/w", "/anon"}
    assert {key: found[key]["Mode"] for key in found} == {
        "/mv": "z", "/mt": "", "/u": "", "/mm": "z", "/nn": "z", "/e": "ro", "/w": "ro,nocopy", "/anon": "",
    }  # fmt: skip
    assert found["/mt"] == {"Type": "tmpfs", "Source": "", "Destination": "/mt", "Mode": "", "RW": True, "Propagation": ""}
    assert found["/u"] == {"Type": "bind", "Source": "/usr", "Destination": "/u", "Mode": "", "RW": False, "Propagation": "rslave"}
    assert found["/e"]["Propagation"] == "rprivate" and found["/nn"]["Propagation"] == "" and found["/nn"]["Driver"] == "local"


def test_a_read_only_bind_is_read_only_all_the_way_down_unless_told_otherwise(daemon: Daemon) -> None:
    folder = daemon.work / "tree"
    (folder / "sub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "sub"], check=True)
    try:
        for options, expected in (({}, b"ro\n"), ({"ReadOnlyNonRecursive": True}, b"rw\n"), ({"NonRecursive": True}, b"ro\n")):
            mount = {"Type": "bind", "Source": str(folder), "Target": "/m", "ReadOnly": True, "BindOptions": options}
            script = "touch /m/sub/x 2>/dev/null && echo rw || echo ro; touch /m/y 2>/dev/null && echo top"
            assert run(daemon, f"{script}; true", Mounts=[mount]) == expected
    finally:
        subprocess.run(["umount", folder / "sub"], check=True)


def test_a_missing_source_is_made_for_binds_and_on_request_for_mounts(daemon: Daemon) -> None:
    one, two = daemon.work / "made/by/bind", daemon.work / "made/by/mount"
    run(daemon, "test -d /x", Binds=[f"{one}:/x"])
    mount = {"Type": "bind", "Source": str(two), "Target": "/x", "BindOptions": {"CreateMountpoint": True}}
    run(daemon, "test -d /x", Mounts=[mount])

    assert one.is_dir() and two.is_dir()
    mount = {"Type": "bind", "Source": str(daemon.work / "never"), "Target": "/x"}
    assert (
        daemon.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["id"], "HostConfig": {"Mounts": [mount]}}).status
        == 400
    )
    shutil.rmtree(daemon.work / "made")


def test_tmpfs_has_its_size_and_mode(daemon: Daemon) -> None:
    mount = {"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 2 << 20, "Mode": 0o750}}

    assert run(daemon, "df /m | tail -1; stat -c %a /m", Mounts=[mount]).split()[1::5] == [b"2048", b"750"]


def test_shared_propagation_shows_later_mounts_and_needs_a_shared_source(daemon: Daemon) -> None:
    folder = daemon.work / "prop"
    folder.mkdir()
    container = daemon.create("true", HostConfig={"Binds": [f"{folder}:/m:shared"]})
    answer = daemon.call("POST", f"/containers/{container}/start")
    assert answer.status == 400 and "but it is not a shared mount" in answer.json["message"]
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "--make-shared", folder], check=True)
    try:
        (folder / "in").mkdir()
        container = daemon.create("sleep", "600", HostConfig={"Binds": [f"{folder}:/m:rslave"]})
        daemon.ok("POST", f"/containers/{container}/start")
        subprocess.run(["mount", "-t", "tmpfs", "later", folder / "in"], check=True)
        (folder / "in/seen").touch()
        pid = daemon.ok("GET", f"/containers/{container}/json")["State"]["Pid"]
        assert os.listdir(f"/proc/{pid}/root/m/in") == ["seen"]
    finally:
        subprocess.run(["umount", "-R", folder], check=True)


def test_events_tell_of_a_volumes_life(daemon: Daemon) -> None:
    container = daemon.create("true", HostConfig={"Binds": ["ev:/v:ro"]})
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/wait")
    daemon.ok("DELETE", f"/containers/{container}")
    daemon.ok("DELETE", "/volumes/ev")
    body = daemon.call("GET", f'/events?since=1&until={time.time():.6f}&filters={{"volume":["ev"]}}').body
    found = [json.loads(line) for line in body.splitlines()]
    assert [one["Action"] for one in found] == ["create", "mount", "unmount", "destroy"]
    assert found[1]["Actor"]["Attributes"] == {
        "container": container, "destination": "/v", "driver": "local", "propagation": "", "read/write": "false",
    }  # fmt: skip
    assert found[2]["Actor"]["Attributes"] == {"container": container, "driver": "local"}


def test_a_failed_create_leaves_no_volume(daemon: Daemon) -> None:
    bad = {"DriverConfig": {"Options": {"zzz": "1"}}}
    mount = {"Type": "volume", "Source": "two", "Target": "/b", "VolumeOptions": bad}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": ["one:/a"], "Mounts": [mount]}}
    answer = daemon.call("POST", "/containers/create", body)

    assert answer.status == 400 and 'invalid option: "zzz"' in answer.json["message"]
    assert names(daemon) == [] and not list((daemon.data_root / "volumes").glob("[!.]*"))


def test_an_image_with_volumes_gets_anonymous_ones(daemon: Daemon) -> None:
    daemon.ok("POST", "/images/create?fromSrc=-&repo=withvolume&changes=VOLUME+/etc", busybox_rootfs())
    container = daemon.create("sh", "-c", "wc -l </etc/passwd", image="withvolume")
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/wait")

    assert b"3" in daemon.call("GET", f"/containers/{container}/logs?stdout=1").body
    assert [m["Destination"] for m in daemon.ok("GET", f"/containers/{container}/json")["Mounts"]] == ["/etc"]
    daemon.ok("DELETE", f"/containers/{container}?v=1")
    assert names(daemon) == []
    daemon.ok("DELETE", "/images/withvolume")


def test_the_list_shows_no_source_of_anonymous_volumes(daemon: Daemon) -> None:
    daemon.create("true", Volumes={"/anon": {}}, HostConfig={"Binds": ["named:/n"]})
    found = {m["Destination"]: m["Source"] for m in daemon.ok("GET", "/containers/json?all=1")[0]["Mounts"]}

    assert found["/anon"] == "" and Path(found["/n"]).is_dir()
