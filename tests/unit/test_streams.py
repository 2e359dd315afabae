"""A process's output and clients of every speed: who started it may make it wait, who came later may not for long."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from sampan.kernel.fds import Fd, pipe
from sampan.launch import streams
from sampan.launch.loop import Loop
from sampan.launch.streams import Stdio
from sampan.messages import Attachment

MEGABYTES = 6


class Process:
    """Something that writes as fast as it can, and the loop of its keeper."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.stdio = Stdio(self.loop, terminal=False)
        reading, writing = pipe()
        errors, self.errors = pipe()
        self.stdio.set_pipes(None, reading, errors)
        self.writer = threading.Thread(target=self._write, args=(writing,))
        self.clients: list[socket.socket] = []

    def _write(self, writing: Fd) -> None:
        with writing:
            for _ in range(MEGABYTES * 16):
                left = 65536
                while left:
                    left -= os.write(writing.fileno(), bytes(left))

    def client(self) -> socket.socket:
        near, far = socket.socketpair()
        self.clients.append(near)
        self.stdio.attach(Fd(far.detach()), Attachment(fd=0))
        return near

    def turn(self, seconds: float) -> bool:
        """Serve for so long, or until everything is written; return whether it is."""
        until = time.monotonic() + seconds
        self.loop.after(seconds, lambda: None)
        while self.writer.is_alive() and time.monotonic() < until:
            self.loop.step()
        return not self.writer.is_alive()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr(streams, "_PATIENCE", 0.1)
    made = Process()
    yield made
    made.stdio.close()
    made.errors.close()
    made.writer.join(10)
    for client in made.clients:
        client.close()
    made.loop.close()


def received(client: socket.socket) -> bytes:
    client.setblocking(False)
    made = b""
    try:
        while data := client.recv(1 << 20):
            made += data
    except BlockingIOError:
        pass
    return made


def test_who_came_later_and_reads_nothing_is_told_and_let_go(process: Process) -> None:
    process.stdio.start()
    late = process.client()
    process.writer.start()

    assert process.turn(20)
    found = received(late)
    while not found.endswith(b"has the rest\n"):
        process.loop.after(0.01, lambda: None)
        process.loop.step()
        found += received(late)
    assert 1 << 20 <= len(found) < 2 << 20 and b"\3\0\0\0" in found
    assert late.recv(1) == b""  # closed


def test_who_started_the_process_makes_it_wait(process: Process) -> None:
    first = process.client()
    process.stdio.start()
    process.writer.start()

    assert not process.turn(0.5)
    first.close()
    assert process.turn(20)


def test_who_came_later_and_takes_enough_gets_every_byte(process: Process) -> None:
    process.stdio.start()
    late = process.client()
    process.writer.start()
    got: list[int] = []

    def read() -> None:
        while data := late.recv(1 << 18):
            got.append(len(data))
            time.sleep(0.01)  # slower than the process, a megabyte in much less than its patience

    reader = threading.Thread(target=read)
    reader.start()
    assert process.turn(20)
    process.stdio.finish()
    while not process.stdio.drained:
        process.loop.step()
    reader.join(10)
    assert sum(got) - MEGABYTES * (1 << 20) == 8 * round((sum(got) - MEGABYTES * (1 << 20)) / 8) > 0
