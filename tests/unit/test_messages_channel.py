"""Messages and the channel that carries them."""

from __future__ import annotations

import os
import select

import pytest

from sampan import messages
from sampan.kernel.fds import memfd, pipe
from sampan.kernel.process import parent_of, pid_of, pidfd_open
from sampan.launch import newborn
from sampan.launch.channel import Channel
from sampan.oci.runtime import Process, User


def test_a_message_arrives_with_its_descriptors() -> None:
    one, other = Channel.pair()
    reading, writing = pipe()
    one.send(messages.Born(pid=4, keeper_pid=5), [writing])
    writing.close()
    message, fds = other.receive()
    assert message == messages.Born(pid=4, keeper_pid=5)
    os.write(fds[0].fileno(), b"x")
    assert os.read(reading.fileno(), 1) == b"x"
    assert not os.get_inheritable(fds[0].fileno())
    for it in (one, other, reading, fds[0]):
        it.close()


@pytest.mark.parametrize(
    ("user", "uid"),
    [(None, 7), ("", 0), ("0", 0), ("1000:users", 1000), (":users", 0), ("ann", None), ("٠", None)],
)
def test_only_a_number_is_known_without_the_containers_passwd(user: str | None, uid: int | None) -> None:
    assert newborn.known_uid(user, Process(args=("x",), user=User(uid=7))) == uid


def test_a_pidfd_tells_who_it_is_until_it_is_reaped() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    with pidfd_open(child) as pidfd:
        assert (pid_of(pidfd), parent_of(child)) == (child, os.getpid())
        os.waitpid(child, 0)
        assert (pid_of(pidfd), parent_of(child)) == (-1, -1)


def test_a_long_message_travels_beside_the_packet() -> None:
    one, other = Channel.pair()
    text = "x" * 300_000
    with memfd("other") as extra:
        one.send(messages.Refused(request="Exec", text=text), [extra])
    message, fds = other.receive()
    assert message == messages.Refused(request="Exec", text=text)
    assert len(fds) == 1
    for it in (one, other, fds[0]):
        it.close()


def test_the_end_of_the_peer_is_none() -> None:
    one, other = Channel.pair()
    one.close()
    assert other.receive() == (None, [])
    other.close()


def test_nothing_there_is_blocking_io_error() -> None:
    one, other = Channel.pair()
    with pytest.raises(BlockingIOError):
        other.receive(nonblocking=True)
    assert not select.select([other], [], [], 0)[0]
    one.close()
    other.close()


@pytest.mark.parametrize("body", [b"\xc0", b"\x81\xa1m\xa5Nopes", b"\xc1" + b"\xff" * 8, b"\xc1\0", b"hello"])
def test_what_is_no_message_raises_and_leaks_no_descriptor(body: bytes) -> None:
    import socket

    from sampan.kernel.fds import send_with_fds

    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(right)
    with memfd("passed") as extra:
        send_with_fds(left, body, [extra])
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises((ValueError, OSError)):
            channel.receive()
        assert len(os.listdir("/proc/self/fd")) == before
    left.close()
    channel.close()
