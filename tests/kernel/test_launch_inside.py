"""What a container's root sees of the runtime that starts processes beside it: nothing (rows 16-28, 101; P1-P11)."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from pathlib import Path

import pytest
from inside import attacking, spy
from launching import MOUNTS, Box, Boxes, unframe
from rigged import rigged_boxes

from sampan import messages
from sampan.kernel.fds import Fd
from sampan.kernel.mount import Attr, clone_tree, set_attributes
from sampan.launch.client import start_spawner
from sampan.oci.runtime import Mount, Seccomp, SyscallRule
from support.holds import children

ROUNDS = 2000 if os.environ.get("SAMPAN_TEST_LONG") else 200
both = pytest.mark.parametrize("userns", [False, True], ids=["host-users", "userns"])


def execs(box: Box, rounds: int) -> None:
    for number in range(rounds):
        with box.exec("true", exec_id=f"e{number}", terminal=number % 8 == 0):
            box.hear(messages.ExecStarted)
            box.fds[0].close()
            box.hear(messages.ExecExited)


def fingerprints() -> dict[str, str]:
    """Return digests of the files that the runtime runs from: interpreter, libraries, Sampan."""
    with open("/proc/self/maps") as table:
        files = {line.split(None, 5)[5].strip() for line in table if "/" in line and "x" in line.split()[1]}  # code, no data
    files |= {str(path) for path in (Path(__file__).parents[2] / "src/sampan").rglob("*.py")}
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in files if Path(name).is_file()}


@pytest.mark.slow
@both
def test_p1_p2_p9_row_16_row_18_a_process_that_enters_cannot_be_looked_at(boxes: Boxes, userns: bool) -> None:
    before = fingerprints()
    box = boxes.start("sleep", "1000", userns=userns)
    with attacking(box.answer.pid, spy) as attack:
        execs(box, ROUNDS)
        found = attack.stop()
    assert found["hits"] == []
    assert found["denied"] > 0, found  # it did meet processes on their way in
    assert fingerprints() == before


@pytest.mark.slow
def test_p9_the_harness_sees_a_runtime_that_is_dumpable(tmp_path: Path) -> None:
    """The control: with PR_SET_DUMPABLE left on, the same attacker wins."""
    naive = (
        "from sampan.launch import init as _i, spawner as _s\nfrom sampan.runtime import identity as _d\n"
        "_real = _i.prctl\ndef _naive(option, *values):\n"
        " return _real(option, *((1,) if option == 4 else values))\n"
        "_i.prctl = _s.prctl = _d.prctl = _naive\n"
    )
    boxes, _ = rigged_boxes(tmp_path, naive)
    try:
        box = boxes.start("sleep", "1000")
        for _ in range(20):
            with attacking(box.answer.pid, spy) as attack:
                execs(box, 50)
                if attack.stop()["hits"]:
                    return
        pytest.fail("the harness never won")
    finally:
        boxes.close()


@both
def test_p2_p7_before_the_program_starts_nothing_of_the_host_is_mounted_and_one_thread_runs(boxes: Boxes, userns: bool) -> None:
    def look(_: Fd) -> None:
        (keeper,) = children(boxes.spawner.pid)
        while len(born := children(keeper)) > 1:
            pass  # the midwife leaves
        (pid,) = born
        mounts = Path(f"/proc/{pid}/mountinfo")
        while not in_root(shown := lines(mounts)):
            pass  # the root that it attaches, enters and is left alone in
        shown = [line.split()[4] for line in shown]
        assert not any(name.startswith(("/usr", "/lib", "/root")) for name in shown)
        for one in (pid, keeper, boxes.spawner.pid):
            assert os.listdir(f"/proc/{one}/task") == [str(one)]

    boxes.nursery.close()  # the one that is looked at is the only one
    assert boxes.start("true", userns=userns, meanwhile=look).exited().status == 0


def in_root(mountinfo: list[str]) -> bool:
    """Return whether the container's root file system is the only one at `/`: the host's is gone."""
    roots = [line.split()[3] for line in mountinfo if line.split()[4] == "/"]
    return len(roots) == 1 and roots[0].endswith("/rootfs")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_p10_descriptors_that_the_spawner_was_given_reach_no_container(tmp_path: Path) -> None:
    leaked = [os.open("/etc", os.O_RDONLY | os.O_DIRECTORY) for _ in range(50)]
    for fd in leaked:
        os.set_inheritable(fd, True)
    try:
        boxes = Boxes(tmp_path, start_spawner())
    finally:
        for fd in leaked:
            os.close(fd)
    try:
        script = "for n in $(seq 0 999); do test -e /proc/$$/fd/$n && echo $n; done"
        assert boxes.run(script)[1].split() == ["0", "1", "2"]
        box = boxes.start("sleep", "100")
        with box.exec("/bin/sh", "-c", script) as stream:
            box.hear(messages.ExecStarted)
            raw = b"".join(iter(lambda: stream.recv(65536), b""))
        assert unframe(raw).decode().split() == ["0", "1", "2"]
    finally:
        boxes.close()


def python_box(boxes: Boxes, script: str, **fields: object) -> str:
    """Run the host's Python inside, read-only, as a program that has threads and can make any call; return its output."""
    prefix = os.path.realpath(sys.base_prefix)
    places = [name for name in ("/usr", "/lib", "/lib64", prefix) if os.path.isdir(name)]
    places = [one for one in places if not any(one != other and one.startswith(f"{other}/") for other in places)]
    trees: list[Fd] = []
    mounts = list(MOUNTS)
    for number, name in enumerate(places):
        tree = clone_tree(os.path.realpath(name), recursive=True)
        set_attributes(tree, set_=Attr.RDONLY, recursive=True)
        trees.append(tree)
        mounts.append(Mount(destination=name, type="bind", tree=2 + number, options=("rbind", "rprivate", "ro")))
    program = os.path.realpath(sys.executable)
    box = boxes.start(program, "-I", "-c", script, mounts=tuple(mounts), trees=tuple(trees), **fields)  # type: ignore[arg-type]
    for tree in trees:
        tree.close()
    text = unframe(box.output()).decode()
    status = box.exited().status
    assert status == 0, text
    return text


