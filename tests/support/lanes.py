"""The whole suite in two lanes: half of it waits, for the other half there are two processors.

`lanes.py PATH...` runs two sessions of pytest side by side.  Each takes the next module that neither has taken, one from the
first on, one from the last on, so that both end at the same time.  Then the tests marked `alone` run by themselves: what measures
time, needs every processor, or looks at the whole host.  The leak check of conftest.py is made once, around everything.
SAMPAN_TEST_LANES=1 runs one session as `pytest PATH...` does; SAMPAN_TEST_REPORTS=FOLDER leaves a JUnit report of each there.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

_LANE = "SAMPAN_TEST_LANE"  # in a session's environment: "first:FOLDER" or "last:FOLDER", where what is taken is noted


def share(session: pytest.Session) -> bool:
    """Run the modules that the other lane has not taken; False when this session is no lane.  A pytest_runtestloop."""
    end, _, folder = os.environ.get(_LANE, "").partition(":")
    if not end or session.config.option.collectonly:
        return False
    if session.testsfailed and not session.config.option.continue_on_collection_errors:
        raise session.Interrupted(f"{session.testsfailed} errors during collection")
    free = _free(session.items, Path(folder), backwards=end == "last")
    mine = next(free, None)
    while mine is not None:
        for item, following in itertools.pairwise(mine):
            _run(session, item, following)
        last, mine = mine[-1], next(free, None)  # as late as possible, so that neither lane waits long for the other
        _run(session, last, mine[0] if mine else None)
    return True


def _free(items: list[pytest.Item], folder: Path, *, backwards: bool) -> Iterator[list[pytest.Item]]:
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    for path, its in reversed(modules.items()) if backwards else modules.items():
        try:
            (folder / str(path.relative_to(Path.cwd())).replace("/", "%")).touch(exist_ok=False)
        except FileExistsError:
            continue
        yield its


def _run(session: pytest.Session, item: pytest.Item, following: pytest.Item | None) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


def _command(name: str, *more: str) -> list[str]:
    reports = os.environ.get("SAMPAN_TEST_REPORTS")
    return [sys.executable, "-m", "pytest", *more, *([f"--junitxml={reports}/{name}.xml"] if reports else [])]


def _told(lane: subprocess.Popen[bytes], name: str) -> None:
    """Print what a lane says, a line at a time, each with its lane."""
    assert lane.stdout is not None
    for line in lane.stdout:
        sys.stdout.buffer.write(f"{name}| ".encode() + line)
        sys.stdout.buffer.flush()


def _side_by_side(paths: list[str]) -> list[int]:
    lanes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="sampanlanes-", dir="/var/tmp") as folder:
        try:
            for end in ("first", "last"):
                environment = {**os.environ, _LANE: f"{end}:{folder}", "SAMPAN_SHARED_HOST": "1"}
                command = _command(end, "-m", "not alone", *paths)
                lanes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
            telling = [
                threading.Thread(target=_told, args=(lane, end)) for lane, end in zip(lanes, ("first", " last"), strict=True)
            ]
            for one in telling:
                one.start()
            for one in telling:
                one.join()
            return [lane.wait() for lane in lanes]
        finally:
            for lane in lanes:
                lane.terminate()
                lane.wait()


def main(paths: list[str]) -> int:
    count = int(os.environ.get("SAMPAN_TEST_LANES", min(2, os.cpu_count() or 1)))
    if count < 2 or all(path.endswith("tests/unit") for path in paths):
        os.execv(sys.executable, _command("all", *paths))
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from support.host import HostState

    before = HostState.now()
    statuses = _side_by_side(paths)
    print("lanes: those that run alone", flush=True)
    statuses.append(subprocess.run(_command("alone", "-m", "alone", *paths), check=False).returncode)
    leaked = {} if os.environ.get("SAMPAN_SHARED_HOST") else HostState.now().leaked_since(before)
    if leaked:
        print(f"lanes: left on the host: {leaked}")
    failed = [str(status) for status in statuses if status not in (0, pytest.ExitCode.NO_TESTS_COLLECTED)]
    print(
        f"lanes: {'failed: a lane ended with ' + ', '.join(failed) if failed else 'passed'}"
        + (", and left things" if leaked else "")
    )
    return 1 if failed or leaked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
