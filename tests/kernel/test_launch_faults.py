"""Every privileged call of a start fails once, every process of it dies at every call: fail closed, and nothing stays."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import Box, Boxes, unframe
from rigged import AHEAD, DAEMON, INIT, KEEPER, MIDWIFE, Rig, Saboteur, rigged_boxes

from sampan import messages
from sampan.cgroups import Hierarchy
from sampan.errors import StepFailed
from sampan.launch.start import Started
from sampan.oci.runtime import DeviceRule, Pids, Resources, Rlimit, Seccomp, SyscallRule
from support.holds import descendants, left_below

PARENT = f"/sampan-test-faults-{os.getpid()}"
# Everything of SECURITY.md B that a program can see of itself.
PROFILE = (
    "grep -E '^(Uid|Gid|Groups|Cap|NoNew|Seccomp:|Seccomp_f)' /proc/self/status; cat /proc/self/uid_map /proc/self/gid_map; "
    "cut -d' ' -f4-6 /proc/self/mountinfo; for n in pid mnt net ipc uts cgroup user; do "
    "test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) && echo $n; done; "
    "stat -c '%n %t:%T %F %a' /proc/kcore /proc/keys /proc/timer_list /sys/firmware /dev/* | grep -v pts/; ls /sys/firmware; "
    "for n in $(seq 0 40); do test -e /proc/$$/fd/$n && echo fd $n; done; hostname; umask; ulimit -n; "
    "cat /proc/sys/kernel/msgmax; mkdir /made; head -c1 /dev/zero; pwd; env; "
    "echo x > /proc/sys/kernel/core_pattern; cut -d: -f3 /proc/self/cgroup"
)


@pytest.fixture
def rigged(tmp_path: Path) -> Iterator[tuple[Boxes, Rig]]:
    boxes, rig = rigged_boxes(tmp_path)
    with Saboteur(rig):
        yield boxes, rig
    rig.disarm()
    boxes.close()
    for folder, _, _ in os.walk("/sys/fs/cgroup", topdown=False):  # a daemon that was killed leaves its group to the engine's sweep
        if PARENT in folder and f"{PARENT}/b" in folder:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    Hierarchy.detect().remove_empty(PARENT)


def settings(number: int) -> dict[str, Any]:
    wanted = Seccomp(
        default_action="SCMP_ACT_ALLOW", architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"),
        syscalls=(SyscallRule(names=("mkdir", "mkdirat"), action="SCMP_ACT_ERRNO", errno_ret=1),),
    )  # fmt: skip
    limits = Resources(
        pids=Pids(limit=20),
        devices=(
            DeviceRule(allow=False), DeviceRule(allow=True, type="c", access="m"),
            *(DeviceRule(allow=True, type="c", major=major, minor=minor) for major, minor in ((1, 3), (5, None), (136, None))),
        ),
    )  # fmt: skip
    return {
        "linux": {
            "seccomp": wanted, "resources": limits, "cgroups_path": f"{PARENT}/b{number}", "sysctl": {"kernel.msgmax": "4096"},
        },
        "process": {"rlimits": (Rlimit(type="RLIMIT_NOFILE", soft=99, hard=100),), "no_new_privileges": bool(number % 2)},
        "user": "ann" if number % 3 == 0 else "",
    }  # fmt: skip


def host(boxes: Boxes) -> tuple[set[str], set[str]]:
    """Return what a start could leave: mounts at its folders, control groups."""
    with open("/proc/self/mountinfo") as table:
        mounts = {line.split()[4] for line in table if str(boxes.place) in line}
    groups = {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if f"{PARENT}/b" in folder}
    return mounts, groups


def attempt(boxes: Boxes, number: int, *, terminal: bool = False) -> tuple[StepFailed | None, str]:
    """Start a container; return what it was refused with, or what its program saw."""
    box = boxes.start(
        "/bin/sh", "-c", f"exec 2>&1; {PROFILE}", terminal=terminal, expect=object, userns=number % 5 != 0, **settings(number)
    )
    if isinstance(box.answer, StepFailed):
        forget(box)
        return box.answer, ""
    raw = box.output()
    box.exited()
    forget(box)
    return None, (raw if terminal else unframe(raw)).decode()


def forget(box: Box) -> None:
    """Close the test's ends: there are hundreds of boxes."""
    if box.pidfd is not None:
        box.pidfd.close()
        box.pidfd = None
        box.control.close()
    if box.stream is not None:
        box.stream.close()


