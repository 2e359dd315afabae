"""Containers of a real daemon: what the engine promises of them."""

from __future__ import annotations

import os
import signal

from support.daemon import Daemon


def test_output_exit_code_and_record_of_a_run(daemon: Daemon) -> None:
    assert daemon.run("sh", "-c", "echo hello; exit 7") == (7, b"hello\n")


def test_row_25_neither_run_nor_exec_sees_the_daemons_environment(daemon: Daemon) -> None:
    _, output = daemon.run("env")

    assert b"CANARY" not in output and b"PATH=" in output and b"HOSTNAME=" in output


def test_row_20_no_process_has_inheritable_or_ambient_capabilities(daemon: Daemon) -> None:
    for user in ("", "1000"):
        _, output = daemon.run("grep", "Cap", "/proc/self/status", User=user)
        sets = dict(line.split(b":\t") for line in output.splitlines())
        assert int(sets[b"CapInh"], 16) == int(sets[b"CapAmb"], 16) == 0
        assert int(sets[b"CapBnd"], 16) == 0xA80425FB


def test_row_22_an_impossible_uid_is_refused_and_never_root(daemon: Daemon) -> None:
    for user in ("4294967296", "2147483648", "99999999999"):
        container = daemon.create("id", User=user)
        answer = daemon.call("POST", f"/containers/{container}/start")
        assert answer.status == 400, answer


def test_a_failed_start_leaves_created_with_dockers_code_and_words(daemon: Daemon) -> None:
    for command, code, words in (("nosuch", 127, "executable file not found in $PATH"), ("/etc", 126, "permission denied")):
        container = daemon.create(command)
        answer = daemon.call("POST", f"/containers/{container}/start")
        state = daemon.ok("GET", f"/containers/{container}/json")["State"]
        assert answer.status == 400 and words in answer.json["message"]
        assert (state["Status"], state["ExitCode"]) == ("created", code) and words in state["Error"]


def test_row_29_a_killed_daemon_finds_its_containers_again_and_stops_the_right_process(daemon: Daemon) -> None:
    container = daemon.create("sleep", "600")
    daemon.ok("POST", f"/containers/{container}/start")
    before = daemon.ok("GET", f"/containers/{container}/json")["State"]["Pid"]

    daemon.restart(signal.SIGKILL)

    state = daemon.ok("GET", f"/containers/{container}/json")["State"]
    assert state["Running"] and state["Pid"] == before
    daemon.ok("POST", f"/containers/{container}/stop?t=0")
    assert not os.path.exists(f"/proc/{before}")


def test_an_end_that_no_daemon_saw_is_recorded_by_the_next(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "read x; exit 9", OpenStdin=True)
    daemon.ok("POST", f"/containers/{container}/start")
    pid = daemon.ok("GET", f"/containers/{container}/json")["State"]["Pid"]
    daemon.kill(signal.SIGKILL)
    end = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    os.close(end)

    daemon.start()

    daemon.ok("POST", f"/containers/{container}/wait")
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["ExitCode"] == 137


def test_row_96_a_tampered_record_is_left_alone_and_the_daemon_starts(daemon: Daemon) -> None:
    import sqlite3

    container = daemon.create("true", name="tampered")
    daemon.kill(signal.SIGKILL)
    database = sqlite3.connect(daemon.data_root / "state.db")
    (body,) = database.execute("SELECT body FROM records WHERE kind='container' AND key=?", (container,)).fetchone()
    database.execute("UPDATE records SET body=? WHERE kind='container' AND key=?", (b'{"id": 5}', container))
    database.commit()

    daemon.start()
    assert container not in [one["Id"] for one in daemon.ok("GET", "/containers/json?all=1")]
    assert "cannot be read" in daemon.log

    daemon.kill(signal.SIGKILL)
    database.execute("UPDATE records SET body=? WHERE kind='container' AND key=?", (body, container))
    database.commit()
    database.close()
    daemon.start()
    assert container in [one["Id"] for one in daemon.ok("GET", "/containers/json?all=1")]


def test_row_55_labels_of_images_and_containers_change_nothing(daemon: Daemon) -> None:
    labels = {"sampan.privileged": "true", "com.docker.network.bridge.name": "x", "io.podman.annotations.userns": "host"}
    code, output = daemon.run("cat", "/proc/self/uid_map", Labels=labels)

    assert code == 0 and output.split()[1] != b"0"


def test_an_attach_before_the_start_loses_no_byte(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "busybox", "sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done")

    assert done.stdout.split() == [str(n).encode() for n in range(2000)]


def test_restart_on_failure_counts(daemon: Daemon) -> None:
    policy = {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}
    container = daemon.create("sh", "-c", "exit 4", HostConfig=policy)
    daemon.ok("POST", f"/containers/{container}/start")
    while (found := daemon.ok("GET", f"/containers/{container}/json"))["State"]["Running"] or found["RestartCount"] < 2:
        daemon.ok("POST", f"/containers/{container}/wait")

    assert found["RestartCount"] == 2 and found["State"]["ExitCode"] == 4


def test_a_volume_gets_the_images_files_and_keeps_what_was_written(daemon: Daemon) -> None:
    host = {"Binds": ["vol-test:/etc"]}
    _, output = daemon.run("sh", "-c", "cat /etc/passwd | head -1; echo x > /etc/new", HostConfig=host)

    assert output == b"root:x:0:0:root:/root:/bin/sh\n"
    assert daemon.run("cat", "/etc/new", HostConfig=host) == (0, b"x\n")


def test_a_device_may_have_another_name_inside_and_anybody_may_ping(daemon: Daemon) -> None:
    devices = [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/xyz", "CgroupPermissions": "rwm"}]
    script = "stat -c '%t:%T' /dev/xyz; head -c3 /dev/xyz | wc -c; cat /proc/sys/net/ipv4/ping_group_range"
    for mode, last in (("", "65535"), ("host", "2147483647")):
        code, output = daemon.run("sh", "-c", script, User="1000", HostConfig={"Devices": devices, "UsernsMode": mode})
        assert (code, output.split()) == (0, [b"1:5", b"3", b"0", last.encode()])
