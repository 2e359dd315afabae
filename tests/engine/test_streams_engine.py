"""Attach of a real container, byte for byte: with Upgrade and without, many clients, half-close, clients that vanish.

SAMPAN_STREAM_MB=4096 and SAMPAN_VANISH=5000 make the two long ones as long as they are meant to be; by default they are short.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.tiers import running

MEGABYTES = int(os.environ.get("SAMPAN_STREAM_MB", "48"))
VANISHING = int(os.environ.get("SAMPAN_VANISH", "200"))
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


@pytest.fixture(scope="module")
def own(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon of the module's own, so that what it holds can be counted."""
    with running() as made:
        yield made


class Raw:
    """A hijacked connection as it is on the wire."""

    def __init__(self, daemon: Daemon, path: str, headers: str = "", method: str = "POST", body: bytes = b"") -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(daemon.sock))
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self.sock.sendall(head.encode() + body)

    def head(self) -> bytes:
        made = b""
        while not made.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            assert byte, made
            made += byte
        return made

    def frames(self) -> bytes:
        """Return stdout's bytes up to the end, and close."""
        made = []
        with self.sock, self.sock.makefile("rb") as stream:
            while head := stream.read(8):
                assert head[:4] == b"\1\0\0\0", head
                made.append(stream.read(int.from_bytes(head[4:], "big")))
        return b"".join(made)


def interactive(daemon: Daemon, *command: str) -> str:
    return daemon.create(*command, OpenStdin=True, StdinOnce=True, AttachStdin=True, AttachStdout=True)


@pytest.mark.parametrize(("headers", "line"), [(UPGRADE, b"HTTP/1.1 101 "), ("", b"HTTP/1.1 200 ")], ids=["Upgrade", "no Upgrade"])
def test_input_its_end_and_what_the_program_says_after_it(own: Daemon, headers: str, line: bytes) -> None:
    container = interactive(own, "sh", "-c", "cat; echo after the end")
    raw = Raw(own, f"/containers/{container}/attach?stream=1&stdin=1&stdout=1", headers)
    assert raw.head().startswith(line)
    own.ok("POST", f"/containers/{container}/start")
    data = random.Random(1).randbytes(300_000)

    raw.sock.sendall(data)
    raw.sock.shutdown(socket.SHUT_WR)

    assert raw.frames() == data + b"after the end\n"


def test_gigabytes_go_in_and_come_out_bit_for_bit(own: Daemon) -> None:
    """Through the docker client's -i, both ways at once."""
    block = random.Random(2).randbytes(1 << 20)
    sent, back = hashlib.sha256(), hashlib.sha256()
    command = ["docker", "-H", own.host, "run", "--rm", "-i", "--log-driver", "none", "busybox", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None and client.stdout is not None

        def send() -> None:
            assert client.stdin is not None
            for number in range(MEGABYTES):
                piece = block[number % 4096 :]  # no two in a row are alike
                sent.update(piece)
                client.stdin.write(piece)
            client.stdin.close()

        sending = threading.Thread(target=send)
        sending.start()
        while piece := client.stdout.read(1 << 20):
            back.update(piece)
        sending.join()
    assert client.returncode == 0 and back.hexdigest() == sent.hexdigest()


def test_many_clients_see_the_same_bytes_and_each_may_type(own: Daemon) -> None:
    container = own.create("sh", "-c", 'n=0; while [ $n -lt 24 ]; do read -r line; echo "$line"; n=$((n+1)); done', OpenStdin=True)
    own.ok("POST", f"/containers/{container}/start")
    clients = [Raw(own, f"/containers/{container}/attach?stream=1&stdin=1&stdout=1", UPGRADE) for _ in range(24)]
    for client in clients:
        assert client.head().startswith(b"HTTP/1.1 101 ")
    for number, client in enumerate(clients):
        client.sock.sendall(b"typed by %d\n" % number)

    seen = [client.frames() for client in clients]
    assert sorted(seen[0].splitlines()) == sorted(b"typed by %d" % number for number in range(24))
    assert set(seen) == {seen[0]}


def test_row_95_yes_to_a_client_that_reads_nothing_costs_neither_memory_nor_the_container(own: Daemon) -> None:
    """A megabyte waits for it, then the program; when it has left, the program goes on."""
    container = own.create("sh", "-c", "yes $(printf %0999d 0) | head -c 30000000; echo; exit 5")
    stuck = Raw(own, f"/containers/{container}/attach?stream=1&stdout=1", UPGRADE)
    stuck.head()
    own.ok("POST", f"/containers/{container}/start")
    assert stuck.sock.recv(1, socket.MSG_PEEK)
    before = memory(own.pid)
    for _ in range(20):
        assert own.ok("GET", f"/containers/{container}/json")["State"]["Running"]
    assert memory(own.pid) - before < 16_384
    stuck.sock.close()

    assert own.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 5


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_row_95_clients_that_vanish_leave_nothing_in_daemon_or_keeper(own: Daemon) -> None:
    container = own.create("sh", "-c", "while :; do echo x; usleep 20000; done", OpenStdin=True)
    own.ok("POST", f"/containers/{container}/start")
    state = own.ok("GET", f"/containers/{container}/json")["State"]
    keeper = parent(state["Pid"])

    def execute() -> Raw:
        name = own.ok("POST", f"/containers/{container}/exec", {"Cmd": ["true"], "AttachStdout": True})["Id"]
        return Raw(own, f"/exec/{name}/start", UPGRADE + "Content-Type: application/json\r\n", body=b'{"Detach":false}')

    ways: list[Callable[[], Raw]] = [
        lambda: Raw(own, f"/containers/{container}/attach?stream=1&stdout=1&stdin=1", UPGRADE),
        lambda: Raw(own, f"/containers/{container}/attach?stream=1&stdout=1&logs=1"),
        lambda: Raw(own, f"/containers/{container}/logs?stdout=1&follow=1", method="GET"),
        lambda: Raw(own, "/events", method="GET"),
        execute,
    ]

    def vanish(count: int) -> None:
        for number in range(count):
            raw = ways[number % len(ways)]()
            if number % 2:
                raw.sock.recv(1)
            raw.sock.close()

    vanish(20)
    before = settled(own.pid, keeper)
    vanish(VANISHING)

    after = settled(own.pid, keeper, at_most=before)
    assert after <= before, (before, after)
    own.ok("DELETE", f"/containers/{container}?force=1")


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def settled(*pids: int, at_most: list[int] | None = None) -> list[int]:
    """Return how many descriptors each process has, once that is as wished or no longer falls."""
    deadline = time.monotonic() + 20
    found: list[list[int]] = []
    while time.monotonic() < deadline:
        found.append([len(os.listdir(f"/proc/{pid}/fd")) for pid in pids])
        if found[-1] == at_most or (at_most is None and len(found) > 10 and found[-1] == found[-10]):
            break
        threading.Event().wait(0.1)
    return found[-1]