ROLES = [DAEMON, MIDWIFE, INIT, KEEPER]
NAMES = ["daemon", "midwife", "init", "keeper"]
# Attempts in which the role has work: a midwife clones into unusual namespaces, the keeper itself into the usual ones.
NUMBERS = {MIDWIFE: range(0, 30, 5), KEEPER: [number for number in range(30) if number % 5]}
ERRORS = (errno.EPERM, errno.ENOSYS, errno.EINTR, errno.ENOMEM)


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_p17_a_call_that_fails_is_a_refusal_or_changes_nothing(rigged: tuple[Boxes, Rig], role: int, terminal: bool) -> None:
    boxes, rig = rigged
    whole = {}
    numbers = NUMBERS.get(role, range(30))
    for number in numbers:
        rig.arm(role, 0, 0)
        refused, whole[number] = attempt(boxes, number, terminal=terminal)
        assert refused is None and "Seccomp:\t2" in whole[number], (refused, whole[number])
    calls = rig.count
    assert calls > {DAEMON: 40, MIDWIFE: 1, INIT: 100, KEEPER: 0}[role]
    boxes.wait_gone()
    before = host(boxes)
    refusals = 0

    step = 1 if role != INIT or os.environ.get("SAMPAN_TEST_LONG") else 5 if terminal else 3
    for index in range(1, calls + 1, step):
        number = numbers[index % len(numbers)]
        code = ERRORS[(index + index // len(ERRORS)) % len(ERRORS)]
        rig.arm(role, index, code)
        refused, seen = attempt(boxes, number, terminal=terminal)
        what = (index, rig.fired, errno.errorcode[code])
        rig.disarm()
        if refused is None:
            assert seen == whole[number], what
        else:
            refusals += 1
            assert refused.step and len(refused.text) > 3, (what, refused)
        assert host(boxes) == before or settled(boxes, before), what
    assert refusals > calls / step / 2, (refusals, calls)


def settled(boxes: Boxes, before: tuple[set[str], set[str]]) -> bool:
    """The keeper removes the group after its last word: wait for its end."""
    boxes.wait_gone()
    return host(boxes) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("role", [MIDWIFE, INIT, KEEPER], ids=["midwife", "init", "keeper"])
def test_p18_a_process_that_dies_at_any_call_leaves_nothing(rigged: tuple[Boxes, Rig], role: int, number: int) -> None:
    boxes, rig = rigged
    rig.arm(role, 0, 0)
    assert attempt(boxes, 5 if role == MIDWIFE else 1)[0] is None
    calls = rig.count
    boxes.wait_gone()
    before = host(boxes)

    step = 1 if os.environ.get("SAMPAN_TEST_LONG") or role != INIT else 4 * (1 if number == signal.SIGKILL else 5)
    for index in range(1, calls + 1, step):
        rig.arm(role, index, -number)
        box = boxes.start("/bin/sh", "-c", "exec sleep 100", expect=object, userns=role != MIDWIFE, **settings(index))
        rig.disarm()
        if isinstance(box.answer, Started):
            box.control.send(messages.Signal(number=9))
            box.hear(messages.Exited, 20)
            box.control.send(messages.Release())
            while (last := box.control.receive()[0]) is not None:  # killed between Go and execve it counts as a program that ended
                assert isinstance(last, messages.Refused), (index, last)
        else:
            assert isinstance(box.answer, StepFailed) and box.answer.text, box.answer
        forget(box)
        assert host(boxes)[0] == before[0], index
    boxes.nursery.close()  # nobody took it, where every start was an unusual one
    assert not left_below(boxes.spawner.pid)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        os.sched_yield()


def living(parent: int) -> list[int]:
    """Return those descendants that have not ended."""
    found = []
    for pid in descendants(parent):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("action", [errno.ENOMEM, -signal.SIGKILL], ids=["error", "killed"])
@pytest.mark.parametrize("role", [KEEPER, AHEAD], ids=["keeper", "ahead"])
def test_p17_p18_what_goes_wrong_ahead_of_need_costs_no_start(rigged: tuple[Boxes, Rig], role: int, action: int) -> None:
    boxes, rig = rigged
    rig.arm(role, 0, 0)
    boxes.nursery.fill()
    refused, whole = attempt(boxes, 1)
    calls = rig.count
    assert refused is None and calls >= {KEEPER: 1, AHEAD: 60}[role], (refused, calls)
    boxes.wait_gone()
    before = host(boxes)
    for index in range(1, calls + 1, 1 if os.environ.get("SAMPAN_TEST_LONG") or role == KEEPER else 5):
        rig.arm(role, index, action)
        boxes.nursery.fill()
        wait_until(lambda: bool(rig.fired))
        if action < 0:
            wait_until(lambda: len(living(boxes.spawner.pid)) < 2)
        rig.disarm()  # for the keeper of the start on demand
        refused, seen = attempt(boxes, 1)
        assert (refused, seen) == (None, whole), (index, rig.fired, refused)
        assert host(boxes) == before or settled(boxes, before), index
    assert not left_below(boxes.spawner.pid)


@pytest.mark.slow
def test_p18_a_daemon_that_dies_at_any_call_of_a_start_leaves_nothing(rigged: tuple[Boxes, Rig]) -> None:
    """No process and no mount; the control group is the next daemon's to sweep."""
    boxes, rig = rigged
    boxes.nursery.close()  # a brood of this process's would be the child's as well
    before, index, killed = host(boxes), 1, True
    while killed:
        rig.arm(DAEMON, index, -signal.SIGKILL)
        child = os.fork()
        if child == 0:
            try:
                boxes.start("/bin/sh", "-c", "exec sleep 100", **settings(index)).control.send(messages.Signal(number=9))
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        rig.disarm()
        killed = status == -signal.SIGKILL
        assert killed or (status == 0 and index > 40), (index, status)  # the start has fewer calls than that
        (boxes.place / "box0").rename(boxes.place / f"dead{index}")
        assert not left_below(boxes.spawner.pid), index
        assert host(boxes)[0] == before[0], index
        index += 1 if os.environ.get("SAMPAN_TEST_LONG") else 3