THREADS = """
import os, threading
stay = threading.Event()
others = [threading.Thread(target=stay.wait) for _ in range(5)]
for one in others: one.start()
seen = set()
for tid in os.listdir("/proc/self/task"):
    with open(f"/proc/self/task/{tid}/status") as file:
        seen.add("".join(l for l in file if l.startswith(("Cap", "Seccomp:", "NoNewPrivs", "Uid", "Gid", "Groups"))))
stay.set()
print(len(os.listdir("/proc/self/task")), len(seen), seen.pop())
"""


@pytest.mark.slow
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_p11_row_101_every_thread_has_the_same_identity_and_the_filter(boxes: Boxes, no_new_privileges: bool) -> None:
    wanted = Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(SyscallRule(names=("mknod",), action="SCMP_ACT_ERRNO"),))
    for user, effective in (("", "00000000a80425fb"), ("ann", "0" * 16)) * 3:
        text = python_box(boxes, THREADS, user=user, linux={"seccomp": wanted}, process={"no_new_privileges": no_new_privileges})
        threads, kinds, status = text.split(" ", 2)
        assert int(threads) >= 1 and kinds == "1"
        assert "Seccomp:\t2" in status and f"CapEff:\t{effective}" in status and f"NoNewPrivs:\t{int(no_new_privileges)}" in status


KEYS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(250, 10, -3, b"user", b"sampan-canary", 0), ctypes.get_errno())
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="call numbers of x86-64")
def test_row_28_the_hosts_session_keyring_stays_outside(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()  # a session keyring of the test's own, inherited by the spawner
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    status = 1
    try:
        assert libc.syscall(250, 1, None) > 0  # KEYCTL_JOIN_SESSION_KEYRING
        assert libc.syscall(248, b"user", b"sampan-canary", b"secret", 6, -3) > 0
        assert libc.syscall(250, 10, -3, b"user", b"sampan-canary", 0) > 0  # the control: here it is found
        boxes = Boxes(tmp_path, start_spawner())
        try:
            for userns in (True, False):
                assert python_box(boxes, KEYS, userns=userns).split() == ["-1", "126"]  # ENOKEY
        finally:
            boxes.close()
        status = 0
    finally:
        os._exit(status)


def test_row_24_groups_are_set_by_the_one_who_may_and_a_nested_namespace_may_not(boxes: Boxes) -> None:
    assert boxes.run("cat /proc/self/setgroups; id -G", user="ann")[1].split("\n")[:2] == ["allow", "1001 10 29"]
    nested = boxes.run("unshare -U sh -c 'cat /proc/self/setgroups; echo 0 0 1 > /proc/self/gid_map'", user="ann")
    assert nested[1].splitlines()[0] in ("allow", "deny")
    assert "Operation not permitted" in nested[1]  # gid_map without setgroups=deny is the kernel's to refuse


def test_row_2_a_masked_file_is_not_the_hosts_device_to_change(boxes: Boxes) -> None:
    before = os.stat("/dev/null")
    _, text = boxes.run(
        "exec 2>&1; touch -d '2001-01-01 00:00' /proc/keys; chmod 666 /proc/keys; echo x > /proc/keys; cat /proc/keys", userns=False
    )
    after = os.stat("/dev/null")
    assert text.count("Read-only file system") == 2
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_row_6_row_35_a_link_put_in_a_new_nodes_place_is_not_followed(tmp_path: Path) -> None:
    """Whoever shares the folder of a `--device` may swap the node the moment it is there."""
    canary = tmp_path / "canary"
    canary.write_text("secret")
    canary.chmod(0o600)
    swap = (
        "_mknod = os.mknod\n"
        "def _swapping(name, mode, device, *, dir_fd):\n"
        " _mknod(name, mode, device, dir_fd=dir_fd)\n"
        f" os.unlink(name, dir_fd=dir_fd); os.symlink({str(canary)!r}, name, dir_fd=dir_fd)\n"
        "os.mknod = _swapping\n"
    )
    boxes, _ = rigged_boxes(tmp_path, swap)
    try:
        boxes.start("true", userns=False, expect=object)
        assert canary.stat().st_mode & 0o777 == 0o600 and canary.stat().st_uid == os.geteuid()
    finally:
        boxes.close()
