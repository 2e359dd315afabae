"""Beside ufw, firewalld and podman in one host namespace: published ports are reached, and nobody's rules are touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.net_place import LAN_HOST, LAN_NEIGHBOUR, World, eventually
from sampan.kernel.fds import Fd
from sampan.network.records import PortBinding
from support.daemon import busybox_rootfs

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces"), pytest.mark.slow]
WEB = PortBinding(80, "tcp", "", 8080, 8080)
LIMITS = [
    word for name in ("nofile", "nproc") for word in ("--ulimit", f"{name}=1000:1000")
]  # podman's own may be above the host's


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None, reason=f"needs {program}")


def run(*words: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a program in the test thread's network namespace; return what it says."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **(env or {})})
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def rules() -> list[str]:
    """Return everybody's rules, chains and policies, but for Sampan's own tables, its marked rules, and counters."""
    tables = [line.split()[1:] for line in run("nft", "list", "tables").splitlines()]
    shown = [run("nft", "-s", "list", "table", *table) for table in tables if not table[1].startswith("sampan_")]
    saved = [run(command) for command in ("iptables-save", "ip6tables-save")]
    lines = [re.sub(r"\[\d+:\d+\]|packets \d+ bytes \d+", "", line) for text in (*shown, *saved) for line in text.splitlines()]
    return [line for line in lines if "sampan" not in line and not line.startswith("#")]


class Beside:
    """Sampan beside somebody, who was there first: a published port, and what it must and must not be reached by."""

    def __init__(self, world: World) -> None:
        self.world, self.theirs = world, rules()
        self.manager = world.manager()
        self.space, self.endpoint = world.container(self.manager, WEB)
        self.peer, _ = world.container(self.manager)
        self.lan = world.add_neighbour()
        for one in (self.space, self.lan):
            world.listen(one)

    def wrong(self) -> list[str]:
        """Return what is not as it should be."""
        ways: dict[str, tuple[Fd, str, int, bool]] = {
            "a neighbour to the published port": (self.lan, LAN_HOST, 8080, True),
            "the host to the published port": (self.world.host, "127.0.0.1", 8080, True),
            "a container to its peer": (self.peer, self.endpoint.ip, 80, True),
            "a container to the neighbour": (self.space, LAN_NEIGHBOUR, 80, True),
            "a neighbour to the container itself": (self.lan, self.endpoint.ip, 80, False),
        }
        found = [what for what, (*way, opens) in ways.items() if self.world.reaches(*way, 5 if opens else 0.3) != opens]  # type: ignore[arg-type]
        now = rules()
        return found if now == self.theirs else found + (sorted({*now} ^ {*self.theirs}) or ["their order"])

    def leave(self) -> None:
        """Stop Sampan; theirs must be all that is left."""
        for one in self.manager.active():
            self.manager.detach(one)
        self.manager.stop(remove=True)
        self.world.managers.remove(self.manager)
        assert rules() == self.theirs and "sampan" not in run("nft", "list", "ruleset")


@pytest.fixture
def ufw(tmp_path: Path) -> Callable[..., str]:
    """ufw with its settings in a folder of the test's."""
    shutil.copytree("/etc/ufw", tmp_path / "ufw")
    shutil.copy("/etc/default/ufw", tmp_path / "default")
    mounts = f"mount --bind {tmp_path}/ufw /etc/ufw && mount --bind {tmp_path}/default /etc/default/ufw && exec ufw "

    def call(words: str) -> str:
        return run("unshare", "--mount", "--propagation", "private", "sh", "-c", mounts + words)

    return call


@needs("ufw")
def test_beside_ufw_ports_are_reached_its_rules_stay_and_what_it_denies_is_denied(world: World, ufw: Callable[..., str]) -> None:
    ufw("allow 22/tcp")
    ufw("--force enable")
    assert ":FORWARD DROP" in run("iptables-save")  # what this is about
    beside = Beside(world)
    assert beside.wrong() == []
    ufw("reload")
    assert beside.wrong() == []

    ufw(f"route deny proto tcp to {beside.endpoint.ip} port 80")
    beside.theirs = rules()
    assert eventually(lambda: beside.wrong() == ["a neighbour to the published port", "a container to its peer"])
    beside.leave()


BUS = """<busconfig><type>session</type><listen>unix:path={place}/bus</listen><servicedir>{place}</servicedir>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"""
SERVICE = """[D-BUS Service]
Name=org.fedoraproject.FirewallD1
Exec=/usr/sbin/firewalld --nofork --nopid --system-config {place}/config --log-file {place}/log
"""


@contextmanager
def firewalld() -> Iterator[Callable[..., str]]:
    """Run firewalld on a bus of the test's, in the test thread's namespace; the first question to it starts it."""
    with tempfile.TemporaryDirectory(prefix="smpt-", dir="/var/tmp") as place:
        Path(place, "config").mkdir()
        Path(place, "bus.conf").write_text(BUS.format(place=place))
        Path(place, "firewalld.service").write_text(SERVICE.format(place=place))
        env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={place}/bus"}
        command = ["unshare", "--pid", "--fork", "--kill-child", "dbus-daemon", f"--config-file={place}/bus.conf", "--nofork",
                   "--print-address=1"]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **env}) as bus:
            try:
                assert bus.stdout is not None and bus.stdout.readline()  # it listens
                yield lambda *words: run("firewall-cmd", *words, env=env)
            finally:
                bus.kill()


@needs("firewalld")
@needs("dbus-daemon")
def test_beside_firewalld_ports_are_reached_its_rules_stay_and_what_it_rejects_is_told(world: World) -> None:
    with firewalld() as ask:
        assert ask("--state") == "running\n"
        beside = Beside(world)
        sent = ["a container to its peer", "a container to the neighbour"]
        assert beside.wrong() == sent  # it rejects what comes from no zone of its own, and we say so
        assert [one for one in beside.manager.problems() if "--zone=trusted --add-interface=smpt1" in one]
        ask("--permanent", "--zone=trusted", "--add-interface=smpt1")
        ask("--reload")
        beside.theirs = rules()
        assert beside.wrong() == [] and beside.manager.problems() == []
        ask("--reload")
        assert beside.wrong() == []
        beside.leave()


@needs("podman")
def test_beside_podman_both_are_reached_and_its_rules_stay(world: World) -> None:
    with tempfile.TemporaryDirectory(prefix="smpt-", dir="/var/tmp") as place:
        (Path(place) / "busybox.tar").write_bytes(busybox_rootfs())
        podman = [
            "podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs", "--runtime", "runc",
            "--cgroup-manager", "cgroupfs", "--network-config-dir", f"{place}/networks", "--tmpdir", f"{place}/tmp",
        ]  # fmt: skip
        try:
            run(*podman, "import", f"{place}/busybox.tar", "busybox")
            run(*podman, "run", "-d", *LIMITS, "--name", "theirs", "-p", "8081:80", "busybox", "busybox", "httpd", "-f")
            beside = Beside(world)
            assert beside.wrong() == [] and world.opens(beside.lan, LAN_HOST, 8081)
            run(*podman, "run", "--rm", *LIMITS, "-p", "8082:80", "busybox", "true")
            assert beside.wrong() == [] and world.opens(beside.lan, LAN_HOST, 8081)
            beside.leave()
            assert world.opens(beside.lan, LAN_HOST, 8081)
        finally:
            subprocess.run([*podman, "rm", "-af", "-t", "0"], capture_output=True, check=False)
            subprocess.run([*podman, "system", "reset", "-f"], capture_output=True, check=False)
