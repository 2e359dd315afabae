"""Logs of a real daemon: drivers, rotation, following, a disk that is full."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, UnixHttp


def host(driver: str, **options: str) -> dict[str, Any]:
    return {"LogConfig": {"Type": driver, "Config": {key.replace("_", "-"): value for key, value in options.items()}}}


def finished(daemon: Daemon, *command: str, **body: Any) -> str:
    container = daemon.create(*command, **body)
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/wait")
    return container


def logs(daemon: Daemon, container: str, query: str = "stdout=1&stderr=1") -> bytes:
    answer = daemon.call("GET", f"/containers/{container}/logs?{query}")
    assert answer.status == 200, answer
    return answer.body


def plain(stream: bytes) -> bytes:
    made, place = b"", 0
    while place < len(stream):
        size = int.from_bytes(stream[place + 4 : place + 8], "big")
        made += stream[place + 8 : place + 8 + size]
        place += 8 + size
    return made


class Follow:
    """An open `logs?follow=1`."""

    def __init__(self, daemon: Daemon, container: str, query: str = "stdout=1&follow=1") -> None:
        self._connection = UnixHttp(daemon.sock)
        self._connection.request("GET", f"/containers/{container}/logs?{query}")
        self._reply = self._connection.getresponse()

    def line(self) -> bytes:
        head = self._reply.read(8)
        return self._reply.read(int.from_bytes(head[4:], "big")) if head else b""

    def rest(self) -> bytes:
        found = plain(self._reply.read())
        self._connection.close()
        return found

    def close(self) -> None:
        self._reply.close()
        self._connection.close()


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("mode", ["blocking", "non-blocking"])
def test_every_driver_that_keeps_lines_gives_them_back(daemon: Daemon, driver: str, mode: str) -> None:
    container = finished(daemon, "sh", "-c", "seq 1 2000; echo err >&2; printf last", HostConfig=host(driver, mode=mode))

    found = plain(logs(daemon, container, "stdout=1"))
    assert found == b"".join(b"%d\n" % n for n in range(1, 2001)) + b"last"
    assert plain(logs(daemon, container, "stderr=1")) == b"err\n"
    assert (
        plain(logs(daemon, container, "stdout=1&tail=4")) == b"1999\n2000\nlast"
    )  # the other stream's line counts, as docker has it


def test_none_keeps_nothing_and_says_so_when_asked(daemon: Daemon) -> None:
    container = finished(daemon, "echo", "x", HostConfig=host("none"))

    done = daemon.docker("logs", container, check=False)
    assert done.returncode == 1 and b"configured logging driver does not support reading" in done.stderr
    assert daemon.ok("GET", f"/containers/{container}/json")["LogPath"] == ""


def test_syslog_lines_go_to_the_server_and_can_be_read_too(daemon: Daemon, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "s"))
        server.settimeout(30)
        options = {"syslog-address": f"unixgram://{tmp_path}/s", "syslog-facility": "local0", "tag": "{{.Name}}"}
        container = finished(daemon, "echo", "hello", name="", HostConfig=host("syslog", **options))
        message = server.recv(4096)
        name = daemon.ok("GET", f"/containers/{container}/json")["Name"].removeprefix("/")

    assert message.startswith(b"<134>") and message.endswith(b"]: hello\n") and f" {name}[".encode() in message
    assert plain(logs(daemon, container)) == b"hello\n"


def test_a_syslog_server_that_is_gone_does_not_stop_the_container(daemon: Daemon) -> None:
    container = finished(daemon, "seq", "1", "500", HostConfig=host("syslog", **{"syslog-address": "tcp://127.0.0.1:1"}))

    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["ExitCode"] == 0
    assert plain(logs(daemon, container)).count(b"\n") == 500
    assert "500 lines of its output are missing" in daemon.log


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (host("gelf"), "no log driver named 'gelf'"), (host("json-file", nonsense="1"), "unknown log opt 'nonsense'"),
        (host("local", mode="fast"), "logging mode 'fast'"), (host("syslog", **{"syslog-address": "x"}), "syslog-address"),
        (host("syslog", **{"syslog-format": "rfc1"}), "Invalid syslog format"), (host("json-file", tag="{{range .}}"), "tag"),
    ],
)  # fmt: skip
def test_what_a_driver_has_not_is_refused_at_create(daemon: Daemon, config: dict[str, Any], words: str) -> None:
    answer = daemon.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": config})

    assert answer.status in (400, 501) and words in answer.json["message"]


def test_details_are_labels_environment_and_tag(daemon: Daemon) -> None:
    options = {"labels": "who", "env-regex": "^X_", "tag": "{{.ImageName}}"}
    config = host("json-file", **options)
    container = finished(daemon, "echo", "x", Labels={"who": "a b", "other": "1"}, Env=["X_1=2", "Y=3"], HostConfig=config)

    assert plain(logs(daemon, container, "stdout=1&details=1")) == b"X_1=2,tag=busybox,who=a+b x\n"


def test_a_log_is_capped_compressed_and_followed_through_its_rotations(daemon: Daemon) -> None:
    config = host("json-file", **{"max-size": "200k", "max-file": "3", "compress": "true"})
    container = daemon.create("sh", "-c", "read x; seq 1 30000", OpenStdin=True, HostConfig=config)
    daemon.ok("POST", f"/containers/{container}/start")
    follow = Follow(daemon, container)
    daemon.docker("attach", container, input=b"go\n")
    assert follow.rest().split() == [b"%d" % n for n in range(1, 30001)]

    folder = daemon.data_root / "containers" / container
    files = {path.name.removeprefix(f"{container}-json.log"): path.stat().st_size for path in folder.glob("*.log*")}
    assert sorted(files) == ["", ".1.gz", ".2.gz"] and files[""] <= 200_000
    kept = plain(logs(daemon, container)).split()
    assert kept == [b"%d" % n for n in range(30001 - len(kept), 30001)] and len(kept) > 3000


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_follow_gives_a_line_at_once_and_ends_with_the_container(daemon: Daemon, driver: str) -> None:
    script = "read x; echo got $x; read x; echo got $x; exec sleep 600"
    container = daemon.create("sh", "-c", script, OpenStdin=True, StdinOnce=True, HostConfig=host(driver))
    follow = Follow(daemon, container)  # before its first start
    daemon.ok("POST", f"/containers/{container}/start")
    with subprocess.Popen(["docker", "-H", daemon.host, "attach", container], stdin=subprocess.PIPE, stdout=-3) as attached:
        assert attached.stdin is not None
        attached.stdin.write(b"one\ntwo\n")
        attached.stdin.close()
        assert [follow.line(), follow.line()] == [b"got one\n", b"got two\n"]
        daemon.ok("POST", f"/containers/{container}/kill")
    assert follow.rest() == b""


def test_follow_goes_on_through_restarts_by_the_policy(daemon: Daemon) -> None:
    policy = {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}
    container = daemon.create("sh", "-c", "echo run; exit 1", HostConfig=policy)
    follow = Follow(daemon, container)
    daemon.ok("POST", f"/containers/{container}/start")

    assert follow.rest() == b"run\n" * 3


def test_until_ends_a_follow_and_since_begins_it(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "echo early; sleep 0.3; echo late; sleep 600")
    daemon.ok("POST", f"/containers/{container}/start")
    follow = Follow(daemon, container, "stdout=1&follow=1&timestamps=1")
    early, late = follow.line(), follow.line()
    follow.close()
    moment = _seconds(late.split()[0])

    assert plain(logs(daemon, container, f"stdout=1&follow=1&until={moment - 0.1:.6f}")) == b"early\n"
    assert plain(logs(daemon, container, f"stdout=1&since={moment - 0.1:.6f}")) == b"late\n"
    assert early.endswith(b" early\n")


def _seconds(text: bytes) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text.decode()[:26] + "+00:00").timestamp()


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_full_disk_does_not_stop_the_container(daemon: Daemon, driver: str) -> None:
    container = daemon.create("sh", "-c", "seq 1 200000; exit 3", HostConfig=host(driver))
    folder = daemon.data_root / "containers" / container
    folder.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    try:
        daemon.ok("POST", f"/containers/{container}/start")
        assert daemon.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 3
        assert plain(logs(daemon, container, "stdout=1")).startswith(b"1\n2\n3\n")
        assert "lines of its output are missing in its log" in daemon.log
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_line_below_a_megabyte_is_not_cut(daemon: Daemon) -> None:
    container = finished(daemon, "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' a; echo")

    assert [len(line) for line in plain(logs(daemon, container)).splitlines()] == [1_000_000]


def test_nothing_is_lost_while_no_daemon_runs(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); sleep 0.002; done")
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.restart(signal.SIGKILL)
    daemon.ok("POST", f"/containers/{container}/wait")

    assert plain(logs(daemon, container)).split() == [b"%d" % n for n in range(300)]


def test_clients_that_leave_a_follow_leave_no_descriptor(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "while :; do echo x; sleep 0.01; done")
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("GET", "/_ping")

    def visit() -> None:
        for _ in range(5):
            follow = Follow(daemon, container)
            follow.line()
            follow.close()

    visit()
    before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    threads = [threading.Thread(target=visit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    daemon.ok("POST", f"/containers/{container}/kill")
    daemon.ok("POST", f"/containers/{container}/wait")
    deadline = time.monotonic() + 10
    while (now := len(os.listdir(f"/proc/{daemon.pid}/fd"))) > before:
        assert time.monotonic() < deadline, (before, now)
        threading.Event().wait(0.05)


def test_the_daemons_default_driver_and_options(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"log-driver": "local", "log-opts": {"max-file": "7"}}))
    daemon = Daemon("--config-file", str(config)).start()
    try:
        daemon.import_busybox()
        assert daemon.ok("GET", "/info")["LoggingDriver"] == "local"
        found = [daemon.create("true"), daemon.create("true", HostConfig=host("json-file"))]
        shown = [daemon.ok("GET", f"/containers/{one}/json")["HostConfig"]["LogConfig"] for one in found]
        assert shown == [{"Type": "local", "Config": {"max-file": "7"}}, {"Type": "json-file", "Config": {}}]
    finally:
        daemon.close()


def test_a_daemon_with_a_driver_that_is_not_there_does_not_start() -> None:
    daemon = Daemon("--log-driver", "nonsense")
    try:
        with pytest.raises(RuntimeError, match="no log driver named 'nonsense'"):
            daemon.start()
    finally:
        daemon.close()
