"""--ssh NAME[=SOCKET|KEY,...]: agents that the steps of a build may use; for keys an agent of its own is started meanwhile."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sampan.cli.main import Exit
from sampan.client.api import Client


def parse(given: list[str]) -> dict[str, list[str]]:
    """Return the paths by agent's name: one socket, or keys.  Raises Exit."""
    found: dict[str, list[str]] = {}
    for one in given:
        name, equals, paths = one.partition("=")
        name = name or "default"
        if name in found:
            raise Exit(125, f"ssh agent {name} is given twice")
        own = os.environ.get("SSH_AUTH_SOCK", "")
        if not equals and not own:
            raise Exit(1, f"invalid empty ssh agent socket: SSH_AUTH_SOCK is not set; start an agent, or give --ssh {name}=KEY")
        found[name] = paths.split(",") if equals else [own]
        for path in found[name]:
            if not os.path.exists(path):
                raise Exit(1, f"ssh agent {name}: {path}: no such file")
    return found


@contextmanager
def lent(client: Client, wanted: dict[str, list[str]]) -> Iterator[str]:
    """Lend the agents; give the session's token, "" when nothing is lent.  Raises Exit."""
    if not wanted:
        yield ""
        return
    from sampan.client.agents import Lent

    with ExitStack() as held:
        sockets = {name: _socket(name, paths, held) for name, paths in wanted.items()}
        yield held.enter_context(Lent(client, sockets)).token


def _socket(name: str, paths: list[str], held: ExitStack) -> str:
    if len(paths) == 1 and stat.S_ISSOCK(os.stat(paths[0]).st_mode):
        return paths[0]
    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        raise Exit(1, f"ssh agent {name}: ssh-agent and ssh-add are needed to lend keys; or give the socket of an agent")
    folder = tempfile.mkdtemp(prefix="sampan-ssh-")
    held.callback(shutil.rmtree, folder, ignore_errors=True)
    path = os.path.join(folder, "agent")
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    held.callback(_end, agent)
    assert agent.stdout is not None
    agent.stdout.readline()  # it tells where its socket is once that listens
    done = subprocess.run(
        ["ssh-add", "-q", *paths], env={**os.environ, "SSH_AUTH_SOCK": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Exit(1, f"ssh agent {name}: {done.stderr.strip()}")
    return path


def _end(agent: subprocess.Popen[bytes]) -> None:
    agent.terminate()
    agent.wait()
    assert agent.stdout is not None
    agent.stdout.close()
