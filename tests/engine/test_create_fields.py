"""Every field of a create body: honoured, as a container sees it, or refused with the reason; nothing is dropped in silence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields

from sampan.wire import containers as c
from support.daemon import Daemon

HOST = "HostConfig"

# field -> (top level or HostConfig value, command, what its output must hold)
SEEN: dict[str, tuple[Any, str, str]] = {
    "Hostname": ("web", "hostname", "web"),
    "Domainname": ("example.org", "cat /proc/sys/kernel/domainname", "example.org"),
    "User": ("1000", "id -u", "1000"),
    "Tty": (True, "tty", "/dev/pts/0"),
    "OpenStdin": (True, "readlink /proc/self/fd/0", "pipe"),
    "Env": (["A=b c"], "echo $A", "b c"),
    "Cmd": (["sh", "-c", "echo mine"], "", "mine"),
    "Entrypoint": (["sh", "-c"], "echo $0", "sh"),
    "WorkingDir": ("/made/here", "pwd", "/made/here"),
    "Volumes": ({"/data": {}}, "mount", " on /data "),
    "NetworkDisabled": (True, "ls /sys/class/net", "lo"),
    "MacAddress": ("02:42:ac:11:00:99", "cat /sys/class/net/eth0/address", "02:42:ac:11:00:99"),
    "HostConfig.Binds": (["/etc/passwd:/seen:ro"], "head -1 /seen", "root"),
    "HostConfig.Mounts": ([{"Type": "tmpfs", "Target": "/t"}], "mount", " on /t type tmpfs"),
    "HostConfig.Tmpfs": ({"/t": "size=64k"}, "mount", "size=64k"),
    "HostConfig.NetworkMode": ("none", "ls /sys/class/net", "lo"),
    "HostConfig.CapAdd": (["SYS_TIME"], "grep CapBnd /proc/1/status", "aa0425fb"),
    "HostConfig.CapDrop": (["ALL"], "grep CapBnd /proc/1/status", "0000000000000000"),
    "HostConfig.CgroupnsMode": ("host", "cat /proc/1/cgroup", "sampantest"),
    "HostConfig.Dns": (["9.9.9.9"], "cat /etc/resolv.conf", "9.9.9.9"),
    "HostConfig.DnsOptions": (["ndots:3"], "cat /etc/resolv.conf", "ndots:3"),
    "HostConfig.DnsSearch": (["corp.example"], "cat /etc/resolv.conf", "corp.example"),
    "HostConfig.ExtraHosts": (["db:10.9.8.7"], "cat /etc/hosts", "10.9.8.7\tdb"),
    "HostConfig.GroupAdd": (["extra", "3000"], "id -G", "2000 3000"),
    "HostConfig.IpcMode": ("host", "readlink /proc/1/ns/ipc", os.readlink("/proc/self/ns/ipc")),
    "HostConfig.PidMode": ("host", "readlink /proc/self/ns/pid", os.readlink("/proc/self/ns/pid")),
    "HostConfig.UTSMode": ("host", "hostname", os.uname().nodename),
    "HostConfig.UsernsMode": ("host", "cat /proc/self/uid_map", "4294967295"),
    "HostConfig.OomScoreAdj": (500, "cat /proc/1/oom_score_adj", "500"),
    "HostConfig.Privileged": (True, "grep Seccomp: /proc/1/status", "\t0"),
    "HostConfig.ReadonlyRootfs": (True, "touch /x 2>&1", "Read-only file system"),
    "HostConfig.SecurityOpt": (["no-new-privileges"], "grep NoNewPrivs /proc/1/status", "1"),
    "HostConfig.ShmSize": (1 << 20, "df -k /dev/shm", "1024"),
    "HostConfig.Sysctls": ({"kernel.msgmax": "9000"}, "cat /proc/sys/kernel/msgmax", "9000"),
    "HostConfig.MaskedPaths": (["/etc/group"], "wc -c </etc/group", "0"),
    "HostConfig.ReadonlyPaths": (["/tmp"], "touch /tmp/x 2>&1", "Read-only file system"),
    "HostConfig.Init": (True, "cat /proc/1/comm", "sampan-init"),
    "HostConfig.Devices": ([{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/nul2"}], "ls -l /dev/nul2", "1,   5"),
    "HostConfig.Ulimits": ([{"Name": "nofile", "Soft": 77, "Hard": 88}], "ulimit -n", "77"),
    "HostConfig.ConsoleSize": ([33, 99], "stty size", "33 99"),
}

# HostConfig field -> (value, file of its control group that is set, what it holds); v1 and v2
LIMITS: dict[str, tuple[Any, dict[str, str]]] = {
    "Memory": (64 << 20, {"memory/memory.limit_in_bytes": "67108864", "memory.max": "67108864"}),
    "CpuShares": (512, {"cpu/cpu.shares": "512"}),
    "CpuQuota": (50000, {"cpu/cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"}),
    "NanoCpus": (500_000_000, {"cpu/cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"}),
    "CpusetCpus": ("0", {"cpuset/cpuset.cpus": "0", "cpuset.cpus": "0"}),
    "CpusetMems": ("0", {"cpuset/cpuset.mems": "0", "cpuset.mems": "0"}),
    "PidsLimit": (77, {"pids/pids.max": "77", "pids.max": "77"}),
}

# field -> (value, words of the refusal)
REFUSED: dict[str, tuple[Any, str]] = {
    "HostConfig.Cgroup": ("container:x", "invalid Cgroup"),
    "HostConfig.Isolation": ("hyperv", "invalid Isolation"),
    "HostConfig.Runtime": ("kata", "unknown or invalid runtime name"),
    "HostConfig.VolumeDriver": ("zzz", 'plugin "zzz" not found'),
    "HostConfig.ConsoleSize": ([-1, 5], "must not be negative"),
    "HostConfig.StorageOpt": ({"size": "1G"}, "project quotas"),
    "HostConfig.DeviceRequests": (
        [{"Count": -1, "Capabilities": [["gpu"]]}],
        'could not select device driver "" with capabilities: [[gpu]]',
    ),
    "HostConfig.CpuCount": (2, "Windows"),
    "HostConfig.CpuPercent": (2, "Windows"),
    "HostConfig.IOMaximumIOps": (5, "not supported on Linux"),
    "HostConfig.IOMaximumBandwidth": (5, "not supported on Linux"),
    "HostConfig.CgroupParent": ("../x", "invalid cgroup parent"),
    "HostConfig.BlkioWeight": (5, "range of blkio weight"),
    "HostConfig.BlkioWeightDevice": ([{"Path": "/nil", "Weight": 10}], "/nil"),
    "HostConfig.BlkioDeviceReadBps": ([{"Path": "/nil", "Rate": 10}], "/nil"),
    "HostConfig.BlkioDeviceWriteBps": ([{"Path": "/nil", "Rate": 10}], "/nil"),
    "HostConfig.BlkioDeviceReadIOps": ([{"Path": "/nil", "Rate": 10}], "/nil"),
    "HostConfig.BlkioDeviceWriteIOps": ([{"Path": "/nil", "Rate": 10}], "/nil"),
    "HostConfig.DeviceCgroupRules": (["x"], "invalid device cgroup rule"),
    "HostConfig.CpuPeriod": (5, "CPU cfs period"),
    "HostConfig.MemorySwap": (1 << 30, "You should always set the Memory limit"),
    "HostConfig.MemorySwappiness": (101, "valid memory swappiness range"),
    "HostConfig.MemoryReservation": (5, "Minimum memory reservation"),
    "HostConfig.Links": (["nobody:db"], "could not get container for nobody"),
    "HostConfig.VolumesFrom": (["nobody"], "nobody"),
    "HostConfig.RestartPolicy": ({"Name": "zzz"}, "unknown policy 'zzz'"),
    "HostConfig.LogConfig": ({"Type": "zzz"}, "no log driver named 'zzz'"),
    "HostConfig.PortBindings": ({"x/tcp": []}, "invalid port specification"),
    "ExposedPorts": ({"x/tcp": {}}, "invalid port specification"),
    "Healthcheck": ({"Test": ["ZZZ"]}, "Unknown healthcheck type"),
    "StopSignal": ("ZZZ", "invalid signal"),
}

# What inspect gives back, and what there is to it elsewhere.
RECORDED: dict[str, Any] = {
    "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "StdinOnce": True, "Labels": {"a": "b"}, "StopTimeout": 3,
    "Shell": ["/bin/ash", "-c"], "HostConfig.ContainerIDFile": "/x", "HostConfig.VolumeDriver": "local",
    "HostConfig.AutoRemove": True,
    "HostConfig.PublishAllPorts": True, "HostConfig.Annotations": {"a": "b"}, "HostConfig.OomKillDisable": False,
    "HostConfig.CpuRealtimePeriod": 0, "HostConfig.CpuRealtimeRuntime": 0,
}  # fmt: skip
# Settings of an image's builder and of Windows: a container has nothing of them.
NOTHING = {"ArgsEscaped", "OnBuild", "Image"}


def test_the_tables_know_every_field() -> None:
    wire = {one.encode_name for one in fields(c.ContainerConfig)} | {f"{HOST}.{one.encode_name}" for one in fields(c.HostConfig)}
    known = {*SEEN, *(f"{HOST}.{name}" for name in LIMITS), *REFUSED, *RECORDED, *NOTHING}

    assert wire - known == set() and known - wire == set()


def body_of(field: str, value: Any, **more: Any) -> dict[str, Any]:
    head, dot, name = field.partition(".")
    if not dot:
        return {**more, head: value}
    return {**more, HOST: {**more.get(HOST, {}), name: value}}


@pytest.mark.parametrize("field", sorted(SEEN))
def test_a_container_sees_it(daemon: Daemon, field: str) -> None:
    value, command, wanted = SEEN[field]
    words = {"Cmd": (), "Entrypoint": (command,)}.get(field, ("sh", "-c", command))
    body = body_of(field, value, Tty=field in ("Tty", "HostConfig.ConsoleSize"))
    if field == "Cmd":
        container = daemon.ok("POST", "/containers/create", {"Image": "busybox", **body})["Id"]
    else:
        container = daemon.create(*words, **body)
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/wait")
    output = daemon.call("GET", f"/containers/{container}/logs?stdout=1&stderr=1").body.decode(errors="replace")

    assert wanted in output


@pytest.mark.parametrize("field", sorted(LIMITS))
def test_its_control_group_has_it(daemon: Daemon, field: str) -> None:
    value, files = LIMITS[field]
    container = daemon.create("sleep", "600", HostConfig={field: value})
    daemon.ok("POST", f"/containers/{container}/start")

    group = f"{daemon.cgroup_parent.strip('/')}/{container}"
    seen = {}
    for name in files:
        folder, slash, file = name.rpartition("/")
        path = Path("/sys/fs/cgroup") / folder / group / file if slash else Path("/sys/fs/cgroup") / group / file
        if path.exists():
            seen[name] = path.read_text().strip()
    assert seen and seen == {name: files[name] for name in seen}


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_it_is_refused_with_the_reason(daemon: Daemon, field: str) -> None:
    value, words = REFUSED[field]
    answer = daemon.call(
        "POST", "/containers/create", {"Image": "busybox", **body_of(field, value, Cmd=["true"], Volumes={"/v": {}})}
    )

    assert answer.status in (400, 404) and words in answer.json["message"], answer
    assert daemon.ok("GET", "/containers/json?all=1") == []


def test_what_docker_makes_of_odd_values_is_made_of_them(daemon: Daemon) -> None:
    host = {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "1"}]}, "MemorySwappiness": -1}
    made = daemon.ok("POST", "/containers/create", {"Image": "busybox", "Cmd": ["pwd"], "WorkingDir": "/a/../b//c/", HOST: host})
    found = daemon.ok("GET", f"/containers/{made['Id']}/json")

    assert made["Warnings"] == ["Published ports are discarded when using host network mode"]
    assert (found["Config"]["WorkingDir"], found[HOST]["MemorySwappiness"]) == ("/b/c", None)


@pytest.mark.parametrize("field", sorted(RECORDED))
def test_inspect_gives_it_back(daemon: Daemon, field: str) -> None:
    container = daemon.create("true", **body_of(field, RECORDED[field]))
    found = daemon.ok("GET", f"/containers/{container}/json")

    head, dot, name = field.partition(".")
    assert (found[HOST][name] if dot else found["Config"][head]) == RECORDED[field]


# What joins others.


def test_ipc_of_a_shareable_container_is_joined_with_its_shared_memory(daemon: Daemon) -> None:
    script = "echo from-donor >/dev/shm/x; touch /tmp/ready; exec sleep 600"
    donor = daemon.create("sh", "-c", script, name="donor", HostConfig={"IpcMode": "shareable"})
    daemon.ok("POST", f"/containers/{donor}/start")
    daemon.docker("exec", "donor", "sh", "-c", "while [ ! -e /tmp/ready ]; do :; done")

    code, output = daemon.run(
        "sh", "-c", "cat /dev/shm/x; echo back >/dev/shm/y; readlink /proc/1/ns/ipc", HostConfig={"IpcMode": "container:donor"}
    )
    same = daemon.docker("exec", "donor", "sh", "-c", "cat /dev/shm/y; readlink /proc/1/ns/ipc").stdout

    assert code == 0 and output.startswith(b"from-donor\n") and same.startswith(b"back\n")
    assert output.split()[1] == same.split()[1]


@pytest.mark.parametrize("mode", ["private", "none"])
def test_ipc_of_a_private_container_cannot_be_joined(daemon: Daemon, mode: str) -> None:
    donor = daemon.create("sleep", "600", name="donor", HostConfig={"IpcMode": mode})
    daemon.ok("POST", f"/containers/{donor}/start")
    joiner = daemon.create("true", HostConfig={"IpcMode": "container:donor"})
    answer = daemon.call("POST", f"/containers/{joiner}/start")

    assert answer.status == 409 and "non-shareable IPC" in answer.json["message"]


def test_links_on_the_default_bridge_are_names_and_variables(daemon: Daemon) -> None:
    body = {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Env": ["SECRET=s", "PATH=/bin"]}
    target = daemon.create("sleep", "600", name="store", **body)
    daemon.ok("POST", f"/containers/{target}/start")
    address = daemon.ok("GET", f"/containers/{target}/json")["NetworkSettings"]["IPAddress"]
    done = daemon.docker("run", "--rm", "--name", "app", "--link", "store:my-db", "busybox", "sh", "-c", "cat /etc/hosts; env")
    output = done.stdout.decode()

    assert f"{address}\tmy-db\n" in output and f"{address}\tstore\n" in output
    for line in ("MY_DB_NAME=/app/my-db", f"MY_DB_PORT=udp://{address}:53", f"MY_DB_PORT_80_TCP=tcp://{address}:80",
                 f"MY_DB_PORT_80_TCP_ADDR={address}", "MY_DB_PORT_80_TCP_PORT=80", "MY_DB_PORT_80_TCP_PROTO=tcp",
                 "MY_DB_ENV_SECRET=s"):  # fmt: skip
        assert f"{line}\n" in output, line
    assert "MY_DB_ENV_PATH" not in output

    linked = daemon.create("true", name="later", HostConfig={"Links": ["store:db"]})
    assert daemon.ok("GET", f"/containers/{linked}/json")[HOST]["Links"] == ["/store:/later/db"]
    daemon.ok("POST", f"/containers/{target}/kill")
    daemon.ok("POST", f"/containers/{target}/wait")
    answer = daemon.call("POST", f"/containers/{linked}/start")
    assert answer.status == 409 and "Cannot link to a non running container: /store AS /later/db" in answer.json["message"]
    done = daemon.docker("run", "--rm", "--name", "gone", "--link", "store:db", "busybox", "true", check=False, timeout=30)
    assert done.returncode == 125  # the client waits for the removal of what could not start
    assert daemon.call("GET", "/containers/gone/json").status == 404


def test_an_image_can_be_mounted_and_stays_while_it_is(daemon: Daemon) -> None:
    mount = {"Type": "image", "Source": "busybox", "Target": "/other"}
    script = "head -1 /other/etc/passwd; stat -c %u /other/etc; touch /other/x 2>&1"
    code, output = daemon.run("sh", "-c", script, HostConfig={"Mounts": [mount]})
    assert output.startswith(b"root:x:0:0:root:/root:/bin/sh\n0\n") and b"Read-only" in output and code == 1

    daemon.ok("POST", "/images/create?fromSrc=-&repo=data&tag=latest", _tar({"f": b"x\n", "d/g": b"y\n"}))
    daemon.create("sleep", "600", name="user", HostConfig={"Mounts": [{**mount, "Source": "data"}]})
    answer = daemon.call("DELETE", "/images/data")
    assert answer.status == 409
    shown = daemon.ok("GET", "/containers/user/json")["Mounts"]
    assert [(one["Type"], one["Source"], one["Destination"], one["RW"]) for one in shown] == [("image", "data", "/other", False)]
    missing = daemon.call(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], HOST: {"Mounts": [{**mount, "Source": "no"}]}}
    )
    assert missing.status == 404


def test_a_subpath_of_an_image_cannot_leave_it(daemon: Daemon) -> None:
    daemon.ok("POST", "/images/create?fromSrc=-&repo=data&tag=latest", _tar({"f": b"x\n", "d/g": b"y\n"}))
    mount = {"Type": "image", "Source": "data", "Target": "/other", "ImageOptions": {"Subpath": "d"}}
    assert daemon.run("cat", "/other/g", HostConfig={"Mounts": [mount]}) == (0, b"y\n")
    for bad in ("../x", "/etc", "d/../../x"):
        mount["ImageOptions"] = {"Subpath": bad}
        body = {"Image": "busybox", "Cmd": ["true"], HOST: {"Mounts": [mount]}}
        assert daemon.call("POST", "/containers/create", body).status == 400


def _tar(files: dict[str, bytes]) -> bytes:
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize(
    ("option", "command", "wanted"),
    [
        ("seccomp=unconfined", "grep Seccomp: /proc/1/status", b"\t0"), ("seccomp=builtin", "grep Seccomp: /proc/1/status", b"\t2"),
        ("systempaths=unconfined", "mount", b"sysfs"), ("label=disable", "true", b""), ("apparmor=unconfined", "true", b""),
        ("no-new-privileges:false", "grep NoNewPrivs /proc/1/status", b"\t0"), ("writable-cgroups=true", "mount", b"cgroup"),
        ("seccomp=" + json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}), "mkdir /x 2>&1", b"not permitted"),
    ],
)  # fmt: skip
def test_security_options(daemon: Daemon, option: str, command: str, wanted: bytes) -> None:
    _, output = daemon.run("sh", "-c", command, HostConfig={"SecurityOpt": [option]})

    assert wanted in output
    if option.startswith("systempaths"):
        assert b"on /proc/kcore " not in output and b"on /proc/sys " not in output


@pytest.mark.parametrize("option", ["apparmor=docker-default", "label=type:svirt_t", "nonsense", "seccomp={", "systempaths=x"])
def test_security_options_that_cannot_be_are_refused(daemon: Daemon, option: str) -> None:
    answer = daemon.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], HOST: {"SecurityOpt": [option]}})

    assert answer.status == 400, answer


def test_a_link_is_removed_from_what_runs_and_what_is_linked_stays(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "store", "busybox", "sleep", "600")
    daemon.docker("run", "-d", "--name", "app", "--link", "store:one", "--link", "store:two", "busybox", "sleep", "600")
    daemon.docker("exec", "app", "sh", "-c", "echo 192.0.2.1 own >>/etc/hosts")
    names = [one["Names"] for one in daemon.ok("GET", "/containers/json")]
    assert names == [["/app"], ["/store", "/app/one", "/app/two"]]
    assert daemon.docker("ps", "--format", "{{.Names}}").stdout == b"app\nstore\n"
    assert daemon.ok("GET", "/containers/app/one/json")["Name"] == "/store"

    assert daemon.docker("rm", "--link", "/app/one").stdout == b"/app/one\n"

    hosts = daemon.docker("exec", "app", "cat", "/etc/hosts").stdout.decode()
    assert "\tone" not in hosts and "\ttwo" in hosts and "\tstore" in hosts and "192.0.2.1 own" in hosts
    assert daemon.ok("GET", "/containers/app/json")[HOST]["Links"] == ["/store:/app/two"]
    assert daemon.ok("GET", "/containers/store/json")["State"]["Running"]
    for ref, status, words in (("app/one", 404, "No such container: app/one"), ("nobody/x", 404, "No such container"),
                               ("app", 500, "cannot remove the default link name of the container")):  # fmt: skip
        answer = daemon.call("DELETE", f"/containers/{ref}?link=1")
        assert answer.status == status and words in answer.json["message"], answer
    daemon.restart()
    assert daemon.ok("GET", "/containers/app/json")[HOST]["Links"] == ["/store:/app/two"]


def test_programs_find_dockerenv_and_it_is_no_change(daemon: Daemon) -> None:
    code, output = daemon.run("ls", "-l", "/.dockerenv", HostConfig={"ReadonlyRootfs": True})
    assert code == 0 and output.split()[:5] == [b"-rwxr-xr-x", b"1", b"root", b"root", b"0"]
    container = daemon.create("true")
    assert daemon.ok("GET", f"/containers/{container}/changes") is None
    shown = daemon.ok("GET", f"/containers/{container}/json?size=1")
    assert shown["SizeRw"] == 0
    image = daemon.ok("POST", f"/commit?container={container}", {})["Id"]
    assert b".dockerenv" in daemon.ok("GET", f"/containers/{container}/export")[:4096]
    saved = daemon.ok("GET", f"/images/{image}/get")
    assert b"bin/busybox" in saved and b".dockerenv" not in saved  # its layers are plain tars
    daemon.ok("DELETE", f"/images/{image}")
