"""A container ends and another process gets its number: nothing meant for the container ever meets that process (row 29)."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sampan.kernel.process import CloneArguments, _clone3
from support import malformed
from support.daemon import BUSYBOX, Daemon


@contextmanager
def filler(pid: int) -> Iterator[None]:
    """Run a process of the host's with exactly this number; at the end it must be alive and as it was."""
    wanted = ctypes.c_int(pid)
    arguments = CloneArguments(exit_signal=int(signal.SIGCHLD), set_tid=ctypes.addressof(wanted), set_tid_size=1)
    made = 0
    while not made:
        try:
            made = _clone3(ctypes.byref(arguments), ctypes.sizeof(arguments))
        except FileExistsError:  # not reaped yet
            continue
        if made == 0:
            try:
                os.execv(BUSYBOX, ["sleep", "1000"])
            finally:
                os._exit(1)
    assert made == pid
    pidfd = os.pidfd_open(pid)
    try:
        yield
        assert not select.select([pidfd], [], [], 0.05)[0], f"the process that got the number {pid} was hit"
        assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def started(daemon: Daemon, **body: object) -> tuple[str, int]:
    container = daemon.create("sleep", "1000", **body)
    daemon.ok("POST", f"/containers/{container}/start")
    return container, daemon.ok("GET", f"/containers/{container}/json")["State"]["Pid"]


def end(pid: int) -> None:
    """Kill a container's init from outside and wait until its keeper has reaped it."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)


def requests(container: str, exec_id: str, joiner: str) -> list[bytes]:
    return [
        malformed.request("POST", f"/containers/{container}/kill?signal=KILL"),
        malformed.request("POST", f"/exec/{exec_id}/start", b'{"Detach":true}'),
        malformed.request("GET", f"/containers/{container}/top"),
        malformed.request("POST", f"/containers/{joiner}/start"),
        malformed.request("POST", f"/containers/{container}/stop?t=0"),
        malformed.request("GET", f"/containers/{container}/archive?path=/etc"),
        malformed.request("GET", f"/containers/{container}/stats?stream=0"),
        malformed.request("POST", f"/containers/{container}/restart?t=0"),
    ]


@pytest.mark.parametrize("order", range(8))
def test_row_29_requests_that_were_on_their_way_hit_nobody_else(daemon: Daemon, order: int) -> None:
    container, pid = started(daemon)
    exec_id = daemon.ok("POST", f"/containers/{container}/exec", {"Cmd": ["kill", "-9", "-1"]})["Id"]
    joiner = daemon.create("sleep", "1000", HostConfig={"NetworkMode": f"container:{container}"})
    asked = requests(container, exec_id, joiner)
    asked = asked[order:] + asked[:order]
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        connections = []
        for data in asked:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(30)
            sock.connect(str(daemon.sock))
            sock.sendall(data)
            connections.append(sock)
        end(pid)
        with filler(pid):
            os.kill(daemon.pid, signal.SIGCONT)
            for sock in connections:
                answer = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))  # type: ignore[misc]  # bound at once
                assert b" 500 " not in answer[:16], answer
                sock.close()
            state = daemon.ok("GET", f"/containers/{joiner}/json")["State"]
            if state["Running"]:  # after the restart: it joined the new process
                assert os.readlink(f"/proc/{state['Pid']}/ns/net") != os.readlink("/proc/self/ns/net")
            daemon.remove_all()
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


@pytest.mark.parametrize("keeper_too", [False, True], ids=["keeper-lives", "keeper-killed"])
def test_row_29_a_daemon_that_starts_again_takes_nobody_for_its_container(daemon: Daemon, keeper_too: bool) -> None:
    container, pid = started(daemon)
    with open(f"/proc/{pid}/stat") as stat:
        keeper = int(stat.read().rpartition(")")[2].split()[1])
    daemon.kill(signal.SIGKILL)
    if keeper_too:
        pidfd = os.pidfd_open(pid)
        os.kill(keeper, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]
        os.close(pidfd)
    else:
        end(pid)
    with filler(pid):
        daemon.start()
        assert daemon.ok("GET", f"/containers/{container}/json")["State"]["Status"] == "exited"
        for method, path in (("POST", "stop?t=0"), ("POST", "kill"), ("GET", "top"), ("GET", "archive?path=/etc")):
            assert daemon.call(method, f"/containers/{container}/{path}").status < 500
        daemon.ok("DELETE", f"/containers/{container}?force=1")
        daemon.restart(signal.SIGTERM)
