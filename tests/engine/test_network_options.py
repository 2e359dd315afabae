"""The daemon's options for networks, in its configuration file, as containers see them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.daemon import Daemon


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    config = tmp_path_factory.mktemp("config") / "daemon.json"
    said = {
        "ipv6": True, "fixed-cidr-v6": "fd00:6e:6f::/64", "mtu": 1400, "dns": ["192.0.2.53"], "dns-search": ["inner.test"],
        "dns-opts": ["timeout:1"], "host-gateway-ip": "192.0.2.7", "default-network-opts": {"bridge": {"sampan.guard": "true"}},
    }  # fmt: skip
    config.write_text(json.dumps(said))
    made = Daemon("--config-file", str(config)).start()
    try:
        made.import_busybox()
        yield made
    finally:
        made.close()


def seen(daemon: Daemon, *words: str) -> str:
    return daemon.docker("run", "--rm", *words).stdout.decode()


def test_containers_on_the_default_network_have_what_the_file_says(configured: Daemon) -> None:
    look = "ip -o -6 addr show dev eth0; cat /sys/class/net/eth0/mtu /etc/resolv.conf /etc/hosts; ip -6 route"
    found = seen(configured, "busybox", "sh", "-c", look)

    assert "fd00:6e:6f::2/64" in found and "default via fd00:6e:6f::1" in found and "\n1400\n" in found
    assert "nameserver 192.0.2.53\nsearch inner.test\noptions timeout:1\n" in found
    assert "192.0.2.7\thost.docker.internal" in found


def test_a_container_says_otherwise_and_other_networks_have_their_own(configured: Daemon) -> None:
    configured.docker("network", "create", "own")
    found = seen(configured, "--dns", "192.0.2.99", "busybox", "cat", "/etc/resolv.conf")
    there = seen(configured, "--network", "own", "busybox", "cat", "/etc/resolv.conf", "/sys/class/net/eth0/mtu")
    (info,) = json.loads(configured.docker("network", "inspect", "own").stdout)
    configured.docker("network", "rm", "own")

    assert "nameserver 192.0.2.99\nsearch inner.test\n" in found
    assert "nameserver 127.0.0.11\nsearch inner.test\n" in there and there.endswith("\n1500\n")
    assert info["Options"] == {"sampan.guard": "true"} and info["EnableIPv6"] is False
