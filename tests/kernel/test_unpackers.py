"""Layers are taken apart in processes of their own: confined, bounded, reused, ended; what kills one harms nobody else."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sampan.files.compression import Compression
from sampan.files.tar_apply import BadArchive, Budget, OverBudget
from sampan.kernel.caps import mask, status
from sampan.kernel.fds import Fd, open_fd, pipe, send_with_fds
from sampan.oci.digest import of
from sampan.storage import unpacking
from sampan.storage.ground import Ground
from sampan.storage.unpackers import Unpackers, _Unpacker
from support.tars import archive, member, open_fds

TAR = archive(member("a", content=b"one"))
LONG = archive(member("a", content=bytes(3 << 20)))  # more than the pipe holds: at its end somebody reads it


@pytest.fixture
def unpackers() -> Iterator[Unpackers]:
    before = open_fds()
    made = Unpackers()
    yield made
    made.close()
    assert open_fds() == before and not children()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Fd]:
    with open_fd(tmp_path, os.O_RDONLY | os.O_DIRECTORY) as held:
        yield held


def children() -> list[int]:
    """The unpackers of this process, zombies among them."""
    names = {int(pid): Path(f"/proc/{pid}/comm").read_text() for pid in os.listdir("/proc") if pid.isdigit() and mine(pid)}
    return [pid for pid, name in names.items() if name == "sampan-unpack\n"]


def mine(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    except OSError:
        return False


class Waits(io.BytesIO):
    """A layer of which the end comes when it is told."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.asked, self.go_on = threading.Event(), threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            self.asked.set()
            assert self.go_on.wait(30)
        return data


def begun(unpackers: Unpackers, folder: Fd, source: Waits) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            unpackers.unpack(source, Compression.PLAIN, folder, budget=Budget(), hashed=True)
        except BaseException as error:  # noqa: BLE001  (looked at by the test)
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert source.asked.wait(30)
    return thread, raised


def test_row_54_the_process_may_do_what_unpacking_takes_and_nothing_else(unpackers: Unpackers, folder: Fd) -> None:
    source = Waits(LONG)
    thread, raised = begun(unpackers, folder, source)
    (pid,) = children()
    limits = Path(f"/proc/{pid}/limits").read_text()
    held = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it is at work: a file that it makes comes and goes
            held |= {os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0]} if int(number) > 2 else set()
    sets, text = status(pid), Path(f"/proc/{pid}/status").read_text()
    networks = os.readlink(f"/proc/{pid}/ns/net"), os.readlink("/proc/self/ns/net")
    source.go_on.set()
    thread.join(30)

    assert not raised
    assert f"Max address space         {unpacking.MEMORY} " in limits and "Max core file size        0 " in limits
    for one in ("CapPrm", "CapEff", "CapBnd"):
        assert not sets[one] & mask(
            ("CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_NET_ADMIN", "CAP_SETUID", "CAP_SYS_CHROOT", "CAP_KILL")
        )
    assert "NoNewPrivs:\t1" in text and networks[0] != networks[1]
    assert {name for name in held if not name.startswith("/")} == {"socket", "pipe"}


def test_row_54_what_kills_the_process_is_a_refused_layer_and_the_next_one_is_taken(unpackers: Unpackers, folder: Fd) -> None:
    source = Waits(LONG)
    thread, raised = begun(unpackers, folder, source)
    os.kill(children()[0], signal.SIGKILL)
    source.go_on.set()
    thread.join(30)

    assert [type(one) for one in raised] == [BadArchive] and "ended by signal 9" in str(raised[0])
    os.unlink("a", dir_fd=folder.fileno())
    assert unpackers.unpack(io.BytesIO(TAR), Compression.PLAIN, folder, budget=Budget(), hashed=True).digest == of(TAR)


def test_row_54_memory_beyond_the_limit_is_a_refusal(unpackers: Unpackers, folder: Fd, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = "import sampan.storage.unpacking as u; u.apply = lambda *a, **k: bytes(2 << 30); u.main()"
    monkeypatch.setattr("sampan.storage.unpackers._CODE", greedy)
    with pytest.raises(BadArchive, match="takes more than 640 MiB of memory"):
        unpackers.unpack(io.BytesIO(TAR), Compression.PLAIN, folder, budget=Budget(), hashed=True)


def test_refusals_arrive_as_they_were_and_the_process_is_used_again(unpackers: Unpackers, folder: Fd) -> None:
    with pytest.raises(BadArchive, match=r"entry '\.\./a'") as caught:
        unpackers.unpack(io.BytesIO(archive(member("../a"))), Compression.PLAIN, folder, budget=Budget(), hashed=True)
    assert caught.value.entry == "../a"
    first = children()
    with pytest.raises(OverBudget):
        unpackers.unpack(io.BytesIO(TAR), Compression.PLAIN, folder, budget=Budget(max_bytes=2), hashed=True)
    with pytest.raises(BadArchive, match="gzip"):
        unpackers.unpack(io.BytesIO(b"\x1f\x8b\x08rest"), Compression.GZIP, folder, budget=Budget(), hashed=True)
    assert children() == first and len(first) == 1


def test_a_source_that_fails_ends_the_process_before_it_is_told(unpackers: Unpackers, folder: Fd) -> None:
    class Fails(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        unpackers.unpack(Fails(), Compression.PLAIN, folder, budget=Budget(), hashed=True)
    assert not children()


def test_the_idle_ones_end_by_themselves(unpackers: Unpackers, folder: Fd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.storage.unpackers._PATIENCE", 0.05)
    unpackers.unpack(io.BytesIO(TAR), Compression.PLAIN, folder, budget=Budget(), hashed=False)
    (pid,) = children()
    with Fd(os.pidfd_open(pid)) as end:
        assert select.select([end.fileno()], [], [], 20)[0]
    timer = unpackers._timer
    assert timer is not None
    timer.join(20)
    assert not children()


def test_a_slow_place_is_given_up_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = Ground(tmp_path)
    monkeypatch.setattr(ground, "_spreads", True)
    times = iter([0, 900_000_000, 0, 600_000_000, 0, 3_000])  # before and after the files of three places
    monkeypatch.setattr("sampan.storage.ground.time.thread_time_ns", lambda: next(times))
    place = ground.place()
    assert os.listdir(tmp_path) == [place.name] and not os.listdir(place) and place.stat().st_mode & 0o777 == 0o700


def test_an_unpacker_whose_daemon_dies_over_an_answer_leaves_without_a_word(folder: Fd) -> None:
    worker = _Unpacker()
    reading, writing = pipe()
    with writing, reading:
        job = unpacking.Job(kind=Compression.PLAIN.value, max_bytes=1 << 20, max_entries=10, hashed=False)
        send_with_fds(worker._connection, msgspec.msgpack.encode(job), (folder, reading))
        os.write(writing.fileno(), TAR)
    assert select.select([worker._connection], [], [], 20)[0]  # answered, and nobody reads it
    assert os.waitstatus_to_exitcode(worker.end()) == 0
