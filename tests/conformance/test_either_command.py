"""What docker's command and ours do alike against the daemon: the streams, the exit codes and the terminal of a run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemon import SAMPAN, Daemon

sys.path.insert(0, str(Path(__file__).parent))
from terminal import Terminal

Command = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(params=["docker", str(SAMPAN)], ids=["docker", "sampan"])
def words(request: pytest.FixtureRequest, daemon: Daemon) -> list[str]:
    return [request.param, "-H", daemon.host]


@pytest.fixture
def command(words: list[str]) -> Command:
    def run(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*words, *arguments], input=data, capture_output=True, timeout=60, check=False)

    return run


def test_run_keeps_the_streams_apart_and_leaves_nothing(command: Command) -> None:
    done = command("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")

    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)
    assert command("ps", "-aq").stdout == b""


def test_a_killed_process_is_137(command: Command) -> None:
    assert command("run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?").returncode == 137


def test_run_passes_stdin_to_its_end(command: Command) -> None:
    data = bytes(range(256)) * 8192

    done = command("run", "--rm", "-i", "busybox", "cat", data=data)

    assert (done.returncode, done.stdout) == (0, data)


def test_run_of_a_missing_program_is_127_and_of_a_directory_126(command: Command) -> None:
    missing = command("run", "--rm", "busybox", "/no/such")
    directory = command("run", "--rm", "busybox", "/etc")

    assert (missing.returncode, directory.returncode) == (127, 126)
    assert b"/no/such" in missing.stderr
    assert command("ps", "-aq").stdout == b""


def test_run_it_is_a_terminal_that_follows_resizes(words: list[str]) -> None:
    with Terminal(*words, "run", "--rm", "-it", "busybox", "sh", rows=31, columns=97) as terminal:
        terminal.wait_for(b"# ")
        terminal.type(b"stty size; tty; echo do''ne\r")
        shown = terminal.wait_for(b"done")
        assert b"31 97" in shown
        assert b"/dev/pts/0" in shown or b"/dev/console" in shown
        terminal.resize(40, 120)
        terminal.type(b"until stty size | grep -q '40 120'; do :; done; echo resi''zed\r")
        terminal.wait_for(b"resized")
        terminal.type(b"exit 3\r")
        assert terminal.end() == 3
