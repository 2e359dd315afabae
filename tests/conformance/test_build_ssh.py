"""sampan build --ssh: steps use the keys of an agent they never see (row 71)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.client.agents import ask
from sampan.client.api import Client
from support.daemon import Daemon

TOOLS = ("ssh-add", "ssh-keygen")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's ssh-add and ssh-keygen with their libraries, for a container."""
    if any(shutil.which(tool) is None for tool in TOOLS):
        pytest.skip("openssh-client is missing")
    root = tmp_path_factory.mktemp("tools")
    for tool in TOOLS:
        path = str(shutil.which(tool))
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        libraries = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
        for file in (path, *libraries):
            place = root / file.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    return root


@pytest.fixture
def folder(tmp_path: Path, tools: Path) -> Path:
    shutil.copytree(tools, tmp_path / "root")
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nCOPY root /\nRUN echo root:x:0:0::/:/bin/sh > /etc/passwd\nFROM busybox AS none\n"
    )
    return tmp_path


@pytest.fixture
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of-the-test", "-f", place], check=True)
    return place


@pytest.fixture
def agent(key: Path) -> Iterator[str]:
    path = f"{key.parent}/agent"
    running = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert running.stdout is not None
    running.stdout.readline()
    subprocess.run(["ssh-add", "-q", key], env={"SSH_AUTH_SOCK": path, "PATH": "/usr/bin:/bin"}, check=True)
    yield path
    running.terminate()
    running.wait()
    running.stdout.close()


def dockerfile(folder: Path, *lines: str) -> None:
    head = (folder / "Dockerfile").read_text().split("FROM busybox AS none")[0]
    (folder / "Dockerfile").write_text(head + "".join(f"{line}\n" for line in lines))


def test_row_71_a_step_signs_with_a_key_that_stays_with_the_client(daemon: Daemon, folder: Path, agent: str, key: Path) -> None:
    dockerfile(
        folder,
        "RUN --mount=type=ssh,required ssh-add -L > /k.pub && echo text > /f && "
        "ssh-keygen -q -Y sign -n n -f /k.pub /f && cat /f.sig",
        "RUN --mount=type=ssh ssh-add -D 2>&1; ssh-add -x < /dev/null 2>&1; ssh-add -L; echo at $SSH_AUTH_SOCK",
        "RUN --mount=type=ssh,id=deploy,target=/agent,mode=0640,gid=5 echo $SSH_AUTH_SOCK $(stat -c '%a %u %g' /agent)",
        "RUN test ! -e /agent && test ! -e /run/buildkit && test -z \"$SSH_AUTH_SOCK\" && echo 'gone again'",
    )
    done = daemon.sampan("build", "--ssh", f"default={agent}", "--ssh", f"deploy={key}", str(folder))
    again = daemon.sampan("build", str(folder))

    public = (key.parent / "id.pub").read_text()
    assert b"BEGIN SSH SIGNATURE" in done.stdout
    assert f"{public}at /run/buildkit/ssh_agent.0\n".encode() in done.stdout, "the agent's keys were not removed, nor locked"
    assert b"/agent 640 0 5\n" in done.stdout
    assert b"gone again\n" in done.stdout
    assert again.stdout.count(b"Using cache") == 6, "an agent is no part of the key"
    secret = key.read_bytes().splitlines()[2]
    files = [path for path in daemon.data_root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if secret in path.read_bytes()] == []


def test_an_agent_that_was_not_lent_is_an_error_only_when_it_is_required(daemon: Daemon, folder: Path, agent: str) -> None:
    dockerfile(folder, 'RUN --mount=type=ssh test -z "$SSH_AUTH_SOCK" && echo none')
    silent = daemon.sampan("build", str(folder))
    dockerfile(folder, "RUN --mount=type=ssh,id=other,required true")
    missing = daemon.sampan("build", "--ssh", f"default={agent}", str(folder), check=False)
    wrong = daemon.sampan("build", "--ssh", "a=/no/such", str(folder), check=False)

    assert b"none\n" in silent.stdout
    assert b"ssh agent other: the build was not given it (--ssh other)" in missing.stderr
    assert wrong.stderr == b"ssh agent a: /no/such: no such file\n"


def test_a_session_of_nonsense_ends_and_its_token_is_nothing_afterwards(daemon: Daemon) -> None:
    client = Client(daemon.host)
    with client.hijack("/sampan/session", None, {"Agents": ["a"]}) as link:
        token = b""
        while len(token) < 64:
            token += link.read(64 - len(token))
        link.write(b"\xff" * 16)
        assert link.read() == b""
    told = b'{"session":"%s"}' % token
    answer = daemon.call(
        "POST", "/build", len(told).to_bytes(8, "big") + told + b"x", headers={"Content-Type": "application/vnd.sampan.build"}
    )
    refused = [daemon.call("POST", "/sampan/session", {"Agents": agents}).status for agents in ([], [""], ["x" * 300])]

    assert answer.status in (400, 404)
    assert refused == [400, 400, 400]


def test_the_client_asks_its_agent_nothing_but_keys_and_signatures(agent: str) -> None:
    assert ask(agent, b"\x0b")[:1] == b"\x0c"
    assert [ask(agent, bytes([kind])) for kind in (17, 18, 19, 22, 23, 27)] == [b"\x05"] * 6
    assert ask("/no/such", b"\x0b") == b"\x05"
