"""`make bench`: the same work on Sampan, on Debian's dockerd and on bare runc, in one run; what counts is the ratio.

    bench/bench.py [--only OP,OP] [--rounds N] [--json FILE] [--require]

Engines take turns (A B A B), so a drift of the machine hits all alike; figures are medians.  --require exits 1 when a
budget of docs/performance.md is missed.  Needs root, /bin/busybox (static) and the docker command.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from builds import CACHED, UNCACHED, build
from peers import IMAGE, Peer, Runc, UnixHttp, dockerd, runc, sampan, workspace

DENSITY = 40
RUN, API, EXEC = "docker run --rm (bridge), s", "API create+start+wait+remove, s", "API exec true, s"
IDLE, EACH = "engine idle memory (PSS), MiB", "engine memory per running container (PSS), MiB"
START, REMOVE = "start 1 of 40, 8 at a time, s", "rm -f 1 of 40, 8 at a time, s"
LINES, SINGLE = 1_000_000, 100_000
LOG_WRITE, LOG_READ = "a million short lines into the log, s", "GET logs of a million short lines, s"
ONE_WRITE, ONE_READ = "100,000 lines one by one into the log, s", "GET logs of 100,000 lines one by one, s"
BUDGETS = {
    RUN: 6.0,
    API: 15.0,
    EXEC: 6.0,
    EACH: 3.0,
    IDLE: 2.0,
    LOG_WRITE: 6.0,
    LOG_READ: 10.0,
    ONE_READ: 10.0,
    UNCACHED: 8.0,
    CACHED: 2.0,
}  # dockerd / sampan, at least
RUNC_BUDGET = 2.0  # sampan's API run / runc run, at most


def timed(peer: Peer | Runc, operation: str, work: Callable[[], None]) -> None:
    start = time.perf_counter()
    work()
    peer.add(operation, time.perf_counter() - start)


def cli_run(peer: Peer) -> None:
    timed(peer, RUN, lambda: peer.docker("run", "--rm", IMAGE, "true"))


def api_run(peer: Peer) -> None:
    connection = UnixHttp(peer.sock)

    def work() -> None:
        container = peer.create(connection, ["true"])
        peer.call(connection, "POST", f"/containers/{container}/start")
        peer.call(connection, "POST", f"/containers/{container}/wait")
        peer.call(connection, "DELETE", f"/containers/{container}")

    work()
    for _ in range(5):
        timed(peer, API, work)


def api_exec(peer: Peer) -> None:
    connection = UnixHttp(peer.sock)
    container = peer.create(connection, ["sleep", "600"])
    peer.call(connection, "POST", f"/containers/{container}/start")

    def work() -> None:
        body = {"Cmd": ["true"], "AttachStdout": True}
        name = json.loads(peer.call(connection, "POST", f"/containers/{container}/exec", body))["Id"]
        stream = UnixHttp(peer.sock)
        peer.call(stream, "POST", f"/exec/{name}/start", {"Detach": False, "Tty": False})
        stream.close()
        while json.loads(peer.call(connection, "GET", f"/exec/{name}/json"))["Running"]:
            time.sleep(0.001)

    work()
    for _ in range(5):
        timed(peer, EXEC, work)
    peer.call(connection, "DELETE", f"/containers/{container}?force=1")


def density(peer: Peer) -> None:
    before = peer.pss_kib()

    def one(_: int) -> str:
        connection = UnixHttp(peer.sock)
        container = peer.create(connection, ["sleep", "600"])
        peer.call(connection, "POST", f"/containers/{container}/start")
        connection.close()
        return container

    def gone(container: str) -> None:
        connection = UnixHttp(peer.sock)
        peer.call(connection, "DELETE", f"/containers/{container}?force=1")
        connection.close()

    with ThreadPoolExecutor(8) as pool:
        start = time.perf_counter()
        containers = list(pool.map(one, range(DENSITY)))
        peer.add(START, (time.perf_counter() - start) / DENSITY)
        time.sleep(2)  # let the engines settle before they are weighed
        peer.add(IDLE, before / 1024)
        peer.add(EACH, (peer.pss_kib() - before) / DENSITY / 1024)
        start = time.perf_counter()
        list(pool.map(gone, containers))
        peer.add(REMOVE, (time.perf_counter() - start) / DENSITY)


def logs(peer: Peer) -> None:
    """A million short lines in few writes, and lines that come one by one: from start to end, and GET logs."""
    shell = f"i=0; while [ $i -lt {SINGLE} ]; do echo line $i of those that come one by one; i=$((i+1)); done"
    for write, read, command in (
        (LOG_WRITE, LOG_READ, ["sh", "-c", f"yes | head -n {LINES}"]),
        (ONE_WRITE, ONE_READ, ["sh", "-c", shell]),
    ):
        connection = UnixHttp(peer.sock)
        body = {"Image": IMAGE, "Cmd": command, "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1g"}}}}
        container = json.loads(peer.call(connection, "POST", "/containers/create", body))["Id"]

        def whole(connection: UnixHttp = connection, container: str = container) -> None:
            peer.call(connection, "POST", f"/containers/{container}/start")
            peer.call(connection, "POST", f"/containers/{container}/wait")

        timed(peer, write, whole)
        for _ in range(2):
            start = time.perf_counter()
            connection.request("GET", f"/containers/{container}/logs?stdout=1")
            reply = connection.getresponse()
            while reply.read(1 << 20):
                pass
            peer.add(read, time.perf_counter() - start)
        peer.call(connection, "DELETE", f"/containers/{container}?force=1")
        connection.close()


OPERATIONS: dict[str, tuple[Callable[[Peer], None], int]] = {
    "cli_run": (cli_run, 10), "api_run": (api_run, 4), "api_exec": (api_exec, 4), "density": (density, 2),
    "logs": (logs, 2),
    "build": (build, 3),
}  # fmt: skip


def report(peers: list[Peer], yardstick: Runc | None) -> list[str]:
    """Print the table; return the budgets that were missed."""
    missed = []
    subject = peers[0]
    print(f"{'operation (median)':50}" + "".join(f"{p.name:>12}" for p in peers) + f"{'ratio':>10}{'budget':>10}")
    for operation in subject.samples:
        medians = [statistics.median(p.samples.get(operation, [float("nan")])) for p in peers]
        line = f"{operation:50}" + "".join(f"{m:12.4f}" for m in medians)
        if len(medians) > 1:
            ratio, budget = medians[1] / medians[0], BUDGETS.get(operation)
            line += f"{ratio:10.2f}" + (f"{budget:>9.0f}x" if budget else "")
            if budget and ratio < budget:
                missed.append(f"{operation}: {ratio:.2f}x of dockerd, budget {budget:.0f}x")
        print(line)
    if yardstick and API in subject.samples:
        bare = statistics.median(yardstick.samples["runc run"])
        ratio = statistics.median(subject.samples[API]) / bare
        print(f"{'runc run true, s':50}{bare:12.4f}   Sampan's whole API run is {ratio:.2f}x of it (at most {RUNC_BUDGET:.0f}x)")
        if ratio > RUNC_BUDGET:
            missed.append(f"API run is {ratio:.2f}x of runc run, budget {RUNC_BUDGET:.0f}x")
    return missed


def measure(peers: list[Peer], yardstick: Runc | None, only: list[str], rounds: int | None) -> None:
    for name in only:
        operation, usual = OPERATIONS[name]
        for _ in range(rounds or usual):
            for peer in peers:
                operation(peer)
            if yardstick and name == "api_run":
                for _ in range(5):
                    timed(yardstick, "runc run", yardstick.run)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(OPERATIONS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--require", action="store_true")
    options = parser.parse_args()
    work = workspace()
    peers: list[Peer] = []
    try:
        peers += [peer for peer in (sampan(work), dockerd(work)) if peer]
        for peer in peers:
            peer.wait_until_ready()
            peer.import_image()
        yardstick = runc(work)
        measure(peers, yardstick, options.only.split(","), options.rounds)
        missed = report(peers, yardstick)
    finally:
        for peer in peers:
            peer.stop()
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        with open(options.json, "w") as out:
            json.dump({p.name: p.samples for p in peers}, out, indent=1)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed and options.require else 0


if __name__ == "__main__":
    sys.exit(main())
