"""`--init`, and what becomes of a container whose keeper is killed."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from support.daemon import Daemon

INIT = {"HostConfig": {"Init": True}}


def ended(pid: int, seconds: float = 20) -> bool:
    """Wait for a process's end by its pidfd."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_process_1_is_ours_and_the_program_its_child_with_its_own_words(daemon: Daemon) -> None:
    command = "cat /proc/1/comm; tr '\\0' ' ' </proc/1/cmdline; echo; echo $0 $PPID; readlink /proc/1/exe; wc -c </proc/1/exe"
    code, output = daemon.run("sh", "-c", command, "zero", Tty=False, **INIT)

    lines = [line[8:] if line[:1] == b"\x01" else line for line in output.splitlines()]
    assert code == 0 and lines[0] == b"sampan-init"
    assert lines[1].startswith(b"sampan-init /bin/sh sh -c ") and lines[2] == b"zero 1"
    assert lines[3] == b"/memfd:sampan-init (deleted)" and int(lines[4]) < 1024


def test_p1_the_init_shows_no_interpreter_and_cannot_be_written(daemon: Daemon) -> None:
    _, output = daemon.run("sh", "-c", "cat /proc/1/maps; : >>/proc/1/exe && echo WRITTEN; cat /proc/1/environ", **INIT)

    assert b"python" not in output.lower() and b"WRITTEN" not in output and b"CANARY" not in output


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_the_exit_code_is_the_programs(daemon: Daemon, script: str, code: int) -> None:
    assert daemon.run("sh", "-c", script, **INIT)[0] == code


def test_orphans_are_reaped(daemon: Daemon) -> None:
    script = "for i in 1 2 3 4 5; do sh -c 'sleep 0.05 & exit'; done; sleep 0.5; grep -l 'State:.Z' /proc/[0-9]*/status | wc -l"

    assert daemon.run("sh", "-c", script, **INIT) == (0, b"0\n")


def test_signals_are_forwarded_and_the_default_action_ends_the_program(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "trap 'echo usr1; exit 3' USR1; echo up; while :; do sleep 0.05; done", Tty=True, **INIT)
    daemon.ok("POST", f"/containers/{container}/start")
    while b"up" not in daemon.call("GET", f"/containers/{container}/logs?stdout=1").body:
        pass
    daemon.ok("POST", f"/containers/{container}/kill?signal=USR1")
    assert daemon.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 3

    plain = daemon.create("sleep", "600", **INIT)  # as process 1 itself it would not hear SIGTERM
    daemon.ok("POST", f"/containers/{plain}/start")
    daemon.ok("POST", f"/containers/{plain}/stop?t=30")
    assert daemon.ok("GET", f"/containers/{plain}/json")["State"]["ExitCode"] == 143


def test_a_terminal_belongs_to_the_program_and_job_control_works(daemon: Daemon) -> None:
    code, output = daemon.run(
        "sh", "-mc", "ps -o pid,pgid,tpgid,comm 2>/dev/null || true; sleep 1 & jobs; kill %1; wait; cat /proc/self/stat", **INIT
    )

    fields = output.splitlines()[-1].rpartition(b")")[2].split()
    assert b"sleep 1" in output and b"can't access tty" not in output
    assert int(fields[5]) > 1, "the terminal's foreground group is the program's, not process 1's"
    assert code == 0


def test_a_user_without_rights_and_a_read_only_root_can_have_an_init_too(daemon: Daemon) -> None:
    host = {"Init": True, "ReadonlyRootfs": True, "SecurityOpt": ["no-new-privileges"], "CapDrop": ["ALL"]}
    assert daemon.run("sh", "-c", "id -u; cat /proc/1/comm", User="1000", HostConfig=host) == (0, b"1000\nsampan-init\n")


def test_a_program_that_is_not_there_is_refused_as_without_init(daemon: Daemon) -> None:
    container = daemon.create("nosuch", **INIT)
    answer = daemon.call("POST", f"/containers/{container}/start")

    assert answer.status == 400 and "executable file not found in $PATH" in answer.json["message"]


def test_the_flag_of_both_clients(daemon: Daemon) -> None:
    for run in (daemon.docker, daemon.sampan):
        assert run("run", "--rm", "--init", "busybox", "cat", "/proc/1/comm").stdout == b"sampan-init\n"
        assert run("run", "--rm", "busybox", "cat", "/proc/1/comm").stdout == b"cat\n"


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("user", ["", "1000"])
def test_a_killed_keeper_takes_its_container_with_it(daemon: Daemon, init: bool, user: str) -> None:
    container = daemon.create("sh", "-c", "sleep 600 & sleep 601; true", User=user, HostConfig={"Init": init})
    daemon.ok("POST", f"/containers/{container}/start")
    pid = daemon.ok("GET", f"/containers/{container}/json")["State"]["Pid"]

    os.kill(parent(pid), signal.SIGKILL)

    assert ended(pid)
    daemon.ok("POST", f"/containers/{container}/wait")
    state = daemon.ok("GET", f"/containers/{container}/json")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137) and "keeper" in state["Error"]
    assert not _processes(daemon, container)


def test_a_keeper_killed_while_no_daemon_runs_leaves_no_process_and_is_found_out(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "sleep 600 & sleep 601; true")
    daemon.ok("POST", f"/containers/{container}/start")
    pid = daemon.ok("GET", f"/containers/{container}/json")["State"]["Pid"]
    daemon.kill(signal.SIGKILL)

    os.kill(parent(pid), signal.SIGKILL)
    assert ended(pid)

    daemon.start()
    state = daemon.ok("GET", f"/containers/{container}/json")["State"]
    assert (state["Status"], state["Pid"]) == ("exited", 0) and not _processes(daemon, container)


def _processes(daemon: Daemon, container: str) -> list[str]:
    """Return what still runs in the container's control groups."""
    found = []
    for procs in Path("/sys/fs/cgroup").glob(f"**/{daemon.cgroup_parent.strip('/')}/{container}/cgroup.procs"):
        found += procs.read_text().split()
    return found
