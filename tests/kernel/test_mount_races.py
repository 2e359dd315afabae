"""Somebody swaps names in the root file system while it is mounted (rows 1-7): nothing lands outside, nothing stays unmasked."""

from __future__ import annotations

import ctypes
import json
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from launching import MASKED, MOUNTS, READ_ONLY

from sampan.errors import StepFailed
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.mount import Propagation, attach, clone_tree, set_attributes, unmount
from sampan.kernel.paths import open_in
from sampan.kernel.process import Clone, unshare
from sampan.oci.runtime import Linux, Mount, Process, Spec
from sampan.runtime import apply
from sampan.runtime.plan import plan
from support.forked import beside

pytestmark = pytest.mark.alone  # one processor for each side of the race
ROUNDS = 2000
SECONDS = 60 if os.environ.get("SAMPAN_TEST_LONG") else 15
_libc = ctypes.CDLL(None, use_errno=True)
PROC_MASKED = tuple(path for path in MASKED if path.startswith("/proc/") and os.path.exists(path))


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Another process, on another processor, exchanges the two names as fast as it can (RENAME_EXCHANGE).

    Between bursts of an even number it rests for up to 8 ms, the true name in place, so that a walk meets it at every point.
    """

    def exchange() -> None:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        first, second = bytes(one), bytes(other)
        dice = random.Random(1)
        while True:
            for _ in range(2 * dice.randrange(1, 200)):
                _libc.renameat2(-100, first, -100, second, 2)
            time.sleep(dice.random() * 0.008)  # the moment is what is varied

    with beside(exchange):
        yield


def in_own_mounts(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run `work` in a child with a mount namespace of its own; return what it returns."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            unshare(Clone.NEWNS)
            with open_fd("/", os.O_PATH) as slash:
                set_attributes(slash, propagation=Propagation.PRIVATE, recursive=True)
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    text = b"".join(iter(lambda: os.read(reading, 65536), b""))
    os.close(reading)
    assert os.waitpid(pid, 0)[1] == 0
    return dict(json.loads(text))


class Yard:
    """A root file system, a stage where it is mounted, a volume, and beside them what must stay as it is."""

    def __init__(self, place: Path) -> None:
        self.root, self.stage, self.volume, self.canary = (place / name for name in ("root", "stage", "volume", "canary"))
        for folder in (self.root, self.stage, self.volume, self.canary):
            folder.mkdir()
        for name in ("v/x", "dev", "proc", "sys"):
            (self.root / name).mkdir(parents=True)
        (self.canary / "CANARY").write_text("alive")
        (self.root / "link").symlink_to(self.canary)

    def escaped(self) -> list[str]:
        """Return what came to be outside of the stage."""
        found = [name for name in os.listdir(self.canary) if name != "CANARY"]
        with open("/proc/self/mountinfo") as table:
            found += [line.split()[4] for line in table if line.split()[4].startswith(str(self.canary))]
        return found

    def race(self, round_: Callable[[Fd], str]) -> dict[str, Any]:
        """Mount the root ROUNDS times (or for SECONDS) and walk it; count how each round went, gather escapes."""
        counts: dict[str, Any] = {"escaped": [], "rounds": 0}
        until = time.monotonic() + SECONDS
        while counts["rounds"] < ROUNDS and time.monotonic() < until:
            counts["rounds"] += 1
            with clone_tree(str(self.root)) as tree:
                attach(tree, str(self.stage))
            with open_fd(self.stage, os.O_PATH | os.O_DIRECTORY) as root:
                outcome = round_(root)
            counts[outcome] = counts.get(outcome, 0) + 1
            counts["escaped"] = self.escaped()
            unmount(str(self.stage), detach=True)
            if counts["escaped"]:
                break
        return counts


def walked(steps: Any, root: Fd, trees: dict[int, Fd]) -> apply.Walk | None:
    state = apply.Walk(root=root, trees=trees, in_userns=False, own_netns=True, controllers=())
    try:
        apply.walk(steps, state)
    except (StepFailed, OSError):
        return None
    return state


@pytest.mark.slow
def test_row_1_row_7_a_volumes_place_that_is_swapped_is_never_outside(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    steps = plan(Spec(mounts=(Mount(destination="/v/x/y/z", type="bind", tree=0),), process=Process(args=("x",))))[:-1]

    def round_(root: Fd) -> str:
        with clone_tree(str(yard.volume)) as tree:
            return "mounted" if walked(steps, root, {0: tree}) else "refused"

    with swapping(yard.root / "v/x", yard.root / "link"):
        counts = in_own_mounts(lambda: yard.race(round_))
    assert counts["escaped"] == []
    assert counts.get("mounted", 0) > 10 and counts.get("refused", 0) > 10, counts  # both sides of the race were met


@pytest.mark.slow
def test_row_1_the_harness_beats_a_mount_by_name(tmp_path: Path) -> None:
    """The control: what goes by names is led outside."""
    yard = Yard(tmp_path)

    def naive(_: Fd) -> str:
        place = yard.stage / "v/x/y"
        try:
            if (yard.stage / "v/x").is_symlink():
                return "refused"
            place.mkdir(exist_ok=True)
            with clone_tree(str(yard.volume)) as tree:
                attach(tree, str(place))
        except OSError:
            return "failed"
        return "mounted"

    with swapping(yard.root / "v/x", yard.root / "link"):
        assert in_own_mounts(lambda: yard.race(naive))["escaped"]


def system_steps() -> Any:
    mounts = tuple(mount for mount in MOUNTS if mount.type not in ("cgroup", "mqueue"))
    linux = Linux(masked_paths=MASKED, readonly_paths=READ_ONLY)
    return plan(Spec(mounts=mounts, process=Process(args=("x",), terminal=True), linux=linux))[:-1]


def unmasked(state: apply.Walk) -> list[str]:
    """Return what of the mounted /proc is not masked, or can be written."""
    proc, found = state.systems["/proc"], []
    for path in PROC_MASKED:
        with open_in(proc, path.removeprefix("/proc/"), os.O_PATH) as masked:
            seen = os.fstat(masked.fileno())
            if not stat.S_ISDIR(seen.st_mode) and seen.st_rdev != os.makedev(1, 3):
                found.append(path)
    try:
        open_in(proc, "sys/kernel/core_pattern", os.O_WRONLY).close()
        found.append("/proc/sys")
    except OSError:
        pass
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_row_2_to_6_system_folders_that_are_swapped_are_masked_or_refused(tmp_path: Path, name: str) -> None:
    yard, steps = Yard(tmp_path), system_steps()
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()

    def round_(root: Fd) -> str:
        state = walked(steps, root, {})
        if state is None:
            return "refused"
        missing = unmasked(state)
        if state.terminal is not None:
            assert os.major(os.fstat(state.terminal[1].fileno()).st_rdev) in range(136, 144)  # row 3
            for fd in state.terminal:
                fd.close()
        for fd in state.systems.values():
            fd.close()
        return f"unmasked {missing}" if missing else "mounted"

    with swapping(yard.root / name, yard.root / "link"):
        counts = in_own_mounts(lambda: yard.race(round_))
    assert counts["escaped"] == []
    assert set(counts) - {"escaped", "rounds"} <= {"mounted", "refused"}, counts
    assert counts.get("mounted", 0) > 0 and counts.get("refused", 0) > 0, counts
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern
