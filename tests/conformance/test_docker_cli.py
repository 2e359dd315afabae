"""The docker 28 client, unchanged, against Sampan."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.daemon import Daemon, busybox_rootfs

sys.path.insert(0, str(Path(__file__).parent))
from terminal import Terminal


def docker(daemon: Daemon, *arguments: str) -> list[str]:
    return ["docker", "-H", daemon.host, *arguments]


def test_version_names_server_and_negotiates(daemon: Daemon) -> None:
    shown = json.loads(daemon.docker("version", "--format", "{{json .}}").stdout)

    assert shown["Server"]["Os"] == "linux"
    assert shown["Server"]["ApiVersion"] == "1.50"


def test_run_rm_prints_output_and_leaves_nothing(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "busybox", "echo", "hello", "world")

    assert done.stdout == b"hello world\n"
    assert daemon.docker("ps", "-aq").stdout == b""


def test_run_of_a_missing_image_is_125_and_names_it(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "--pull", "never", "nosuchimage:9", "true", check=False)

    assert done.returncode == 125
    assert b"No such image: nosuchimage:9" in done.stderr


def test_run_d_ps_logs_stop_rm(daemon: Daemon) -> None:
    loop = "while true; do echo hello world; sleep 1; done"
    container = daemon.docker("run", "-d", "--name", "loop", "busybox", "/bin/sh", "-c", loop).stdout.decode().strip()

    assert len(container) == 64
    rows = daemon.docker("ps", "--no-trunc").stdout.decode()
    assert container in rows
    assert "Up " in rows
    with subprocess.Popen(docker(daemon, "logs", "-f", "loop"), stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"hello world\n"
        assert following.stdout.readline() == b"hello world\n"
        daemon.docker("stop", "-t", "1", "loop")
        following.stdout.read()
        assert following.wait(20) == 0
    shown = json.loads(daemon.docker("inspect", "loop").stdout)[0]
    assert (shown["State"]["Status"], shown["State"]["ExitCode"]) == ("exited", 137)
    assert shown["Config"]["Hostname"] == container[:12]
    assert daemon.docker("inspect", "-f", "{{.Config.Hostname}}", container[:3]).stdout.decode().strip() == container[:12]
    daemon.docker("rm", "loop")
    assert daemon.docker("ps", "-aq").stdout == b""


def test_logs_tail_since_and_timestamps(daemon: Daemon) -> None:
    daemon.docker("run", "--name", "cl", "busybox", "seq", "1", "10")

    assert daemon.docker("logs", "cl").stdout.split() == [str(n).encode() for n in range(1, 11)]
    assert daemon.docker("logs", "--tail", "2", "cl").stdout == b"9\n10\n"
    assert daemon.docker("logs", "--since", "2100-01-01T00:00:00Z", "cl").stdout == b""
    stamp, _, rest = daemon.docker("logs", "-t", "--tail", "1", "cl").stdout.partition(b" ")
    assert (rest, stamp[10:11], stamp[-1:]) == (b"10\n", b"T", b"Z")


def test_exec_runs_in_the_container(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "ce", "busybox", "sleep", "600")

    assert daemon.docker("exec", "ce", "hostname").stdout == daemon.docker("exec", "ce", "cat", "/etc/hostname").stdout
    assert daemon.docker("exec", "ce", "sh", "-c", "exit 9", check=False).returncode == 9
    assert daemon.docker("exec", "-i", "ce", "cat", input=b"piped").stdout == b"piped"
    assert daemon.docker("exec", "-e", "A=b", "-w", "/tmp", "ce", "sh", "-c", "echo $A; pwd").stdout == b"b\n/tmp\n"
    assert daemon.docker("exec", "ce", "/no/such", check=False).returncode in (126, 127)
    assert daemon.docker("exec", "-u", "1000", "ce", "id", "-u").stdout == b"1000\n"


def test_exec_it_is_a_terminal(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "ct", "busybox", "sleep", "600")

    with Terminal(*docker(daemon, "exec", "-it", "ct", "sh"), rows=33, columns=99) as terminal:
        terminal.wait_for(b"# ")
        terminal.type(b"until stty size | grep -q '33 99'; do :; done; echo si''ze\r")
        terminal.wait_for(b"size")
        terminal.type(b"exit 4\r")
        assert terminal.end() == 4


def test_attach_sees_output_and_detaches(daemon: Daemon) -> None:
    daemon.docker("run", "-dit", "--name", "ca", "busybox", "sh")

    with Terminal(*docker(daemon, "attach", "ca")) as terminal:
        terminal.type(b"echo fr''om attach\r")
        terminal.wait_for(b"from attach")
        terminal.type(b"\x10\x11")
        terminal.wait_for(b"read escape sequence")
        terminal.end()
    assert daemon.docker("inspect", "-f", "{{.State.Running}}", "ca").stdout == b"true\n"


def test_attach_without_a_terminal_ends_with_the_container(daemon: Daemon) -> None:
    daemon.docker("run", "-di", "--name", "cw", "busybox", "sh", "-c", "read line; echo got $line; exit 5")

    done = daemon.docker("attach", "cw", input=b"this\n", check=False)

    assert (done.stdout, done.returncode) == (b"got this\n", 5)


def test_events_tell_the_life_of_a_container(daemon: Daemon) -> None:
    with subprocess.Popen(
        # Since: two clients start here at once, and nobody says which of them is heard first.
        docker(daemon, "events", "--since", str(int(time.time())), "--filter", "container=seen", "--format", "{{.Action}}"),
        stdout=subprocess.PIPE,
    ) as following:
        assert following.stdout is not None
        daemon.docker("run", "--rm", "--name", "seen", "busybox", "true")
        seen = []
        while "destroy" not in seen:
            seen.append(following.stdout.readline().decode().strip())
        following.terminate()
        following.stdout.read()
    assert [action for action in seen if action in ("create", "attach", "start", "die", "destroy")] == [
        "create", "attach", "start", "die", "destroy",
    ]  # fmt: skip


def test_load_images_tag_history_rmi(daemon: Daemon, tmp_path: Path) -> None:
    daemon.docker("tag", "busybox", "saved:1")
    daemon.docker("save", "-o", str(tmp_path / "saved.tar"), "saved:1")
    daemon.docker("rmi", "saved:1")
    assert daemon.docker("images", "-q", "saved").stdout == b""

    assert daemon.docker("load", "-i", str(tmp_path / "saved.tar")).stdout == b"Loaded image: saved:1\n"

    assert daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "saved").stdout == b"saved:1\n"
    assert len(daemon.docker("history", "-q", "saved:1").stdout.split()) == 1
    assert daemon.docker("run", "--rm", "saved:1", "echo", "it runs").stdout == b"it runs\n"
    daemon.docker("rmi", "saved:1")


def test_import_makes_an_image_that_runs(daemon: Daemon) -> None:
    daemon.docker("import", "-c", 'CMD ["echo", "imported"]', "-", "imp:1", input=busybox_rootfs())

    assert daemon.docker("run", "--rm", "imp:1").stdout == b"imported\n"
    daemon.docker("rmi", "imp:1")


def test_an_image_in_use_is_not_removed(daemon: Daemon) -> None:
    daemon.import_busybox("inuse")  # an image with one name: of others the name alone goes
    daemon.docker("run", "-d", "--name", "user", "inuse", "sleep", "600")

    done = daemon.docker("rmi", "inuse", check=False)

    assert done.returncode == 1
    assert b"conflict" in done.stderr
    daemon.docker("rm", "-f", "user")
    daemon.docker("rmi", "inuse")


def test_kill_restart_and_wait(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "ck", "busybox", "sh", "-c", "trap 'exit 42' USR1; while :; do sleep 0.1; done")
    with subprocess.Popen(docker(daemon, "wait", "ck"), stdout=subprocess.PIPE) as waiting:
        daemon.docker("kill", "-s", "USR1", "ck")
        assert waiting.communicate(timeout=30)[0] == b"42\n"
    daemon.docker("restart", "-t", "0", "ck")
    assert daemon.docker("inspect", "-f", "{{.State.Status}}", "ck").stdout == b"running\n"
    daemon.docker("kill", "ck")
    assert daemon.docker("wait", "ck").stdout == b"137\n"


def test_a_taken_name_is_refused_in_dockers_words(daemon: Daemon) -> None:
    first = daemon.docker("create", "--name", "taken", "busybox", "true").stdout.decode().strip()

    done = daemon.docker("create", "--name", "taken", "busybox", "true", check=False)

    assert f'Conflict. The container name "/taken" is already in use by container "{first}"' in done.stderr.decode()


def test_network_ls_and_inspect(daemon: Daemon) -> None:
    names = daemon.docker("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert {b"bridge", b"host", b"none"} <= set(names)
    daemon.docker("run", "-d", "--name", "cn", "busybox", "sleep", "600")
    shown = json.loads(daemon.docker("network", "inspect", "bridge").stdout)[0]
    assert [c["Name"] for c in shown["Containers"].values()] == ["cn"]


def test_info_and_system_words(daemon: Daemon) -> None:
    shown = json.loads(daemon.docker("info", "--format", "{{json .}}").stdout)

    assert shown["Driver"] == "overlay2"
    assert any("seccomp" in option for option in shown["SecurityOptions"])
    assert not shown.get("ServerErrors")


def test_volume_commands(daemon: Daemon) -> None:
    assert daemon.docker("volume", "create", "--label", "a=b", "data").stdout == b"data\n"
    daemon.docker("run", "--rm", "-v", "data:/v", "busybox", "sh", "-c", "echo kept >/v/file")
    found = daemon.docker("run", "--rm", "--mount", "type=volume,src=data,dst=/v,readonly", "busybox", "cat", "/v/file")

    assert found.stdout == b"kept\n"
    assert daemon.docker("volume", "ls", "-q", "-f", "label=a=b").stdout == b"data\n"
    assert json.loads(daemon.docker("volume", "inspect", "data").stdout)[0]["Labels"] == {"a": "b"}
    daemon.docker("create", "--name", "user", "-v", "data:/v", "busybox", "true")
    refused = daemon.docker("volume", "rm", "data", check=False)
    assert refused.returncode == 1 and b"volume is in use" in refused.stderr
    daemon.docker("rm", "user")
    assert daemon.docker("volume", "rm", "data").stdout == b"data\n"
    assert daemon.docker("volume", "rm", "-f", "data").returncode == 0
    anonymous = daemon.docker("volume", "create").stdout.decode().strip()
    assert anonymous in daemon.docker("volume", "prune", "-f").stdout.decode()


@pytest.mark.docker_client(28)
def test_volume_options_and_subpath(daemon: Daemon) -> None:
    daemon.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "fast")
    shown = daemon.docker("run", "--rm", "-v", "fast:/v", "busybox", "df", "/v").stdout

    assert shown.splitlines()[1].split()[:2] == [b"tmpfs", b"1024"]
    daemon.docker("run", "--rm", "-v", "data:/v", "busybox", "sh", "-c", "mkdir /v/sub; echo deep >/v/sub/f")
    mount = "type=volume,src=data,dst=/m,volume-subpath=sub"
    assert daemon.docker("run", "--rm", "--mount", mount, "busybox", "cat", "/m/f").stdout == b"deep\n"
    daemon.docker("volume", "rm", "fast", "data")


def test_stats_and_update(daemon: Daemon) -> None:
    container = daemon.docker("run", "-d", "--name", "web", "-m", "64m", "busybox", "sleep", "600").stdout.decode().strip()
    shown = daemon.docker("stats", "--no-stream", "--format", "{{json .}}").stdout

    found = json.loads(shown)
    assert (found["Name"], found["ID"], found["PIDs"]) == ("web", container[:12], "1")
    assert found["MemUsage"].endswith(" / 64MiB") and found["CPUPerc"].endswith("%") and found["MemUsage"][0] != "0"
    assert daemon.docker("update", "-m", "32m", "--cpus", "0.5", "--restart", "no", "web").stdout == b"web\n"
    assert json.loads(daemon.docker("stats", "--no-stream", "--format", "{{json .}}").stdout)["MemUsage"].endswith(" / 32MiB")
    refused = daemon.docker("update", "-m", "1g", "web", check=False)
    assert refused.returncode == 1 and b"update the memoryswap at the same time" in refused.stderr


@pytest.mark.docker_client(28)
def test_system_df_and_prune(daemon: Daemon) -> None:
    daemon.docker("image", "prune", "-f")  # what other tests left untagged
    daemon.ok("POST", "/build/prune?all=true")
    daemon.docker("run", "--name", "old", "-v", "/anon", "busybox", "sh", "-c", "head -c 1000 /dev/zero >/f")
    lines = daemon.docker("system", "df").stdout.decode().splitlines()

    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"] and lines[2].split()[:2] == ["Containers", "1"]
    assert b"Local Volumes space usage" in daemon.docker("system", "df", "-v").stdout
    pruned = daemon.docker("system", "prune", "-f", "--volumes").stdout
    assert b"Deleted Containers:" in pruned and b"Deleted Volumes:" in pruned and b"Total reclaimed space: 1kB" in pruned
    assert daemon.docker("ps", "-aq").stdout == b"" and daemon.docker("images", "-q", "busybox").stdout
