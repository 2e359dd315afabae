"""`bench/contexts.py [--files N] [--rounds N]`: a large folder, built again and again with nothing changed in it.

Wall time of the whole `sampan build` command, processor time of the command and the daemon, and what the daemon read.
Needs root and /bin/busybox (static).
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from support.daemon import Daemon

BUDGET = 1.5  # seconds, for 50,000 files (issue 6)
FOLDERS = 500


def fill(place: Path, files: int) -> None:
    """Make the context: files of some twenty bytes in FOLDERS folders, and one COPY of all."""
    for number in range(files):
        folder = place / f"d{number % FOLDERS}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_text(f"{number}\n" * 3)
    (place / "Dockerfile").write_text("FROM busybox\nCOPY . /m/\n")


def processor(daemon: Daemon) -> float:
    """Return the seconds of processor time of the daemon and of the commands so far."""
    commands = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return commands.ru_utime + commands.ru_stime + sum(map(int, ticks)) / 100


def read(daemon: Daemon) -> int:
    return int(Path(f"/proc/{daemon.pid}/io").read_text().split()[1])


def build(daemon: Daemon, place: Path) -> tuple[float, float, int]:
    """Build; return (wall seconds, processor seconds, bytes read by the daemon).  Raises RuntimeError for a step that missed."""
    before, reads, start = processor(daemon), read(daemon), time.perf_counter()
    done = daemon.sampan("build", "--explain", str(place), timeout=300)
    taken = time.perf_counter() - start
    if b"Using cache" not in done.stdout and b"it was never built here" not in done.stdout:
        raise RuntimeError(done.stdout.decode())
    return taken, processor(daemon) - before, read(daemon) - reads


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    place, daemon = Path(tempfile.mkdtemp(prefix="sampanbench-", dir="/var/tmp")), Daemon()
    try:
        daemon.start()
        daemon.import_busybox()
        fill(place, options.files)
        first, _, _ = build(daemon, place)
        found = [build(daemon, place) for _ in range(options.rounds)]
    finally:
        daemon.close()
        shutil.rmtree(place, ignore_errors=True)
    wall, cpu, reads = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"{options.files} files, seconds: first build {first:.1f}; unchanged, median of {options.rounds}: {wall:.2f}")
    print(f"from {min(found)[0]:.2f} to {max(found)[0]:.2f}; processor time {cpu:.2f}; the daemon read {reads / 1024:.0f} kB")
    return 0 if wall <= BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
