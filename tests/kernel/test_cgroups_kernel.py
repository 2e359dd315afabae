"""Control groups on this host, whichever version it has."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.cgroups import Group, Hierarchy
from sampan.cgroups.update import update
from sampan.errors import Conflict, InvalidRequest, SampanError
from sampan.kernel.process import Clone, clone
from sampan.oci.runtime import Cpu, DeviceRule, Memory, Pids, Resources

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MIB = 1 << 20
DEVICES = (
    DeviceRule(allow=False),
    DeviceRule(allow=True, type="c", major=1, minor=3),
    DeviceRule(allow=True, type="c", access="m"),
)


@pytest.fixture
def hierarchy() -> Hierarchy:
    try:
        return Hierarchy.detect()
    except SampanError:
        pytest.skip("needs a mounted control group hierarchy")


@pytest.fixture
def path(hierarchy: Hierarchy) -> Iterator[str]:
    parent = f"/smp-test-{uuid.uuid4().hex[:8]}"
    yield f"{parent}/box"
    hierarchy.open(f"{parent}/box").remove()
    hierarchy.remove_empty(parent)
    assert not [folder for folder in hierarchy.paths(parent).values() if os.path.exists(folder)]


def joined(group: Group, *command: str, output: bool = False) -> subprocess.Popen[bytes]:
    out = subprocess.PIPE if output else subprocess.DEVNULL
    return subprocess.Popen(command, preexec_fn=lambda: group.add(os.getpid()), stdout=out, stderr=out)


def test_limits_are_set_and_shown(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(
        path,
        Resources(
            memory=Memory(limit=64 * MIB, swap=64 * MIB), pids=Pids(limit=17), cpu=Cpu(shares=512, quota=50000, period=100000)
        ),
    )

    assert group.stats().memory_limit == 64 * MIB
    assert group.stats().pids_limit == 17
    for file, value in group.files_set():
        assert Path(file).read_text().strip() == value
    assert group.memory_file().startswith("/sys/fs/cgroup")


def test_memory_and_swap_grow_and_shrink_in_any_order(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources(memory=Memory(limit=64 * MIB, swap=128 * MIB)))

    for limit, swap in ((256, 512), (32, 32), (300, 300), (16, 600)):
        group.apply(Resources(memory=Memory(limit=limit * MIB, swap=swap * MIB)))
        assert group.stats().memory_limit == limit * MIB
    group.apply(Resources(memory=Memory(limit=64 * MIB, swap=-1)))


def test_processes_are_seen_frozen_killed_and_the_group_removed(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources())
    process = joined(group, "sleep", "1000")

    assert group.pids() == [process.pid]
    assert group.stats().pids == 1
    group.freeze()
    group.kill()
    assert process.wait(10) == -9
    group.remove()
    group.remove()
    assert not [folder for folder in hierarchy.paths(path).values() if os.path.exists(folder)]


def test_a_child_is_born_in_the_group_or_walks_in_by_itself(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources())
    doors = group.doors()
    ours, theirs = os.pipe()
    pid, pidfd = clone(Clone.NEWUSER | Clone.NEWPID, cgroup=doors.folder)  # no rights over the group's files
    if pid == 0:
        try:
            doors.enter()
            os.write(theirs, b"in" if not doors.tasks else b"no")
            signal.pause()
        finally:
            os._exit(1)
    assert pidfd is not None
    os.close(theirs)
    try:
        assert os.read(ours, 2) == b"in"
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        assert group.pids() == [pid]
        inside = {line.split(":")[1]: line.split(":")[2] for line in lines}
        for controller in group.paths:
            name = next((key for key in inside if controller in key.split(",")), "")
            assert inside[name] == path, controller
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        pidfd.close()
        doors.close()
        os.close(ours)


def test_row_106_removal_ends_what_is_frozen_inside_and_in_sub_groups(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources())
    below = hierarchy.create(f"{path}/below", Resources())
    processes = [
        joined(group, "sleep", "1000") if hierarchy.version == 1 else joined(below, "sleep", "1000"),
        joined(below, "sleep", "1000"),
    ]
    group.freeze()
    import threading

    reapers = [threading.Thread(target=process.wait) for process in processes]
    for reaper in reapers:
        reaper.start()
    group.remove()
    for reaper in reapers:
        reaper.join(10)

    assert [process.returncode for process in processes] == [-9, -9]


def test_out_of_memory_is_told(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources(memory=Memory(limit=16 * MIB, swap=16 * MIB)))
    assert not group.oom_killed()

    with joined(group, "python3", "-IS", "-c", "x = b'x' * (200 << 20)") as process:
        assert process.wait(60) == -9
    assert group.oom_killed()


def test_the_task_limit_holds(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources(pids=Pids(limit=1)))
    process = joined(group, "sh", "-c", "/bin/true; /bin/true", output=True)

    assert b"fork" in process.communicate()[1].lower()


def test_row_103_devices_are_refused_unless_allowed(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources(devices=DEVICES))
    code = "import os\nfor path in ('/dev/null', '/dev/zero'):\n try: os.open(path, os.O_RDONLY); print('open')\n"
    code += " except OSError as error: print(error.errno)"
    out = joined(group, "python3", "-IS", "-c", code, output=True).communicate()[0]

    assert out.split() == [b"open", str(errno.EPERM).encode()]


def test_a_failed_creation_leaves_nothing(hierarchy: Hierarchy, path: str) -> None:
    with pytest.raises(InvalidRequest):
        hierarchy.create(path, Resources(memory=Memory(limit=64 * MIB), cpu=Cpu(period=1, quota=1)))

    assert not [folder for folder in hierarchy.paths(path).values() if os.path.exists(folder)]


def test_a_group_in_use_is_a_conflict_and_an_empty_leftover_is_not(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources(pids=Pids(limit=5)))
    assert hierarchy.create(path, Resources()).stats().pids_limit == -1
    process = joined(group, "sleep", "1000")
    with pytest.raises(Conflict):
        hierarchy.create(path, Resources())
    assert group.pids() == [process.pid]
    group.kill()
    process.wait(10)


def test_a_parent_that_its_maker_did_not_live_to_fill_takes_processes(hierarchy: Hierarchy, path: str) -> None:
    for folder in hierarchy.paths(path).values():
        os.makedirs(os.path.dirname(folder))  # a v1 cpuset is empty at first
    group = hierarchy.create(path, Resources())
    process = joined(group, "true")
    assert process.wait() == 0


def test_an_update_is_all_or_nothing(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources(memory=Memory(limit=64 * MIB), pids=Pids(limit=17), cpu=Cpu(shares=512)))
    update(group, Resources(memory=Memory(limit=32 * MIB, swap=48 * MIB), pids=Pids(limit=-1)))
    assert (group.stats().memory_limit, group.stats().pids_limit) == (32 * MIB, -1)

    with pytest.raises(SampanError):
        update(group, Resources(memory=Memory(limit=16 * MIB, swap=16 * MIB), pids=Pids(limit=5), cpu=Cpu(cpus="4000-4001")))

    assert (group.stats().memory_limit, group.stats().pids_limit) == (32 * MIB, -1)


def test_statistics_are_those_of_the_processes_inside(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources(memory=Memory(limit=64 * MIB)))
    joined(group, "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").wait(60)
    found = group.stats()

    assert found.version == hierarchy.version and found.cpu_total > 10**6 and found.cpu_user > 0
    assert ("total_inactive_file" if found.version == 1 else "inactive_file") in found.memory_stat
    assert group.exists() and not hierarchy.open(path + "x").exists() and hierarchy.open(path + "x").stats().version == 0


def test_running_out_of_memory_is_noticed_while_it_goes_on(hierarchy: Hierarchy, path: str) -> None:
    group = hierarchy.create(path, Resources(memory=Memory(limit=16 * MIB, swap=16 * MIB)))
    events = select.epoll()
    with group.oom_notice() as notice:
        events.register(notice.fileno(), select.EPOLLIN if hierarchy.version == 1 else select.EPOLLPRI)
        if hierarchy.version == 2:  # the first look is always news
            os.pread(notice.fileno(), 4096, 0)
        assert events.poll(0) == [] and not group.oom_killed()
        process = joined(group, "tail", "/dev/zero")
        assert events.poll(30)
        process.wait(30)
        assert process.returncode == -signal.SIGKILL and group.oom_killed()
    events.close()
