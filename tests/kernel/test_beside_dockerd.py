"""Beside a real dockerd in one host namespace: both reach the world, and neither's rules are touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.net_place import LAN_HOST, LAN_NEIGHBOUR, World
from sampan.kernel import netns
from sampan.network.records import PortBinding
from support.ready import started

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="needs dockerd to be beside"),
]


@contextmanager
def dockerd() -> Iterator[str]:
    """Run dockerd in the calling thread's network namespace, with its own docker0 and iptables rules; yields its address."""
    work = Path(tempfile.mkdtemp(prefix="smpt-", dir="/var/tmp"))  # short: containerd's socket is in it (unix(7))
    host = f"unix://{work}/d.sock"
    command = ["dockerd", "--data-root", work / "data", "--exec-root", work / "exec", "--pidfile", work / "pid", "-H", host,
               "--bip", "10.213.77.1/24", "--userland-proxy=false"]  # fmt: skip
    process = started(command, work / "log")
    try:
        yield host
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(work, ignore_errors=True)


def rules() -> list[str]:
    """Return everybody's iptables rules but for counters, and for those that say that they are Sampan's."""
    saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    lines = [re.sub(r"\[\d+:\d+\]", "", line) for line in saved.splitlines() if not line.startswith("#")]
    return [line for line in lines if "sampan" not in line]


@pytest.mark.slow
def test_containers_are_reached_through_dockerds_policy_and_its_rules_stay(world: World) -> None:
    netns.write_sysctl("ipv4/ip_forward", "0")  # dockerd sets the policy only where it was the one who switched forwarding on
    with dockerd() as host:
        theirs = rules()
        assert any(re.match(r":FORWARD DROP", line) for line in theirs)  # what this is about
        manager = world.manager()
        space, endpoint = world.container(manager, PortBinding(80, "tcp", "", 8080, 8080))
        peer, _ = world.container(manager)
        lan = world.add_neighbour()
        world.listen(space)
        world.listen(lan)

        def all_is_well() -> bool:
            ways = ((lan, LAN_HOST, 8080), (peer, endpoint.ip, 80), (space, LAN_NEIGHBOUR, 80), (world.host, "127.0.0.1", 8080))
            return all(world.opens(*way) for way in ways) and not world.reaches(lan, endpoint.ip, 80)

        assert all_is_well() and rules() == theirs
        for words in (("create", "--subnet", "10.213.78.0/24", "theirs"), ("rm", "theirs")):
            subprocess.run(["docker", "-H", host, "network", *words], check=True, capture_output=True)
            assert all_is_well()
        assert rules() == theirs
        manager.detach(endpoint)
        for one in manager.active():
            manager.detach(one)
        manager.stop(remove=True)
        world.managers.remove(manager)
        assert rules() == theirs and "sampan" not in subprocess.run(["iptables-save"], capture_output=True, text=True).stdout
