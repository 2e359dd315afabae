"""Rows 79, 84 and 85 of the security list, against a real daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest

from support.daemon import Daemon


def test_row_79_no_socket_of_sampan_is_in_the_abstract_namespace(daemon: Daemon) -> None:
    daemon.docker("network", "create", "rows")
    daemon.docker("run", "-d", "--name", "served", "--network", "rows", "busybox", "sleep", "600")
    seen = daemon.docker("run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/unix").stdout.decode().splitlines()[1:]
    paths = {line.split()[6]: line.split()[7] for line in seen if len(line.split()) > 7}
    ours = {one for entry in Path("/proc").iterdir() if _is_ours(entry) for one in _sockets(entry)}

    assert ours & set(paths)  # its sockets with a path are seen there
    assert [paths[inode] for inode in ours if paths.get(inode, "").startswith("@")] == []
    daemon.remove_all()
    daemon.docker("network", "rm", "rows")


def _is_ours(entry: Path) -> bool:
    try:
        return (entry / "comm").read_text().startswith("sampan")
    except OSError:
        return False


def _sockets(entry: Path) -> list[str]:
    found = []
    try:
        for fd in (entry / "fd").iterdir():
            found.append(os.readlink(fd).removeprefix("socket:[").removesuffix("]"))
    except OSError:
        pass  # it ends while it is looked at
    return found


NASTY = "a\n1.2.3.4 bank"


@pytest.mark.parametrize(
    "body",
    [
        {"Hostname": NASTY}, {"Domainname": NASTY}, {"HostConfig": {"ExtraHosts": [f"{NASTY}:1.2.3.4"]}},
        {"HostConfig": {"ExtraHosts": ["bank:1.2.3.4\nnameserver 6.6.6.6"]}}, {"HostConfig": {"Dns": ["1.1.1.1\nsearch evil"]}},
        {"HostConfig": {"DnsSearch": [NASTY]}}, {"HostConfig": {"DnsOptions": [NASTY]}},
        {"HostConfig": {"NetworkMode": "mine"}, "NetworkingConfig": {"EndpointsConfig": {"mine": {"Aliases": [NASTY]}}}},
        {"HostConfig": {"NetworkMode": "mine"}, "NetworkingConfig": {"EndpointsConfig": {"mine": {"Links": [f"web:{NASTY}"]}}}},
        {"HostConfig": {"NetworkMode": "mine"},
         "NetworkingConfig": {"EndpointsConfig": {"mine": {"IPAMConfig": {"IPv4Address": "1.2.3.4\n5.6.7.8"}}}}},
    ],
    ids=["hostname", "domain", "host name", "host address", "dns", "search", "option", "alias", "link", "address"],
)  # fmt: skip
def test_row_84_nothing_can_be_written_into_hosts_or_resolv_conf(daemon: Daemon, body: dict[str, object]) -> None:
    answer = daemon.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], **body})

    assert answer.status == 400, answer


def test_row_84_the_hosts_own_names_lead_to_it_unless_somebody_says_otherwise(daemon: Daemon) -> None:
    _, plain = daemon.run("cat", "/etc/hosts")
    gateway = json.loads(daemon.docker("network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"][0]["Gateway"].encode()
    _, own = daemon.run("cat", "/etc/hosts", HostConfig={"ExtraHosts": ["host.docker.internal:192.0.2.9"]})

    for name in (b"host.docker.internal", b"host.sampan.internal"):
        assert gateway + b"\t" + name in plain
    assert b"192.0.2.9\thost.docker.internal" in own and gateway + b"\thost.docker.internal" not in own


def test_row_85_a_port_that_somebody_took_while_the_daemon_was_dead_is_told_and_not_hijacked(daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "web", "-p", "80", "busybox", "sleep", "600")
    port = int(daemon.docker("port", "web", "80").stdout.decode().splitlines()[0].rpartition(":")[2])
    daemon.kill(signal.SIGKILL)
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("0.0.0.0", port))
        thief.listen()
        daemon.start()
        with socket.create_connection(("127.0.0.1", port), 5):
            thief.settimeout(5)
            thief.accept()[0].close()
        warnings = daemon.ok("GET", "/info")["Warnings"]
        assert any(f":{port}/tcp: address already in use" in text for text in warnings)
    assert b"ports of container" in daemon.sampan("network", "repair").stdout
