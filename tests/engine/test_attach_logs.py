"""attach with logs=1: the log and what comes after it, with no byte missing and none twice."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.daemon import Daemon, UnixHttp

# Lines that end late, so that a client joins in the middle of one, and no faster than a reader in Python keeps up with.
COUNTING = (
    'i=0; while [ $i -lt %d ]; do printf "$i "; i=$((i+1)); [ $((i %% 50)) = 1 ] && usleep 3000; echo "$i."; i=$((i+1)); done'
)


def counted(limit: int) -> bytes:
    return b"".join(b"%d %d.\n" % (i, i + 1) for i in range(0, limit, 2))


class Attached:
    """An open attach, with the log before it."""

    def __init__(self, daemon: Daemon, container: str, query: str = "logs=1&stream=1&stdout=1") -> None:
        self._connection = UnixHttp(daemon.sock)
        self._connection.request("POST", f"/containers/{container}/attach?{query}")
        self._reply = self._connection.getresponse()
        assert self._reply.status == 200

    def read(self, least: int = 1 << 60) -> bytes:
        """Return the output to its end, or at least so much of it, without frames."""
        made = b""
        while len(made) < least and (head := self._reply.read(8)):
            made += self._reply.read(int.from_bytes(head[4:], "big"))
        return made

    def close(self) -> None:
        self._connection.close()


def host(driver: str, **options: str) -> dict[str, object]:
    config = {key.replace("_", "-"): value for key, value in options.items()}
    return {"LogConfig": {"Type": driver, "Config": config}}


@pytest.mark.parametrize(
    "body",
    [host("json-file"), host("json-file", max_size="20k", max_file="1000"), host("local")],
    ids=["one file", "rotated", "local"],
)
def test_every_byte_comes_once_whenever_one_joins(daemon: Daemon, body: dict[str, object]) -> None:
    container = daemon.create("sh", "-c", COUNTING % (1 << 30), HostConfig=body)
    daemon.ok("POST", f"/containers/{container}/start")

    def join(_: int) -> tuple[bytes, bytes]:
        joined = Attached(daemon, container)
        last = daemon.call("GET", f"/containers/{container}/logs?stdout=1&tail=1").body[8:].split()
        expected = counted(int(last[0]) + 1000 if last else 1000)
        try:
            return joined.read(len(expected)), expected
        finally:
            joined.close()

    with ThreadPoolExecutor(4) as pool:
        for seen, expected in pool.map(join, range(8)):
            assert seen[: len(expected)] == expected


def test_a_line_that_has_not_ended_is_seen_too(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "trap 'echo over; exit' USR1; echo whole; printf half-; sleep 600 & wait")
    daemon.ok("POST", f"/containers/{container}/start")
    first = Attached(daemon, container)
    assert first.read(len(b"whole\nhalf-")) == b"whole\nhalf-"

    second = Attached(daemon, container)
    assert second.read(len(b"whole\nhalf-")) == b"whole\nhalf-"
    daemon.ok("POST", f"/containers/{container}/kill?signal=USR1")
    assert first.read() == second.read() == b"over\n"


def test_a_client_that_leaves_before_the_logs_end_holds_nothing_up(daemon: Daemon) -> None:
    """The client reads nothing: the program goes on as soon as it has left, and descriptors are as before."""
    container = daemon.create(
        "sh", "-c", "yes $(printf %0999d 0) | head -c 3000000; trap 'exit 7' USR1; echo; echo ready; sleep 600 & wait"
    )
    daemon.ok("POST", f"/containers/{container}/start")
    for _ in range(3):
        Attached(daemon, container).close()
    watching = Attached(daemon, container)
    assert watching.read(3_000_000 + len("\nready\n")).endswith(b"\nready\n")
    daemon.ok("POST", f"/containers/{container}/kill?signal=USR1")
    assert daemon.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 7
    assert watching.read() == b""


def test_the_log_of_earlier_runs_comes_first_and_the_next_run_after_it(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "echo run")
    daemon.ok("POST", f"/containers/{container}/start")
    daemon.ok("POST", f"/containers/{container}/wait")
    joined = Attached(daemon, container)
    assert joined.read(4) == b"run\n"
    daemon.ok("POST", f"/containers/{container}/start")

    assert joined.read() == b"run\n"


def test_who_joins_after_a_daemon_was_killed_sees_every_byte(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", f"trap exit USR1; {COUNTING % 6_000}; sleep 600 & wait")
    daemon.ok("POST", f"/containers/{container}/start")
    Attached(daemon, container).read(1)
    daemon.restart(signal.SIGKILL)
    joined = Attached(daemon, container)
    expected = counted(6_000)

    assert joined.read(len(expected)) == expected
    daemon.ok("POST", f"/containers/{container}/kill?signal=USR1")
    assert joined.read() == b""
