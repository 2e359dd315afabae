"""What the daemon gives containers that do not say, from flags and file; and the file read again at SIGHUP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import SAMPAN, Daemon, UnixHttp

PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}
FILE = {
    "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 400, "Soft": 300}}, "default-shm-size": "2m",
    "default-ipc-mode": "shareable", "default-stop-timeout": 0, "no-new-privileges": True, "dns": ["192.0.2.53"],
    "dns-search": ["example.org"], "dns-opts": ["ndots:3"], "labels": ["file=1"], "live-restore": True,
    "log-opts": {"max-size": "3m"}, "proxies": {"no-proxy": "localhost"}, "storage-driver": "overlay2",
}  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Path]]:
    folder = tmp_path_factory.mktemp("defaults")
    config, profile = folder / "daemon.json", folder / "seccomp.json"
    profile.write_text(json.dumps(PROFILE))
    config.write_text(json.dumps({**FILE, "seccomp-profile": str(profile)}))
    made = Daemon(
        "--config-file", str(config), "--label", "flag=2", "--iptables", "--default-runtime", "runc", "--userland-proxy=false"
    )
    try:
        made.start().import_busybox()
        yield made, config
    finally:
        made.close()


def told(daemon: Daemon, script: str, **body: object) -> list[str]:
    return daemon.run("sh", "-c", script, Tty=False, **body)[1].replace(b"\x01", b"").decode(errors="replace").split("\n")


def output(daemon: Daemon, script: str, **host: object) -> list[str]:
    code, lines = daemon.run("sh", "-c", script, Tty=True, HostConfig=host)
    assert code == 0, lines
    return lines.decode().split("\n")[:-1]


SHOW = (
    "ulimit -Sn; ulimit -Hn; df -k /dev/shm | tail -n 1 | awk '{print $2}'; grep NoNewPrivs /proc/self/status; cat /etc/resolv.conf"
)


def test_a_container_that_says_nothing_gets_the_daemons(given: tuple[Daemon, Path]) -> None:
    soft, hard, shm, privileges, *resolver = output(given[0], SHOW)

    assert (soft, hard, shm, privileges) == ("300", "400", "2048", "NoNewPrivs:\t1")
    assert "nameserver 192.0.2.53" in resolver and "search example.org" in resolver and "options ndots:3" in " ".join(resolver)
    assert output(given[0], "mkdir /x 2>&1 || true") == ["mkdir: can't create directory '/x': Operation not permitted"]


def test_what_a_container_says_holds(given: tuple[Daemon, Path]) -> None:
    shown = output(
        given[0], f"mkdir /x; {SHOW}", Ulimits=[{"Name": "nofile", "Soft": 100, "Hard": 200}], ShmSize=1 << 20, Dns=["192.0.2.1"],
        SecurityOpt=["no-new-privileges=false", "seccomp=unconfined"],
    )  # fmt: skip

    assert shown[:4] == ["100", "200", "1024", "NoNewPrivs:\t0"] and "nameserver 192.0.2.1" in shown


def test_inspect_shows_modes_and_sizes_but_not_what_each_start_adds(given: tuple[Daemon, Path]) -> None:
    daemon, _ = given
    container = daemon.create("sleep", "600")
    host = daemon.ok("GET", f"/containers/{container}/json")["HostConfig"]

    assert (host["ShmSize"], host["IpcMode"], host["LogConfig"]["Config"]) == (2 << 20, "shareable", {"max-size": "3m"})
    assert not host["Ulimits"] and not host["Dns"] and not host["SecurityOpt"]
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/stop")  # at once, as default-stop-timeout says
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["ExitCode"] == 137
    daemon.remove_all()


def test_a_hangup_reads_the_file_again_and_tells_what_changed(given: tuple[Daemon, Path]) -> None:
    daemon, config = given
    assert daemon.ok("GET", "/info")["Labels"] == ["file=1", "flag=2"]
    connection = UnixHttp(daemon.sock)
    connection.request("GET", '/events?filters={"type":["daemon"]}')
    events = connection.getresponse()
    before = config.read_text()
    try:
        config.write_text(
            json.dumps({**json.loads(before), "labels": ["file=3"], "debug": True, "insecure-registries": ["r.test:5000"]})
        )
        os.kill(daemon.pid, signal.SIGHUP)
        event = json.loads(events.readline())

        assert (event["Type"], event["Action"]) == ("daemon", "reload") and event["Actor"]["Attributes"]["debug"] == "true"
        info = daemon.ok("GET", "/info")
        assert info["Labels"] == ["file=3", "flag=2"] and info["Debug"] is True
        assert info["RegistryConfig"]["IndexConfigs"]["r.test:5000"]["Secure"] is False
        for wrong in ("{", '{"nosuch": 1}', '{"iptables": false}', '{"labels": "x"}'):
            config.write_text(wrong)
            os.kill(daemon.pid, signal.SIGHUP)
            config.write_text(wrong)
        config.write_text(before)
        os.kill(daemon.pid, signal.SIGHUP)
        while json.loads(events.readline())["Actor"]["Attributes"]["debug"] == "true":
            pass
        assert daemon.ok("GET", "/info")["Labels"] == ["file=1", "flag=2"]
    finally:
        config.write_text(before)
        events.close()
        connection.close()


REFUSED = {
    "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 1, "Soft": 2}}, "default-ipc-mode": "host", "dns": ["not an address"],
    "default-shm-size": "0", "default-cgroupns-mode": "x", "log-level": "loud", "seccomp-profile": "/nosuch", "iptables": False,
    "live-restore": False, "storage-driver": "btrfs", "authorization-plugins": ["x"], "userns-remap": "somebody",
    "runtimes": {"kata": {"path": "/k"}}, "nosuch": 1, "default-stop-timeout": -2, "dns-opts": ["a b"],
}  # fmt: skip


def refusal(path: Path, *more: str) -> str:
    done = subprocess.run([SAMPAN, "daemon", "--config-file", path, *more], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stdout == b"", done
    return done.stderr.decode()


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_is_refused_by_name(key: str, tmp_path: Path) -> None:
    (config := tmp_path / "daemon.json").write_text(json.dumps({key: REFUSED[key]}))

    text = refusal(config, "--validate")

    assert any(word in text for word in (key, "ulimit", "not an address", "logging level", "a b")), text


def test_a_refused_setting_is_found_before_anything_is_made(tmp_path: Path) -> None:
    (config := tmp_path / "daemon.json").write_text(json.dumps({"dns": ["not an address"]}))

    refusal(config, "-H", f"unix://{tmp_path}/s", "--data-root", f"{tmp_path}/d", "--exec-root", f"{tmp_path}/e")

    assert [one.name for one in tmp_path.iterdir()] == ["daemon.json"]
