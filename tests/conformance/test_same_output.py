"""docker's client and `sampan` ask the same daemon, and print the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.daemon import Daemon

pytestmark = pytest.mark.docker_client(28)  # whose words and columns `sampan` has

ROW = ("{{.ID}}|{{.Names}}|{{.Image}}|{{.Command}}|{{.CreatedAt}}|{{.Ports}}|{{.State}}|{{.Status}}|{{.Size}}|{{.Labels}}|"
       "{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}|{{.Platform}}|{{.RunningFor}}")  # fmt: skip
FILTERS = (
    "name=o", "label=x", "label=x=<y>", "exited=0", "status=created", "status=paused", "ancestor=busybox", "before=web",
    "since=two", "volume=/v", "network=bridge", "publish=80", "publish=28731-28732", "expose=443/tcp", "health=starting",
    "health=none", "is-task=false", "isolation=default",
)  # fmt: skip
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
    ("ps", "-a", "--format", ROW), ("ps", "-a", "--format", "json"), ("ps", "-a", "--format", "{{json .}}"),
    ("ps", "-a", "--format", "raw"), ("ps", "-as", "--format", "raw"), ("ps", "-aq", "--format", "{{.Names}}"),
    ("ps", "-a", "--format", "table {{.ID}}\t{{.Names}}\t{{.Labels}}\t{{.Networks}}\t{{.Mounts}}"), ("ps", "-lq", "--no-trunc"),
    ("ps", "-n", "2", "--format", "{{.Names}} {{.Label \"x\"}}"), ("volume", "ls", "--format", "raw"),
    ("images", "--format", "raw"),
    ("network", "ls", "--format", "raw"), ("port", "web"), ("port", "web", "80"), ("top", "one", "-o", "pid,comm"), ("diff", "two"),
    ("inspect", "-s", "-f", "{{.SizeRw}}", "two"), ("stats", "-a", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "two"),
    *(("events", "--since", "1h", "--until", "0s", "-f", "event=pause", *more)
      for more in ((), ("--format", "json"), ("--format", "{{.Type}} {{.Action}} {{.ID}} {{.Actor.Attributes.name}} {{.Time}}"))),
    *(("ps", "-a", "--format", ":{{.Names}}", "-f", one) for one in FILTERS),
)  # fmt: skip
FAILING = (
    ("volume", "rm", "data"), ("volume", "rm", "nobody"), ("volume", "inspect", "nobody"), ("update", "-m", "1", "one"),
    ("update", "one"), ("stats", "--no-stream", "nobody"), ("ps", "--filter", "status=nope"), ("ps", "--filter", "nope=1"),
    ("container", "prune", "-f", "--filter", "until=nonsense"), ("volume", "prune", "-f", "--filter", "until=1h"),
    ("port", "web", "80/udp"), ("rename", "one", "two"), ("rename", "one", ""), ("start", "nobody"), ("attach", "new"),
    ("attach", "frozen"), ("update", "--restart", "bogus", "one"), ("inspect", "-f", "{{.State.NoSuch}}", "one"),
    ("create", "--memory", "1", "busybox", "true"), ("create", "--restart", "bogus", "busybox"),
    ("run", "--restart", "bogus", "busybox"),
    ("create", "--gpus", "device=0,capabilities=x", "busybox", "true"), ("events", "--since", "x"), ("logs", "--since", "x", "one"),
    ("create", "--restart", "on-failure:x", "busybox"), ("ps", "-f", "exited=x"),
    ("ps", "-f", "before=nobody"),
    ("ps", "--format", "{{.Names"), ("top", "nobody"), ("kill", "-s", "bogus", "one"), ("exec", "frozen", "true"), ("pause", "new"),
)  # fmt: skip


@pytest.fixture(scope="module")
def busy(shared_daemon: Daemon) -> Iterator[Daemon]:
    shared_daemon.remove_all()
    shared_daemon.docker("volume", "create", "--label", "a=b", "data")
    shared_daemon.docker("run", "-d", "--name", "one", "-m", "64m", "-v", "data:/v", "-v", "/anon", "busybox", "sleep", "600")
    shared_daemon.docker("run", "--name", "two", "busybox", "sh", "-c", "head -c 1000 /dev/zero >/f")
    shared_daemon.docker(
        "run", "-d", "--name", "web", "--label", "x=<y>", "-p", "127.0.0.1::80", "-p", "28731-28733:28731-28733", "--expose", "443",
        "--health-cmd", "true", "--health-interval", "1h", "busybox", "sleep", "600",
    )  # fmt: skip
    shared_daemon.docker("create", "--name", "new", "busybox", "sh", "-c", "a line that is cut after twenty")
    shared_daemon.docker("run", "-d", "--name", "frozen", "busybox", "sleep", "600")
    shared_daemon.docker("pause", "frozen")
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
    assert ours.stderr == theirs.stderr


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
