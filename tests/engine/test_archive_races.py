"""A container that swaps folders and links under a copy (SECURITY.md rows 32-35): its own files at most, never the host's."""

from __future__ import annotations

import io
import os
import secrets
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from support.daemon import Daemon, UnixHttp

pytestmark = pytest.mark.alone  # one processor for each side of the race, and nobody else's mounts
ROUNDS = 2000
SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
at = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
print("ready", flush=True)
os.set_blocking(0, False)
while True:
    for _ in range(200):
        libc.renameat2(at, b"p", at, b"q", 2)  # RENAME_EXCHANGE
    try:
        if os.read(0, 1) == b"":
            break
    except BlockingIOError:
        pass
"""


@contextmanager
def swapping(pid: int, folder: str) -> Iterator[None]:
    """Exchange `p` and `q` of a container's folder without a pause, as the container itself could."""
    command = [sys.executable, "-c", SWAP, f"/proc/{pid}/root{folder}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attacker:
        assert attacker.stdin is not None and attacker.stdout is not None
        try:
            assert attacker.stdout.readline() == b"ready\n"
            yield
        finally:
            attacker.stdin.close()
            attacker.wait(30)


@pytest.fixture
def canary() -> Iterator[Path]:
    """A host file in the host's root."""
    path = Path(f"/sampan-canary-{secrets.token_hex(6)}")
    path.write_text("HOST-SECRET")
    path.chmod(0o600)
    yield path
    path.unlink()


def started(daemon: Daemon, canary: Path, **host: object) -> tuple[str, int]:
    setup = f"mkdir -p /w/p; echo inside >/w/p/{canary.name}; ln -s / /w/q; touch /ready; exec sleep 600"
    container = daemon.create("sh", "-c", setup, HostConfig=host)
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.docker("exec", container, "sh", "-c", "until [ -e /ready ]; do usleep 10000; done")
    return container, daemon.ok("GET", f"/containers/{container}/json")["State"]["Pid"]


def tar_of(name: str, mode: int = 0o777) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = 4, mode
        tar.addfile(entry, io.BytesIO(b"EVIL"))
    return out.getvalue()


class Caller:
    """Requests on one connection: thousands of them."""

    def __init__(self, daemon: Daemon, container: str) -> None:
        self.connection = UnixHttp(daemon.sock)
        self.base = f"/containers/{container}/archive?path="

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def __call__(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        self.connection.request(method, self.base + quote(path), body)
        answer = self.connection.getresponse()
        return answer.status, answer.read()


Callers = Callable[[str], Caller]


@pytest.fixture
def callers(daemon: Daemon) -> Iterator[Callers]:
    with ExitStack() as held:
        yield lambda container: held.enter_context(Caller(daemon, container))


def host_state() -> tuple[set[str], str]:
    return set(os.listdir("/")), Path("/proc/self/mountinfo").read_text()


def test_the_harness_wins_against_a_naive_copy(daemon: Daemon, canary: Path) -> None:
    _, pid = started(daemon, canary)
    folder = Path(f"/proc/{pid}/root/w/p")
    hits = 0
    with swapping(pid, "/w"):
        for _ in range(100_000):
            try:
                if not folder.is_symlink() and "HOST" in (folder / canary.name).read_text():
                    hits += 1
                    break
            except OSError:
                continue

    assert hits, "the control: checked first, then opened by name"


@pytest.mark.slow
def test_row_32_a_swapped_folder_never_shows_or_takes_what_is_the_hosts(daemon: Daemon, canary: Path, callers: Callers) -> None:
    container, pid = started(daemon, canary)
    call = callers(container)
    before = host_state()
    name = f"put-{secrets.token_hex(6)}"
    seen: dict[int, int] = {}
    with swapping(pid, "/w"):
        for number in range(ROUNDS):
            status, body = call("GET", f"/w/p/{canary.name}") if number % 2 else call("GET", "/w/p/")
            assert b"HOST-SECRET" not in body
            seen[status] = seen.get(status, 0) + 1
            if number % 2:
                status, _ = call("PUT", "/w/p", tar_of(name))
            else:
                status, _ = call("PUT", "/w", tar_of(f"p/{canary.name}"))
            seen[status] = seen.get(status, 0) + 1
            if number % 500 == 0:
                daemon.call("DELETE", f"/containers/{secrets.token_hex(8)}")

    assert canary.read_text() == "HOST-SECRET" and canary.stat().st_mode & 0o777 == 0o600
    assert host_state() == before
    assert seen.get(200, 0) > ROUNDS / 4 and 500 not in seen, seen


def test_rows_33_34_a_volume_below_a_swapped_folder_makes_no_mount_and_no_file_on_the_host(
    daemon: Daemon, canary: Path, callers: Callers, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("volume")
    container, pid = started(daemon, canary, Binds=[f"{tmp_path}:/w/p/vol", "racevol:/w/p/named"])
    call = callers(container)
    before = host_state()
    with swapping(pid, "/w"):
        for number in range(ROUNDS // 4):
            for method, path, body in (
                ("HEAD", "/w/p/vol", None), ("GET", "/w/p/vol/kept", None), ("PUT", "/w/p/named", tar_of(f"f{number % 10}")),
                ("PUT", "/w/p/vol", tar_of("new")), ("GET", "/w", None),
            ):  # fmt: skip
                status, answer = call(method, path, body)
                assert status in (200, 400, 404, 409) and b"HOST-SECRET" not in answer, (status, answer[:300])
    daemon.ok("POST", f"/containers/{container}/stop?t=0")
    for method in ("HEAD", "GET"):
        assert call(method, "/w/p/vol")[0] in (200, 404)

    assert host_state() == before and not Path("/vol").exists() and not Path("/named").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"kept", "new"}


def test_row_35_modes_and_owners_are_never_set_through_a_link(daemon: Daemon, canary: Path, callers: Callers) -> None:
    container, pid = started(daemon, canary)
    call = callers(container)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE):
            entry = tarfile.TarInfo("x")
            entry.type, entry.linkname, entry.mode, entry.uid = kind, str(canary), 0o777, 1000
            tar.addfile(entry)
    with swapping(pid, "/w"):
        for _ in range(200):
            call("PUT", "/w/p", out.getvalue())

    found = canary.stat()
    assert (found.st_mode & 0o777, found.st_uid, canary.read_text()) == (0o600, os.getuid(), "HOST-SECRET")


def test_row_32_a_tree_that_moves_while_it_is_read_ends_and_stays_inside(daemon: Daemon, canary: Path) -> None:
    container, pid = started(daemon, canary)
    daemon.docker("exec", container, "sh", "-c", "for i in $(seq 200); do mkdir -p /w/p/d$i/e; echo x >/w/p/d$i/e/f; done")
    with swapping(pid, "/w"):
        for path in ("export", "changes", "archive?path=/", "archive?path=/w") * 5:
            answer = daemon.call("GET", f"/containers/{container}/{path}")
            assert answer.status == 200 and b"HOST-SECRET" not in answer.body


def test_nothing_is_held_after_thousands_of_copies(daemon: Daemon, canary: Path, callers: Callers) -> None:
    container, _ = started(daemon, canary)
    call = callers(container)
    call("GET", "/w")
    before = len(os.listdir(f"/proc/{daemon.pid}/fd")), len(os.listdir(f"/proc/{daemon.pid}/task"))

    for number in range(300):
        call("GET", "/w" if number % 2 else "/nope")
        call("PUT", "/w" if number % 2 else "/nope", tar_of("f"))
        call("HEAD", "/w/p/x/y")

    deadline = time.monotonic() + 10
    while (after := (len(os.listdir(f"/proc/{daemon.pid}/fd")), len(os.listdir(f"/proc/{daemon.pid}/task"))))[0] > before[0]:
        assert time.monotonic() < deadline, (before, after)
        threading.Event().wait(0.05)
    assert after[1] <= before[1] + 8
