"""The `sampan` command against its daemon: what test_docker_cli.py asks of docker's."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from support.daemon import SAMPAN, Daemon

sys.path.insert(0, str(Path(__file__).parent))
from terminal import Terminal


def sampan(daemon: Daemon, *arguments: str) -> list[str]:
    return [str(SAMPAN), "-H", daemon.host, *arguments]


def test_detaching_leaves_the_container_and_attach_comes_back(daemon: Daemon) -> None:
    with Terminal(*sampan(daemon, "run", "--name", "det", "-it", "busybox", "sh")) as terminal:
        terminal.wait_for(b"# ")
        terminal.type(b"\x10\x11")
        terminal.wait_for(b"read escape sequence")
        assert terminal.end() == 0
    assert daemon.sampan("inspect", "-f", "{{.State.Running}}", "det").stdout == b"true\n"
    with Terminal(*sampan(daemon, "attach", "det")) as terminal:
        terminal.type(b"echo ba''ck\r")
        terminal.wait_for(b"back")
        terminal.type(b"exit 5\r")
        assert terminal.end() == 5


def test_signals_go_to_the_process(daemon: Daemon) -> None:
    script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    running = subprocess.Popen(sampan(daemon, "run", "--rm", "busybox", "sh", "-c", script), stdout=subprocess.PIPE)
    assert running.stdout is not None
    with running.stdout:
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == b"got\n"
    assert running.wait(20) == 9


def test_exec_returns_the_process_exit_code(daemon: Daemon) -> None:
    daemon.sampan("run", "-d", "--name", "web", "busybox", "sleep", "1000")

    assert daemon.sampan("exec", "-e", "A=b", "web", "sh", "-c", "echo $A; exit 4", check=False).returncode == 4
    assert daemon.sampan("exec", "web", "/nope", check=False).returncode == 127
    assert daemon.sampan("exec", "-d", "web", "true").stdout == b""


def test_start_attached_stop_wait_and_logs(daemon: Daemon) -> None:
    daemon.sampan("create", "--name", "once", "busybox", "sh", "-c", "echo said; exit 6")

    started = daemon.sampan("start", "-a", "once", check=False)
    assert (started.stdout, started.returncode) == (b"said\n", 6)
    assert daemon.sampan("wait", "once").stdout == b"6\n"
    assert daemon.sampan("logs", "once").stdout == b"said\n"
    assert daemon.sampan("stop", "once").stdout == b"once\n"
    assert daemon.sampan("rm", "once").stdout == b"once\n"


def test_save_load_tag_and_rmi(daemon: Daemon, tmp_path: Path) -> None:
    daemon.sampan("tag", "busybox", "mine:1")
    daemon.sampan("save", "-o", str(tmp_path / "i.tar"), "mine:1")
    assert b"Untagged: mine:1" in daemon.sampan("rmi", "mine:1").stdout
    assert b"Loaded image: mine:1" in daemon.sampan("load", "-i", str(tmp_path / "i.tar")).stdout
    assert daemon.sampan("images", "--format", "{{.Repository}}:{{.Tag}}", "mine").stdout == b"mine:1\n"
    daemon.sampan("rmi", "mine:1")


def test_explain_shows_each_thing_and_its_command(daemon: Daemon) -> None:
    daemon.sampan("run", "-d", "--name", "seen", "busybox", "sleep", "1000")

    shown = daemon.sampan("explain", "seen").stdout.decode()

    assert "NAMESPACES" in shown
    assert "$ readlink /proc/" in shown
