"""Completion in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from support.daemon import SAMPAN, Daemon

BASH = """
source <(sampan completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
_sampan
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { :; }
source <(sampan completion zsh)
_describe() { print -rl -- "${found[@]}"; }
_files() { print files; }
words=(${(z)1}); [[ $1 = *' ' ]] && words+=('')
CURRENT=${#words}
_sampan
"""
FISH = "sampan completion fish | source; complete -C $argv[1]"


@pytest.fixture(scope="module", autouse=True)
def things(shared_daemon: Daemon) -> Iterator[Daemon]:
    shared_daemon.docker("run", "-d", "--name", "runs", "busybox", "sleep", "600")
    shared_daemon.docker("create", "--name", "rests", "busybox", "true")
    shared_daemon.docker("volume", "create", "kept")
    shared_daemon.docker("network", "create", "wired")
    yield shared_daemon
    shared_daemon.remove_all()
    shared_daemon.docker("volume", "rm", "kept")
    shared_daemon.docker("network", "rm", "wired")


def completed(shell: str, line: str, host: str) -> set[str]:
    """Return what the shell would offer, without descriptions."""
    environment = {**os.environ, "PATH": f"{SAMPAN.parent}:{os.environ['PATH']}", "SAMPAN_HOST": host}
    command = {"bash": ["bash", "--norc", "-c", BASH, "bash"], "zsh": ["zsh", "-f", "-c", ZSH, "zsh"],
               "fish": ["fish", "--no-config", "-c", FISH]}[shell]  # fmt: skip
    done = subprocess.run([*command, line], capture_output=True, env=environment, timeout=60, check=False, text=True)
    assert done.stderr == "", done.stderr
    words = done.stdout.replace("\\:", "\0").split("\n")
    return {word.partition("\t")[0].partition(":" if shell == "zsh" else "\t")[0].replace("\0", ":") for word in words} - {""}


LINES = {
    "sampan ru": {"run"}, "sampan volume pr": {"prune"}, "sampan run --health-r": {"--health-retries"},
    "sampan run --restart on-": {"on-failure", "on-unhealthy"}, "sampan stop ": {"runs"}, "sampan rm r": {"runs", "rests"},
    "sampan rm rests r": {"runs", "rests"}, "sampan run --rm busyb": {"busybox", "busybox:latest"},
    "sampan volume inspect ke": {"kept"}, "sampan network rm wi": {"wired"}, "sampan run --network wi": {"wired"},
    "sampan exec -it ru": {"runs"}, "sampan completion z": {"zsh"}, "sampan network connect wired re": {"rests"},
}  # fmt: skip


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_flags_values_and_names_are_offered(shell: str, shared_daemon: Daemon) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    lines = dict(list(LINES.items())[:: 1 if shell == "bash" else 3])  # the scripts differ, what they ask does not
    assert {line: completed(shell, line, shared_daemon.host) for line in lines} == lines


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_offers_files_where_nothing_else_can_be(shared_daemon: Daemon) -> None:
    assert any(name.endswith("/") for name in completed("fish", "sampan load -i ", shared_daemon.host))


def test_the_part_after_a_colon_or_an_equals_sign_is_what_bash_puts_in(shared_daemon: Daemon) -> None:
    assert completed("bash", "sampan run busybox:la", shared_daemon.host) == {"latest"}
    assert completed("bash", "sampan run --restart=al", shared_daemon.host) == {"always"}


def test_nothing_is_said_where_nothing_can_be_asked(shared_daemon: Daemon) -> None:
    nowhere = f"unix://{shared_daemon.work}/nosuch.sock"
    for line in ("sampan stop ", "sampan nosuch ", "sampan run --nosuch=", "sampan stop 'un", "sampan run busybox "):
        assert completed("bash", line, nowhere) == set()
