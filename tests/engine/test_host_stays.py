"""What neither a container nor the death of its runtime does to the host (SECURITY.md rows 8-10, 17, 88, 89, 101, P7)."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.holds import Holds, children, descendants, nothing_more_than

LONG = bool(os.environ.get("SAMPAN_TEST_LONG"))
HOST = "HostConfig"


def mounts(daemon: Daemon) -> list[str]:
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" ", 4)[4] for line in table if str(daemon.work) in line]


def started(daemon: Daemon, *command: str, **body: object) -> str:
    container = daemon.create(*command, **body)
    daemon.ok("POST", f"/containers/{container}/start")
    return container


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_row_8_a_runtime_that_is_killed_at_any_moment_leaves_no_mount(daemon: Daemon) -> None:
    daemon.run("true")
    before, shown, dice = Holds.now(daemon), mounts(daemon), random.Random(8)
    ends = {True: 0, False: 0}
    with ThreadPoolExecutor(1) as pool:
        for _ in range(200 if LONG else 25):
            container = daemon.create("sleep", "100")
            asked = pool.submit(daemon.call, "POST", f"/containers/{container}/start")
            time.sleep(dice.random() * 0.02)  # the moment is what is varied
            runtime = [pid for spawner in children(daemon.pid) for pid in descendants(spawner)]
            if runtime:
                try:
                    os.kill(dice.choice(runtime), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            answer = asked.result()
            ends[answer.status == 204] += 1
            assert answer.status == 204 or len(answer.json["message"]) > 10, answer
            daemon.ok("DELETE", f"/containers/{container}?force=1")
            assert mounts(daemon) == shown
    assert daemon.run("echo", "fine") == (0, b"fine\n")
    nothing_more_than(daemon, before)


@pytest.mark.parametrize("mode", ["private", "host"])
@pytest.mark.parametrize("users", ["", "host"])
def test_row_9_control_groups_are_read_only_in_any_namespace(daemon: Daemon, mode: str, users: str) -> None:
    script = (
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/sampan-x 2>/dev/null && echo made $d; done; "
        "mkdir /sys/fs/cgroup/pids/x || mkdir /sys/fs/cgroup/x"
    )
    _, output = daemon.run("sh", "-c", script, **{HOST: {"CgroupnsMode": mode, "UsernsMode": users}})

    assert b"made" not in output and b"Read-only file system" in output, output


@pytest.mark.parametrize("users", ["", "host"])
def test_row_10_no_release_agent_can_be_set(daemon: Daemon, users: str) -> None:
    script = (
        "unshare -UrmC true && echo unshared; unshare -Ur true && echo users; "
        "mkdir /m; mount -t cgroup -o memory none /m && echo mounted; mount -t cgroup -o rdma none /m && echo mounted; "
        "find /sys/fs/cgroup /m -name release_agent | while read f; do echo /x > $f && echo set $f; done; "
        "mount -o remount,rw /sys/fs/cgroup && echo remounted; true"
    )
    _, output = daemon.run("sh", "-c", script, **{HOST: {"UsernsMode": users}})

    assert b"not permitted" in output
    assert not any(word in output for word in (b"unshared", b"users\n", b"mounted", b"set /")), output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_row_17_no_working_directory_is_a_descriptor_of_the_engine(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "CANARY").write_text("of-the-host")
    box = started(daemon, "sleep", "600")
    for number in range(3, 129):
        place = f"/proc/self/fd/{number}"
        name = daemon.ok("POST", f"/containers/{box}/exec", {"Cmd": ["pwd"], "WorkingDir": place})["Id"]
        answer = daemon.call("POST", f"/exec/{name}/start", {"Detach": False})
        assert answer.status >= 400 or b"/" not in answer.body.replace(place.encode(), b"").split(b"\n")[0], (place, answer)
        if number % (1 if LONG else 8) == 3:
            container = daemon.create("pwd", WorkingDir=place)
            refused = daemon.call("POST", f"/containers/{container}/start")
            assert refused.status == 400, (place, refused)


def test_row_88_another_user_of_the_host_gets_nowhere(daemon: Daemon) -> None:
    for place in (daemon.data_root, daemon.exec_root):
        assert place.stat().st_uid == 0 and place.stat().st_mode & 0o066 == 0, oct(place.stat().st_mode)
    assert below_as(65534, daemon) == []


def test_row_89_the_containers_root_is_nobody_to_the_engines_files(daemon: Daemon) -> None:
    box = started(daemon, "sleep", "600")
    pid = daemon.ok("GET", f"/containers/{box}/json")["State"]["Pid"]
    mapped = int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])

    assert mapped >= 1 << 16
    assert below_as(mapped, daemon) == []
    for folder, names, files in os.walk(daemon.data_root):
        names[:] = [name for name in names if name not in ("layers", "_data")]  # what is containers' own
        for name in (*names, *files):
            found = os.lstat(f"{folder}/{name}")
            assert found.st_uid == 0 and not (found.st_mode & 0o022 and not os.path.islink(f"{folder}/{name}")), f"{folder}/{name}"


def below_as(user: int, daemon: Daemon) -> list[str]:
    """Return what a process of that user, in the host's own namespaces, can list, read or make below the daemon's roots."""
    reading, writing = os.pipe()
    daemon.work.chmod(0o755)  # nothing but the roots' own modes shall protect them
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            for place, what in (
                *((place, os.listdir) for place in (daemon.data_root, daemon.exec_root, daemon.exec_root / "containers")),
                *((place / "x", os.mkdir) for place in (daemon.data_root, daemon.exec_root, daemon.exec_root / "containers")),
                (daemon.data_root / "state.db", lambda file: os.open(file, os.O_RDONLY)),
            ):
                try:
                    what(place)
                except PermissionError:
                    continue
                os.write(writing, f"{place}\n".encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as told:
        found = told.read().splitlines()
    assert os.waitpid(pid, 0)[1] == 0
    daemon.work.chmod(0o700)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_row_101_every_thread_of_every_process_is_filtered_at_every_start(daemon: Daemon) -> None:
    """The threads that a program makes have it too: tests/kernel/test_launch_inside.py."""
    for number in range(100 if LONG else 15):
        box = started(daemon, "sh", "-c", "sleep 99 & sleep 99 & wait", **{HOST: {"Init": number % 2 == 0}})
        pid = daemon.ok("GET", f"/containers/{box}/json")["State"]["Pid"]
        name = daemon.ok("POST", f"/containers/{box}/exec", {"Cmd": ["sleep", "99"]})["Id"]
        daemon.ok("POST", f"/exec/{name}/start", {"Detach": True})
        execed = daemon.ok("GET", f"/exec/{name}/json")["Pid"]
        for one in {pid, execed, *descendants(pid)}:
            for thread in Path(f"/proc/{one}/task").glob("*/status"):
                status = thread.read_text()
                assert "\nSeccomp:\t2\n" in status and "\nCapInh:\t0000000000000000\n" in status, (number, status)
        daemon.ok("DELETE", f"/containers/{box}?force=1")


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(7200 if LONG else 300)
def test_p7_64_clients_at_once_meet_no_start_that_hangs(daemon: Daemon) -> None:
    """SAMPAN_TEST_P7 runs each client so often (SECURITY.md asks for 1000); 4 else."""
    rounds = int(os.environ.get("SAMPAN_TEST_P7", "4"))

    def client(number: int) -> list[int]:
        return [run(daemon, number) for _ in range(rounds)]

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda number: run(daemon, number), range(64)))  # the daemon's pool has its threads now
        before = Holds.now(daemon)
        codes = [code for made in pool.map(client, range(64)) for code in made]
    assert codes == [number % 7 for number in range(64) for _ in range(rounds)]
    nothing_more_than(daemon, before)


def run(daemon: Daemon, number: int) -> int:
    """One container to its end; every step is answered within a minute, which is the requests' limit."""
    container = started(daemon, "sh", "-c", f"exit {number % 7}")
    code = int(daemon.ok("POST", f"/containers/{container}/wait")["StatusCode"])
    daemon.ok("DELETE", f"/containers/{container}")
    return code
