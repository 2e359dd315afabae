"""A daemon that cannot start says why, and leaves the host as it was."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.kernel.fds import Fd
from sampan.kernel.process import PR, prctl
from support.daemon import Daemon
from support.holds import PATIENCE, children
from support.ready import NotReady

BREAKABLE = (
    "storage.overlay.Overlay.__init__", "network.manager.Networks.__init__", "network.manager.Networks.start",
    "network.host.Host.forward", "network.firewall.Firewall.remake", "network.host.Upkeep",
    "engine.engine.Engine.__init__", "engine.supervise.take_up", "engine.images.images.Images.sweep", "api.server.serve",
)  # fmt: skip
BREAK = """
import importlib, json, sys
import msgspec
from sampan import daemon
place, options = sys.argv[1], json.loads(sys.argv[2])
parts = ("sampan." + place).split(".")
for depth in range(len(parts) - 1, 0, -1):
    try:
        owner = importlib.import_module(".".join(parts[:depth]))
        break
    except ModuleNotFoundError:
        pass
for name in parts[depth:-1]:
    owner = getattr(owner, name)
def broken(*_, **__):
    raise OSError(5, "planted fault")
setattr(owner, parts[-1], broken)
import tempfile
with tempfile.TemporaryFile() as told:
    told.write(msgspec.json.encode(msgspec.convert(options, daemon.DaemonOptions)))
    told.flush()
    import os
    sys.argv = ["daemon", str(os.dup(told.fileno()))]
    daemon.entry()
"""


@pytest.fixture
def unstarted() -> Iterator[Daemon]:
    made = Daemon()
    yield made
    made.close()


def nothing_stays(daemon: Daemon) -> None:
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert not Path(f"/sys/class/net/{daemon.bridge}").exists()
    assert daemon.bridge not in tables
    assert not any(Path(base).joinpath(daemon.cgroup_parent[1:]).exists() for base, *_ in os.walk("/sys/fs/cgroup"))
    assert not daemon.sock.exists()
    with open("/proc/self/mountinfo") as mounts:
        assert str(daemon.work) not in mounts.read()


def orphans_end(before: set[int]) -> None:
    """Reap what has become a child of this process; each is on its way out."""
    while orphans := children(os.getpid()) - before:
        for pid in orphans:
            with Fd(os.pidfd_open(pid)) as end:
                assert select.select([end], [], [], PATIENCE)[0], f"{pid} stays"
            os.waitpid(pid, 0)


@pytest.mark.parametrize("place", BREAKABLE)
def test_p17_a_daemon_that_fails_on_its_way_up_leaves_nothing(unstarted: Daemon, place: str) -> None:
    options = {
        "hosts": [unstarted.host], "data_root": str(unstarted.data_root), "exec_root": str(unstarted.exec_root),
        "bridge": unstarted.bridge, "bip": unstarted.subnet, "cgroup_parent": unstarted.cgroup_parent,
        "pidfile": str(unstarted.work / "pid"),
    }  # fmt: skip
    before = children(os.getpid())
    prctl(PR.SET_CHILD_SUBREAPER, 1)  # what it leaves behind becomes ours
    try:
        done = subprocess.run(
            [sys.executable, "-c", BREAK, place, json.dumps(options)], capture_output=True, text=True, timeout=60, check=False
        )
        orphans_end(before)
    finally:
        prctl(PR.SET_CHILD_SUBREAPER, 0)

    assert done.returncode == 1 and "planted fault" in done.stderr and "Traceback" not in done.stderr, done.stderr
    nothing_stays(unstarted)
    assert not (unstarted.work / "pid").exists()
    unstarted.start()  # and the next one finds nothing in its way
    unstarted.import_busybox()
    assert unstarted.run("echo", "works") == (0, b"works\n")


def refused(daemon: Daemon) -> str:
    with pytest.raises(NotReady) as told:
        daemon.start()
    assert told.value.status == 1
    assert "Traceback" not in daemon.log
    return daemon.log


def test_a_daemon_that_cannot_listen_leaves_no_bridge_behind(unstarted: Daemon) -> None:
    unstarted.options += ["-H", "tcp://192.0.2.1:2375"]  # TEST-NET-1 (RFC 5737): no address of this host
    assert "192.0.2.1" in refused(unstarted)
    nothing_stays(unstarted)


def test_a_daemon_that_cannot_write_its_pid_leaves_nothing(unstarted: Daemon) -> None:
    unstarted.options += ["--pidfile", "/nowhere/pid"]
    assert "/nowhere/pid" in refused(unstarted)
    nothing_stays(unstarted)


def test_row_96_a_database_that_is_none_is_told_and_left_alone(unstarted: Daemon) -> None:
    unstarted.data_root.mkdir()
    (unstarted.data_root / "state.db").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    before = (unstarted.data_root / "state.db").read_bytes()
    assert "state.db: file is not a database" in refused(unstarted)
    assert (unstarted.data_root / "state.db").read_bytes() == before
    nothing_stays(unstarted)


@pytest.mark.parametrize("parent", ["/../..", "/sampan/../../etc", "/" + "x" * 300, "/a\nb", "/", "/.."])
def test_row_105_a_daemons_cgroup_parent_stays_beneath(unstarted: Daemon, parent: str) -> None:
    unstarted.options += ["--cgroup-parent", parent]
    assert "cgroup path" in refused(unstarted)
    nothing_stays(unstarted)


def test_a_bridge_that_is_another_daemons_is_refused_and_its_owner_goes_on(unstarted: Daemon) -> None:
    """Two daemons of one bridge would take each other's tables for damage, for ever."""
    unstarted.start()
    unstarted.import_busybox()
    second = Daemon("--bridge", unstarted.bridge)
    try:
        assert f"bridge {unstarted.bridge} is another daemon's" in refused(second)
    finally:
        second.close()
    assert unstarted.run("echo", "works") == (0, b"works\n")


def test_a_data_root_that_is_taken_is_told_and_the_owner_goes_on(unstarted: Daemon) -> None:
    unstarted.start()
    second = Daemon()
    try:
        second.data_root = unstarted.data_root
        assert "in use by another daemon" in refused(second)
        nothing_stays(second)
        assert unstarted.ok("GET", "/_ping")
    finally:
        second.close()
