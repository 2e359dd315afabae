"""Execs of a real daemon: options, bytes in and out, and what a daemon's end leaves of them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon

LARGE = 300 << 20


@pytest.fixture
def box(daemon: Daemon) -> str:
    container = daemon.create("sleep", "600", name="box")
    daemon.ok("POST", f"/containers/{container}/start")
    return container


def made(daemon: Daemon, container: str, *command: str, **body: Any) -> str:
    return str(daemon.ok("POST", f"/containers/{container}/exec", {"Cmd": list(command), **body})["Id"])


def detached(daemon: Daemon, container: str, *command: str, **body: Any) -> str:
    name = made(daemon, container, *command, **body)
    daemon.ok("POST", f"/exec/{name}/start", {"Detach": True})
    return name


def wait_for(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        assert select.select([fd], [], [], 30)[0]
    finally:
        os.close(fd)


def code_of(daemon: Daemon, name: str) -> int:
    while (found := daemon.ok("GET", f"/exec/{name}/json"))["Running"]:
        pass
    return int(found["ExitCode"])


OPTIONS = [
    (["--user", "1000"], "id -u", b"1000"), (["--user", "user:extra"], "id -g", b"2000"), (["--workdir", "/tmp"], "pwd", b"/tmp"),
    (["--env", "A=b c"], "echo $A", b"b c"), (["--privileged"], "grep CapEff /proc/self/status", b"ffff"),
    ([], "grep CapEff /proc/self/status", b"00000000a80425fb"), (["--env-file", "FILE"], "echo $FROM_FILE", b"yes"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "command", "wanted"), OPTIONS)
def test_options_of_both_clients(daemon: Daemon, box: str, tmp_path: Path, flags: list[str], command: str, wanted: bytes) -> None:
    file = tmp_path / "env"
    file.write_text("FROM_FILE=yes\n")
    flags = [str(file) if flag == "FILE" else flag for flag in flags]
    for run in (daemon.docker, daemon.sampan):
        assert wanted in run("exec", *flags, "box", "sh", "-c", command).stdout


def test_the_consoles_size_is_there_from_the_first_moment(daemon: Daemon, box: str) -> None:
    name = made(daemon, box, "stty", "size", AttachStdout=True, Tty=True, ConsoleSize=[41, 123])
    assert daemon.call("POST", f"/exec/{name}/start", {"Tty": True, "ConsoleSize": [41, 123]}).body.split() == [b"41", b"123"]


def test_inspect_shows_everything_that_was_asked_for(daemon: Daemon, box: str) -> None:
    name = made(daemon, box, "sh", "-c", "exit 5", User="1000", Privileged=True, DetachKeys="ctrl-x,a", AttachStdout=True)
    before = daemon.ok("GET", f"/exec/{name}/json")
    assert (before["Running"], before["ExitCode"], before["Pid"]) == (False, None, 0)
    daemon.call("POST", f"/exec/{name}/start", {})
    assert code_of(daemon, name) == 5
    found = daemon.ok("GET", f"/exec/{name}/json")

    assert found["ProcessConfig"] == {
        "tty": False, "entrypoint": "sh", "arguments": ["-c", "exit 5"], "privileged": True, "user": "1000",
    }  # fmt: skip
    assert base64.b64decode(found["DetachKeys"]) == b"\x18a" and found["OpenStdout"]


def test_a_running_exec_outlives_the_daemon_and_its_exit_code_is_known(daemon: Daemon, box: str) -> None:
    script = "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 7"
    name = detached(daemon, box, "sh", "-c", script, User="1000")
    before = daemon.ok("GET", f"/exec/{name}/json")

    daemon.restart(signal.SIGKILL)

    found = daemon.ok("GET", f"/exec/{name}/json")
    assert found["Running"] and found["Pid"] == before["Pid"] and found["ProcessConfig"]["user"] == "1000"
    assert daemon.ok("GET", f"/containers/{box}/json")["ExecIDs"] == [name]
    daemon.docker("exec", "box", "touch", "/tmp/go")
    assert code_of(daemon, name) == 7
    assert daemon.ok("GET", f"/containers/{box}/json")["ExecIDs"] is None


def test_an_exec_that_ended_while_no_daemon_ran_has_its_exit_code(daemon: Daemon, box: str) -> None:
    name = detached(daemon, box, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done")
    pid = daemon.ok("GET", f"/exec/{name}/json")["Pid"]
    daemon.docker("exec", "box", "sleep", "0.3")  # its trap is set
    daemon.kill(signal.SIGKILL)
    os.kill(pid, signal.SIGTERM)
    wait_for(pid)
    daemon.start()

    assert code_of(daemon, name) == 9


def test_an_exec_started_after_a_restart_of_the_daemon_ends_too(daemon: Daemon, box: str) -> None:
    daemon.restart(signal.SIGKILL)

    assert daemon.docker("exec", "box", "sh", "-c", "exit 6", check=False).returncode == 6
    assert code_of(daemon, detached(daemon, box, "sh", "-c", "exit 4")) == 4


def test_a_probe_that_hangs_does_not_outlive_its_daemon_by_much(daemon: Daemon) -> None:
    check = {"Test": ["CMD", "sleep", "4444"], "Interval": 10**7, "Timeout": 3600 * 10**9}
    container = daemon.create("sleep", "600", Healthcheck=check)
    daemon.ok("POST", f"/containers/{container}/start")
    while "sleep 4444" not in (top := daemon.docker("top", container).stdout.decode()):
        pass
    pid = next(int(line.split()[1]) for line in top.splitlines() if "sleep 4444" in line)
    daemon.restart(signal.SIGKILL)

    wait_for(pid) if Path(f"/proc/{pid}").exists() else None


def test_ended_execs_are_forgotten_when_there_are_many(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from sampan.engine.execs import execs as module
    from sampan.wire import execs as e

    class Nobody:
        def __init__(self) -> None:
            self.execs: dict[str, Any] = {}

        def emit(self, *_: object, **__: object) -> None:
            pass

    async def many() -> int:
        monkeypatch.setattr(module, "MOST", 10)
        room, container = module.Execs(None), Nobody()  # type: ignore[arg-type]  # only the table is used
        for _ in range(100):
            one = module.Exec(container, e.ExecCreate(), room)  # type: ignore[arg-type]  # as above
            room.all[one.id] = one
            one.started = True
            one.ended(0)
            room._collect()
        assert container.execs == {}
        return len(room.all)

    assert asyncio.run(many()) <= 21


# Bytes.


def digest_of(stream: Any) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    while data := stream.read(1 << 20):
        found.update(data)
        size += len(data)
    return found.hexdigest(), size


def feed(pipe: Any, size: int, told: list[str]) -> None:
    block = bytes(os.urandom(1 << 20))
    found = hashlib.sha256()
    for _ in range(size >> 20):
        found.update(block)
        pipe.write(block)
    pipe.close()
    told.append(found.hexdigest())


@pytest.mark.parametrize("words", [["run", "-i", "--rm", "--log-driver", "none", "busybox"], ["exec", "-i", "box"]])
def test_hundreds_of_megabytes_go_in_and_out_bit_for_bit(daemon: Daemon, box: str, words: list[str]) -> None:
    command = ["docker", "-H", daemon.host, *words, "cat"]
    told: list[str] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        writer = threading.Thread(target=feed, args=(process.stdin, LARGE, told))
        writer.start()
        found, size = digest_of(process.stdout)
        writer.join()
        assert process.wait(30) == 0

    assert size == LARGE and [found] == told


def test_half_close_reaches_the_program_and_its_answer_comes_back(daemon: Daemon, box: str) -> None:
    done = daemon.docker("exec", "-i", "box", "sh", "-c", "cat | wc -c; echo after; exit 3", input=b"x" * 100_000, check=False)

    assert (done.returncode, done.stdout.split()) == (3, [b"100000", b"after"])


def test_a_slow_reader_slows_the_exec_only_and_costs_the_daemon_no_memory(daemon: Daemon, box: str) -> None:
    name = made(daemon, box, "sh", "-c", "yes | head -c 200000000", AttachStdout=True)
    stuck = socket.socket(socket.AF_UNIX)
    stuck.connect(str(daemon.sock))
    body = json.dumps({"Detach": False, "Tty": False}).encode()
    head = f"POST /exec/{name}/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    before = _memory(daemon.pid)
    stuck.sendall(head.encode() + body)  # and never read
    assert stuck.recv(1, socket.MSG_PEEK)

    for _ in range(20):
        assert daemon.docker("exec", "box", "echo", "quick", timeout=20).stdout == b"quick\n"
    assert daemon.ok("GET", f"/exec/{name}/json")["Running"]
    assert _memory(daemon.pid) - before < 40_000
    pid = daemon.ok("GET", f"/exec/{name}/json")["Pid"]
    stuck.close()
    wait_for(pid)


def _memory(pid: int) -> int:
    return int(next(line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")))
