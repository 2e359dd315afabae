"""docker's client and `sampan` ask the same daemon, and print the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.daemon import Daemon

COMMANDS = (
    ("volume", "ls"), ("volume", "ls", "-q"), ("volume", "ls", "--format", "{{.Name}}:{{.Driver}}:{{.Label \"a\"}}:{{.Links}}"),
    ("volume", "ls", "--filter", "label=a=b"), ("volume", "inspect", "data"),
    ("volume", "inspect", "-f", "{{.Mountpoint}}", "data"),
    ("system", "df"), ("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}"),
    ("system", "df", "--format", "json"), ("stats", "--no-stream", "--format", "{{.Name}} {{.ID}} {{.PIDs}}"),
    ("ps", "-a", "--filter", "name=^one$"),
    ("ps", "-a", "--filter", "volume=data", "--format", "{{.Names}} {{.Mounts}} {{.LocalVolumes}}"),
    ("ps", "-a", "--no-trunc", "--filter", "status=exited"), ("ps", "-aq", "--filter", "exited=0"),
    ("inspect", "-f", "{{json .Mounts}}", "one"), ("container", "inspect", "-f", "{{.HostConfig.Memory}}", "one"),
)  # fmt: skip
FAILING = (
    ("volume", "rm", "data"), ("volume", "rm", "nobody"), ("volume", "inspect", "nobody"), ("update", "-m", "1", "one"),
    ("update", "one"), ("stats", "--no-stream", "nobody"), ("ps", "--filter", "status=nope"), ("ps", "--filter", "nope=1"),
    ("container", "prune", "-f", "--filter", "until=nonsense"), ("volume", "prune", "-f", "--filter", "until=1h"),
)  # fmt: skip


@pytest.fixture(scope="module")
def busy(shared_daemon: Daemon) -> Iterator[Daemon]:
    shared_daemon.remove_all()
    shared_daemon.docker("volume", "create", "--label", "a=b", "data")
    shared_daemon.docker("run", "-d", "--name", "one", "-m", "64m", "-v", "data:/v", "-v", "/anon", "busybox", "sleep", "600")
    shared_daemon.docker("run", "--name", "two", "busybox", "sh", "-c", "head -c 1000 /dev/zero >/f")
    yield shared_daemon
    shared_daemon.remove_all()
    shared_daemon.docker("volume", "rm", "data")


def text(output: bytes) -> str:
    """Between the two calls a second may pass."""
    return re.sub(r"(About a|Less than a|\d+) (second|minute)s?", "a while", output.decode())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_same_is_printed(busy: Daemon, command: tuple[str, ...]) -> None:
    theirs, ours = busy.docker(*command), busy.sampan(*command)

    assert text(ours.stdout) == text(theirs.stdout) != ""


@pytest.mark.parametrize("command", FAILING, ids=" ".join)
def test_the_same_fails_with_the_same_words(busy: Daemon, command: tuple[str, ...]) -> None:
    theirs, ours = busy.docker(*command, check=False), busy.sampan(*command, check=False)

    assert ours.returncode == theirs.returncode != 0
    message = theirs.stderr.decode().replace("docker: ", "").split("\n\n")[0].strip().splitlines()[-1]
    assert message.removeprefix("docker: ") in ours.stderr.decode(), (theirs.stderr, ours.stderr)


def test_pruning_tells_the_same(busy: Daemon) -> None:
    told = []
    for run in (busy.docker, busy.sampan):
        busy.docker("create", "--name", "gone", "--label", "prune=me", "busybox", "true")
        container = busy.docker("inspect", "-f", "{{.Id}}", "gone").stdout.decode().strip()
        told.append(run("container", "prune", "-f", "--filter", "label=prune=me").stdout.decode().replace(container, "ID"))

    assert told[0] == told[1] == "Deleted Containers:\nID\n\nTotal reclaimed space: 0B\n"
