"""Containers from Launch to Exited, with and without a user namespace."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from launching import BASE, MOUNTS, Box, Boxes, identity_userns, unframe

from sampan import messages
from sampan.cgroups import Doors, Hierarchy
from sampan.errors import StepFailed, Unsupported
from sampan.kernel.calls import kernel_version
from sampan.kernel.fds import Fd, open_fd
from sampan.kernel.mount import Propagation, attach, clone_tree, new_mount, set_attributes, unmount
from sampan.kernel.process import PR, pidfd_open, prctl
from sampan.launch.client import connect, start_spawner
from sampan.launch.host import Host
from sampan.launch.namespaces import USUAL, Namespaces
from sampan.launch.nursery import Nursery
from sampan.launch.start import Started, _Start
from sampan.oci import defaults
from sampan.oci.runtime import Box as Size
from sampan.oci.runtime import (
    DeviceRule,
    Memory,
    Mount,
    Namespace,
    Pids,
    Resources,
    Rlimit,
    Root,
    Seccomp,
    SyscallRule,
)
from support.holds import descendants, left_below

both = pytest.mark.parametrize("userns", [False, True], ids=["host-users", "userns"])


@both
def test_output_and_exit_code_come_back(boxes: Boxes, userns: bool) -> None:
    assert boxes.run("echo out; sleep 0.02; echo err >&2; exit 3", userns=userns) == (3, "out\nerr\n")


def test_a_signal_is_128_and_its_number(boxes: Boxes) -> None:
    box = boxes.start("sleep", "100")
    box.control.send(messages.Signal(number=signal.SIGKILL))
    assert box.exited().status == 137


@both
def test_every_namespace_is_the_containers_own(boxes: Boxes, userns: bool) -> None:
    _, text = boxes.run("for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done", userns=userns)
    ours = {os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")}
    assert len(text.split()) == 7
    assert ours & set(text.split()) == (set() if userns else {os.readlink("/proc/self/ns/user")})


def test_the_id_map_is_the_one_asked_for(boxes: Boxes) -> None:
    assert boxes.run("cat /proc/self/uid_map")[1].split() == ["0", str(BASE), "65536"]


@both
def test_row_20_capabilities_are_exactly_the_set_and_none_is_inheritable(boxes: Boxes, userns: bool) -> None:
    _, text = boxes.run("grep Cap /proc/self/status", userns=userns)
    found = dict(line.split(":\t") for line in text.splitlines())
    mask = "00000000a80425fb"
    assert found == {"CapInh": "0" * 16, "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapAmb": "0" * 16}


def test_row_20_another_user_has_no_capability_but_the_bounding_set(boxes: Boxes) -> None:
    _, text = boxes.run("grep Cap /proc/self/status", user="1000")
    assert [line.split()[1] for line in text.splitlines()] == ["0" * 16] * 3 + ["00000000a80425fb"] + ["0" * 16]


@both
def test_p10_only_stdio_is_open(boxes: Boxes, userns: bool) -> None:
    _, text = boxes.run("for n in $(seq 0 99); do test -e /proc/$$/fd/$n && echo $n; done", userns=userns)
    assert text.split() == ["0", "1", "2"]


@both
def test_devices_are_the_right_ones(boxes: Boxes, userns: bool) -> None:
    names = "null zero full random urandom tty"
    _, text = boxes.run(f"cd /dev; stat -c '%n %t:%T %a' {names}; for n in ptmx fd stdin; do readlink $n; done", userns=userns)
    assert text.splitlines() == [
        "null 1:3 666", "zero 1:5 666", "full 1:7 666", "random 1:8 666", "urandom 1:9 666", "tty 5:0 666",
        "pts/ptmx", "/proc/self/fd", "/proc/self/fd/0",
    ]  # fmt: skip


@both
def test_row_2_masked_files_are_the_true_null_and_masked_folders_are_empty(boxes: Boxes, userns: bool) -> None:
    _, text = boxes.run(
        "exec 2>&1; stat -c '%n %t:%T' /proc/keys /proc/timer_list; ls /sys/firmware; touch /sys/firmware/x 2>&1; cat /proc/keys",
        userns=userns,
    )
    assert text.splitlines()[:2] == ["/proc/keys 1:3", "/proc/timer_list 1:3"]
    assert text.splitlines()[2:] == ["touch: /sys/firmware/x: Read-only file system"]


USUAL_PATHS = {"masked_paths": defaults.MASKED, "readonly_paths": defaults.READONLY}


def mounted(boxes: Boxes) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the mount points in the order of their making, and all that mountinfo says of them but numbers, by mount point."""
    status, text = boxes.run("cat /proc/self/mountinfo", linux=USUAL_PATHS)
    assert status == 0
    # An empty folder that covers another belongs to nobody's container when it was made ahead.
    lines = [line.replace(f",uid={BASE},gid={BASE}", "").split() for line in text.splitlines()]
    return [line[4] for line in lines], sorted((line[4], *line[3:4], *line[5:]) for line in lines)


def test_row_2_mounts_made_ahead_are_the_same_as_those_of_a_start_on_demand(boxes: Boxes) -> None:
    assert boxes.host.born_in_group or boxes.nursery._next is not None
    order, ahead = mounted(boxes)
    later_order, later = mounted(boxes)  # nobody has asked for another brood
    assert ahead == later
    if not boxes.host.born_in_group and kernel_version() >= (6, 8):  # listed by age
        assert order.index("/proc/keys") < order.index("/dev") < later_order.index("/proc/keys")


def test_row_2_a_mount_of_the_users_below_sys_is_masked_though_masks_were_made_ahead(boxes: Boxes) -> None:
    mounts = (*MOUNTS, Mount(destination="/sys/firmware", type="tmpfs"))
    status, text = boxes.run("touch /sys/firmware/x; ls /sys/firmware; test -e /proc/self/stat", linux=USUAL_PATHS, mounts=mounts)
    assert (status, "Read-only" in text) == (0, True)


@both
def test_row_2_read_only_paths_cannot_be_written(boxes: Boxes, userns: bool) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    _, text = boxes.run("echo x > /proc/sys/kernel/core_pattern; echo h > /proc/sysrq-trigger", userns=userns)
    assert text.count("Read-only file system") + text.count("nonexistent") == 2
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


@both
def test_row_13_nothing_of_the_host_is_mounted_and_a_chroot_leads_nowhere(boxes: Boxes, userns: bool) -> None:
    _, text = boxes.run("cat /proc/self/mountinfo; ls -a /", userns=userns)
    mounts = [line for line in text.splitlines() if " - " in line]
    assert [line.split()[4] for line in mounts].count("/") == 1
    assert ".pivot_root" not in text and "/work" not in text


def test_row_25_the_environment_is_the_configs_and_home(boxes: Boxes) -> None:
    _, text = boxes.run("cat /proc/1/environ | tr '\\0' '\\n'")
    assert text.split() == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]


def test_row_23_groups_are_exactly_those_asked_for(boxes: Boxes) -> None:
    assert boxes.run("id -u; id -g; id -G; echo $HOME", user="ann")[1].split("\n")[:-1] == [
        "1000",
        "1001",
        "1001 10 29",
        "/home/ann",
    ]
    assert boxes.run("id -G", user="ann:audio")[1].split() == ["29"]
    assert sorted(boxes.run("id -G", user="1000:1000", group_add=("wheel", "7"))[1].split()) == ["10", "1000", "7"]


@pytest.mark.parametrize("user", ["1:1:1", "4294967296", "2147483648", "99999999999", "\u0661", " 1", "nobody-here", "0x0", "+1"])
def test_row_22_a_user_that_means_nothing_is_refused(boxes: Boxes, user: str) -> None:
    box = boxes.start("id", user=user, expect=StepFailed)
    assert box.answer.step == "user"


def test_an_unknown_user_is_refused_in_dockers_words(boxes: Boxes) -> None:
    failed = boxes.start("id", user="bob", expect=StepFailed).answer
    assert failed.text == "unable to find user bob: no matching entries in passwd file"


@pytest.mark.parametrize(
    ("program", "text"),
    [("nope", 'exec: "nope": executable file not found in $PATH'), ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
     ("/nope", 'exec: "/nope": stat /nope: no such file or directory')],
)  # fmt: skip
def test_a_missing_program_fails_in_dockers_words_and_leaves_nothing(boxes: Boxes, program: str, text: str) -> None:
    box = boxes.start(program, expect=StepFailed)
    assert (box.answer.step, box.answer.text) == ("exec", text)
    assert list(box.state.iterdir()) == []
    assert not left_below(boxes.spawner.pid)


@pytest.mark.parametrize("way", ["/proc/self/exe", "/magic"])
def test_row_16_the_entrypoint_cannot_be_the_interpreter(boxes: Boxes, way: str) -> None:
    (boxes.rootfs / "magic").symlink_to("/proc/self/exe")
    assert boxes.start(way, "-c", "print(1)", expect=StepFailed).answer.step == "exec"


def test_p3_a_script_cannot_run_the_interpreter(boxes: Boxes) -> None:
    (boxes.rootfs / "script").write_text("#!/proc/self/exe\nprint(1)\n")
    (boxes.rootfs / "script").chmod(0o755)
    assert boxes.start("/script", expect=StepFailed).answer.step == "exec"


def test_row_17_a_working_directory_cannot_be_a_descriptor_of_the_host(boxes: Boxes) -> None:
    (boxes.rootfs / "way-out").symlink_to("/proc/self/fd/4")
    for cwd in [*(f"/proc/self/fd/{n}" for n in range(3, 16)), "/way-out", "/proc/1/cwd", "/proc/self/root"]:
        box = boxes.start("pwd", process={"cwd": cwd}, expect=StepFailed)
        assert box.answer.step == "cwd"


def test_a_missing_working_directory_is_made(boxes: Boxes) -> None:
    assert boxes.run("pwd; stat -c %a:%u .", process={"cwd": "/a/b"}) == (0, "/a/b\n755:0\n")


def test_row_5_a_symlinked_proc_is_refused(boxes: Boxes) -> None:
    (boxes.rootfs / "proc").rmdir()
    (boxes.rootfs / "proc").symlink_to("/tmp")
    assert boxes.start("true", expect=StepFailed).answer.step == "mount /proc"


def test_row_6_a_symlinked_dev_stays_inside(boxes: Boxes, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (boxes.rootfs / "dev").rmdir()
    (boxes.rootfs / "dev").symlink_to(f"../../../../../..{outside}")
    boxes.start("true", expect=StepFailed)
    assert list(outside.iterdir()) == []


def test_row_27_without_a_terminal_nothing_can_be_typed(boxes: Boxes) -> None:
    status, text = boxes.run("stty -F /dev/stdin 2>&1; tty; test -e /dev/console || echo none")
    assert (status, text.splitlines()[-2:]) == (0, ["not a tty", "none"])


@both
def test_row_3_a_terminal_is_the_containers_own(boxes: Boxes, userns: bool) -> None:
    status, text = boxes.run(
        "tty; stat -c %t /dev/console; stty size; stat -c %u /dev/pts/0; echo x > /dev/console",
        terminal=True,
        userns=userns,
        process={"console_size": Size(height=40, width=100)},
    )
    assert (status, text.split("\r\n")) == (0, ["/dev/pts/0", "88", "40 100", "0", "x", ""])


def test_a_terminal_can_be_resized(boxes: Boxes) -> None:
    box = boxes.start(
        "/bin/sh",
        "-c",
        "trap 'stty size; exit' WINCH; echo on; while :; do sleep 0.01; done",
        terminal=True,
        stdin=True,
    )
    assert box.stream is not None and box.stream.recv(100) == b"on\r\n"
    box.control.send(messages.Resize(height=33, width=99))
    assert box.output() == b"33 99\r\n"
    assert box.exited().status == 0


def test_input_reaches_the_program_and_half_close_ends_it(boxes: Boxes) -> None:
    box = boxes.start("cat", stdin=True)
    assert box.stream is not None
    data = os.urandom(3 << 20)
    got = b""
    box.stream.setblocking(False)
    left = memoryview(data)
    while True:
        readable, writable, _ = select.select([box.stream], [box.stream] if left else [], [], 10)
        assert readable or writable
        if writable:
            left = left[box.stream.send(left[:65536]) :]
            if not left:
                box.stream.shutdown(1)
        if readable:
            chunk = box.stream.recv(1 << 16)
            if not chunk:
                break
            got += chunk
    assert unframe(got) == data
    assert box.exited().status == 0


def test_a_slow_client_loses_nothing(boxes: Boxes) -> None:
    box = boxes.start("/bin/sh", "-c", "dd if=/dev/zero bs=65536 count=80 2>/dev/null")
    assert len(unframe(box.output())) == 80 * 65536


def test_a_client_that_has_gone_does_not_hold_the_program_up(boxes: Boxes) -> None:
    box = boxes.start("/bin/sh", "-c", "dd if=/dev/zero bs=65536 count=80 2>/dev/null; exit 4")
    assert box.stream is not None
    box.stream.close()
    assert box.exited().status == 4


def test_the_exit_is_left_in_a_file_when_no_daemon_listens(boxes: Boxes) -> None:
    box = boxes.start("/bin/sh", "-c", "read x; exit 5", stdin=True)
    box.control.close()
    assert box.stream is not None
    box.stream.sendall(b"\n")
    assert box.output() == b""
    boxes.wait_gone()
    found = json.loads((box.state / "exit").read_text())
    assert (found["status"], found["oom_killed"]) == (5, False)
    assert not (box.state / "keeper.sock").exists()


@pytest.mark.parametrize("recorded", [True, False])
def test_an_end_is_filed_only_while_no_daemon_has_recorded_it(boxes: Boxes, recorded: bool) -> None:
    box = boxes.start("/bin/sh", "-c", "exit 5")
    assert box.hear(messages.Exited).status == 5
    if recorded:
        box.control.send(messages.Release())
    box.control.close()  # whatever the keeper has not read yet
    boxes.wait_gone()
    assert (box.state / "exit").exists() is not recorded
    assert not (box.state / "keeper.sock").exists()


def test_a_later_daemon_finds_the_keeper_again(boxes: Boxes) -> None:
    box = boxes.start("/bin/sh", "-c", "read x; exit 6", stdin=True)
    box.control.close()
    box.control = connect(str(box.state))
    status = box.hear(messages.Status)
    assert (status.id, status.pid, status.exited) == (box.name, box.answer.pid, None)
    assert (box.state / "keeper.sock").stat().st_mode & 0o777 == 0o600
    box.fds[0].close()
    assert box.stream is not None
    box.stream.sendall(b"\n")
    assert box.exited().status == 6


@both
def test_an_exec_shares_everything_and_nothing_more(boxes: Boxes, userns: bool) -> None:
    box = boxes.start("sleep", "100", userns=userns)
    script = (
        "readlink /proc/1/ns/pid; readlink /proc/self/ns/pid; grep -E 'Cap(Inh|Eff)' /proc/self/status; "
        "for n in $(seq 0 99); do test -e /proc/$$/fd/$n && echo $n; done; hostname; cat /proc/self/cgroup > /dev/null; exit 9"
    )
    stream = box.exec("/bin/sh", "-c", script)
    started = box.hear(messages.ExecStarted)
    assert started.exec_id == "e1"
    raw = b""
    while data := stream.recv(65536):
        raw += data
    lines = unframe(raw).decode().splitlines()
    assert lines[0] == lines[1]
    assert lines[2:] == ["CapInh:\t" + "0" * 16, "CapEff:\t00000000a80425fb", "0", "1", "2", "box"]
    assert box.hear(messages.ExecExited) == messages.ExecExited(exec_id="e1", status=9)
    stream.close()


def test_an_exec_takes_input_user_and_terminal(boxes: Boxes) -> None:
    box = boxes.start("sleep", "100")
    with box.exec("/bin/sh", "-c", "cat; id -u; id -G", stdin=True, user="ann") as stream:
        box.hear(messages.ExecStarted)
        stream.sendall(b"typed\n")
        stream.shutdown(1)
        raw = b""
        while data := stream.recv(65536):
            raw += data
        assert unframe(raw) == b"typed\n1000\n1001 10 29\n"
        assert box.hear(messages.ExecExited).status == 0
    with box.exec("/bin/sh", "-c", "tty; stty size", terminal=True, exec_id="e2") as stream:
        box.hear(messages.ExecStarted)
        raw = b""
        while data := stream.recv(65536):
            raw += data
        assert raw.startswith(b"/dev/pts/0\r\n"), raw
        assert box.hear(messages.ExecExited).status == 0


def test_an_exec_that_cannot_start_says_why(boxes: Boxes) -> None:
    box = boxes.start("sleep", "100")
    with box.exec("nope"):
        failed = box.hear(messages.ExecFailed)
    assert (failed.step, failed.text) == ("exec", 'exec: "nope": executable file not found in $PATH')


def test_execs_end_with_the_container(boxes: Boxes) -> None:
    box = boxes.start("/bin/sh", "-c", "read x", stdin=True)
    with box.exec("sleep", "100"):
        box.hear(messages.ExecStarted)
        assert box.stream is not None
        box.stream.sendall(b"\n")
        assert box.hear(messages.ExecExited).status == 137
    assert box.exited().status == 0


def test_the_network_is_made_before_the_program_runs(boxes: Boxes) -> None:
    seen = []

    def connect(network: Fd) -> None:
        seen.append(os.fstat(network.fileno()).st_ino)

    box = boxes.start("readlink", "/proc/self/ns/net", meanwhile=connect)
    assert unframe(box.output()).decode().strip() == f"net:[{seen[0]}]"
    assert seen[0] != os.stat("/proc/self/ns/net").st_ino
    assert box.exited().status == 0


def test_a_start_whose_network_fails_leaves_nothing(boxes: Boxes) -> None:
    def connect(network: Fd) -> None:
        raise KeyError("no address")

    with pytest.raises(KeyError, match="no address"):
        boxes.start("true", meanwhile=connect)
    assert list(boxes.made[-1].state.iterdir()) == []
    assert not left_below(boxes.spawner.pid)


@pytest.mark.parametrize("made_ahead", [True, False])
def test_a_brood_that_was_killed_is_replaced(boxes: Boxes, made_ahead: bool) -> None:
    if made_ahead:
        boxes.nursery.fill()
    for pid in descendants(boxes.spawner.pid):
        os.kill(pid, signal.SIGKILL)
    assert boxes.run("exit 3")[0] == 3


def test_what_waits_keeps_no_file_system_busy(boxes: Boxes, tmp_path: Path) -> None:
    """The mounts of an init made ahead go with the host's."""
    if boxes.host.born_in_group:
        pytest.skip("nothing is made ahead on control groups v2")
    boxes.nursery.close()
    shared, inner = tmp_path / "shared", tmp_path / "shared/inner"
    shared.mkdir()
    with new_mount("tmpfs") as tree:
        attach(tree, str(shared))
        set_attributes(tree, propagation=Propagation.SHARED)
    try:
        inner.mkdir()
        with new_mount("tmpfs") as tree:
            attach(tree, str(inner))
        boxes.nursery.fill()
        deadline = time.monotonic() + 20
        while not any(" /proc/keys " in table and f" {inner} " in table for table in mount_tables(boxes.spawner.pid)):
            assert time.monotonic() < deadline, "no init with its masks"
            os.sched_yield()
        unmount(str(inner))
        assert not any(f" {inner} " in table for table in mount_tables(boxes.spawner.pid))
    finally:
        unmount(str(shared), detach=True)


def mount_tables(above: int) -> list[str]:
    return [Path(f"/proc/{pid}/mountinfo").read_text() for pid in descendants(above)]


def test_waiting_broods_leave_with_the_daemon(tmp_path: Path) -> None:
    spawner = start_spawner()
    host = Host.look()
    broods = [Nursery(spawner.breed, host).take(Namespaces(USUAL), Doors()) for _ in range(3)]
    assert {one.pid for one in broods} < descendants(spawner.pid)
    for one in broods:
        keeper = pidfd_open(one.keeper_pid)
        one.init.close()
        one.keeper.close()
        for pidfd in (one.pidfd, keeper):
            assert select.select([pidfd], [], [], 10)[0]
            pidfd.close()
    spawner.close()


def test_a_daemon_that_dies_before_it_has_handed_over_takes_the_program_with_it(boxes: Boxes) -> None:
    """What nobody was told of does not run on unseen."""
    boxes.nursery.close()  # a brood of this process's would be the child's as well
    child = os.fork()
    if child == 0:
        _Start._hand_over = lambda self, brood, started_at: os._exit(7)  # type: ignore[method-assign]  # the program runs by now
        boxes.start("sleep", "1000")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not left_below(boxes.spawner.pid)


def test_p17_a_mount_over_proc_is_refused(boxes: Boxes) -> None:
    for target in ("/proc", "/proc/self", "/proc/sys/kernel", "/"):
        box = boxes.start("true", mounts=(Mount(destination=target, type="tmpfs"),), expect=StepFailed)
        assert "cannot mount over" in box.answer.text


def test_row_11_only_namespaced_sysctls_are_set(boxes: Boxes) -> None:
    assert (
        boxes.run(
            "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start",
            linux={"sysctl": {"kernel.msgmax": "4096", "net.ipv4.ip_unprivileged_port_start": "0"}},
        )[1]
        == "4096\n0\n"
    )
    for key, value in (
        ("kernel.core_pattern", "x"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=x"),
        ("vm.swappiness", "1"),
    ):
        assert boxes.start("true", linux={"sysctl": {key: value}}, expect=StepFailed).answer.step == "sysctl"


def test_limits_that_the_host_refuses_are_warned_of(boxes: Boxes) -> None:
    box = boxes.start(
        "/bin/sh",
        "-c",
        "ulimit -n",
        process={"rlimits": (Rlimit(type="RLIMIT_NOFILE", soft=99, hard=100),), "oom_score_adj": 500},
    )
    assert unframe(box.output()) == b"99\n"
    assert box.answer.warnings == ()
    box.exited()


def test_the_root_can_be_read_only(boxes: Boxes) -> None:
    _, text = boxes.run("exec 2>&1; touch /x; touch /dev/shm/y && echo shm", root=Root(readonly=True))
    assert text == "touch: /x: Read-only file system\nshm\n"


def test_no_new_privileges_is_kept(boxes: Boxes) -> None:
    assert boxes.run("grep NoNew /proc/self/status", process={"no_new_privileges": True})[1].split()[1] == "1"
    assert boxes.run("grep NoNew /proc/self/status")[1].split()[1] == "0"


def test_stdout_can_be_opened_again_by_another_user(boxes: Boxes) -> None:
    assert boxes.run("echo again > /dev/stdout; umask", user="ann") == (0, "again\n0022\n")


def _volume(boxes: Boxes, name: str, *, userns: bool) -> Fd:
    """Return a detached copy of the folder `name` with what is mounted in it, as the engine hands volumes over."""
    place = boxes.place / name
    place.mkdir(exist_ok=True)
    tree = clone_tree(str(place))
    if userns:
        with identity_userns() as namespace:
            set_attributes(tree, userns=namespace)
    return tree


@both
def test_a_volume_is_mounted_and_belongs_to_the_containers_root(boxes: Boxes, userns: bool) -> None:
    mounts = (*MOUNTS, Mount(destination="/data/deep", type="bind", tree=2, options=("rbind", "rprivate")))
    with _volume(boxes, "volume", userns=userns) as tree:
        assert boxes.run("echo kept > /data/deep/f; stat -c %u /data/deep/f", userns=userns, mounts=mounts, trees=(tree,)) == (
            0,
            "0\n",
        )
    assert (boxes.place / "volume/f").read_text() == "kept\n"
    assert (boxes.place / "volume/f").stat().st_uid == 0


def test_row_12_a_read_only_volume_is_read_only_all_the_way_down(boxes: Boxes) -> None:
    mounts = (*MOUNTS, Mount(destination="/data", type="bind", tree=2, options=("rbind", "rro")))
    (boxes.place / "volume/sub").mkdir(parents=True)
    with new_mount("tmpfs") as inner:
        attach(inner, str(boxes.place / "volume/sub"))
    try:
        with clone_tree(str(boxes.place / "volume"), recursive=True) as tree:
            _, text = boxes.run("touch /data/x; touch /data/sub/x", userns=False, mounts=mounts, trees=(tree,))
    finally:
        unmount(str(boxes.place / "volume/sub"))
    assert text.count("Read-only file system") == 2


def test_row_1_a_mount_target_that_is_a_symbolic_link_stays_inside(boxes: Boxes, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (boxes.rootfs / "data").symlink_to(f"../../../../../../../..{outside}")
    mounts = (*MOUNTS, Mount(destination="/data/x", type="bind", tree=2, options=("rbind",)))
    with _volume(boxes, "volume", userns=True) as tree:
        boxes.start("true", mounts=mounts, trees=(tree,), expect=(StepFailed, Started))
    assert list(outside.iterdir()) == []  # row 7: nothing was made there either


@both
def test_a_network_namespace_is_joined(boxes: Boxes, userns: bool) -> None:
    first = boxes.start("sleep", "100", userns=userns)
    kinds = ["mount", "pid", "ipc", "uts", "cgroup"]
    namespaces = [Namespace(type=kind) for kind in kinds]
    joined = [open_fd(f"/proc/{first.answer.pid}/ns/net", os.O_RDONLY)]
    namespaces.append(Namespace(type="network", fd=2))
    if userns:
        joined.append(open_fd(f"/proc/{first.answer.pid}/ns/user", os.O_RDONLY))
        namespaces.append(Namespace(type="user", fd=3))
    code, text = boxes.run(
        "readlink /proc/self/ns/net; id -u; mount | grep -c sysfs",
        userns=userns,
        trees=tuple(joined),
        linux={"namespaces": tuple(namespaces)},
    )
    assert (code, text.split()) == (0, [os.readlink(f"/proc/{first.answer.pid}/ns/net"), "0", "1"])
    for fd in joined:
        fd.close()


@contextmanager
def pid_namespace_of(first: Box) -> Iterator[tuple[tuple[Fd, ...], tuple[Namespace, ...]]]:
    """What starts another container in the user and pid namespaces of `first`."""
    with (
        open_fd(f"/proc/{first.answer.pid}/ns/user", os.O_RDONLY) as user,
        open_fd(f"/proc/{first.answer.pid}/ns/pid", os.O_RDONLY) as pid,
    ):
        yield (
            (user, pid),
            (
                *(Namespace(type=kind) for kind in ("mount", "network", "ipc", "uts", "cgroup")),
                Namespace(type="user", fd=2),
                Namespace(type="pid", fd=3),
            ),
        )


def test_a_pid_namespace_is_joined(boxes: Boxes) -> None:
    first = boxes.start("sleep", "77")
    with pid_namespace_of(first) as (trees, namespaces):
        code, text = boxes.run("cat /proc/1/cmdline | tr '\\0' ' '", trees=trees, linux={"namespaces": namespaces})
    assert (code, text) == (0, "sleep 77 ")


def test_a_foreign_network_namespace_shows_the_hosts_sys_read_only(boxes: Boxes) -> None:
    namespaces = tuple(Namespace(type=kind) for kind in ("user", "mount", "pid", "ipc", "uts", "cgroup"))
    code, text = boxes.run("ls /sys/class >/dev/null && touch /sys/x; readlink /proc/self/ns/net", linux={"namespaces": namespaces})
    assert code == 0 and "Read-only" in text and os.readlink("/proc/self/ns/net") in text


def test_p4_python_finds_nothing_of_the_containers(boxes: Boxes) -> None:
    import sys

    for entry in [entry for entry in sys.path if entry.startswith("/")]:
        planted = boxes.rootfs / entry.lstrip("/")
        if not entry.endswith(".zip"):
            (planted / "encodings").mkdir(parents=True, exist_ok=True)
            for name in ("encodings/idna.py", "traceback.py", "linecache.py", "sampan.py", "pwd.py"):
                (planted / name).write_text("open('/CANARY_RAN', 'w')\n")
    boxes.run("true")
    boxes.start("nope", expect=StepFailed)
    boxes.start("true", user="nobody-here", expect=StepFailed)
    assert not (boxes.rootfs / "CANARY_RAN").exists()


def test_p9_the_init_cannot_be_looked_at_from_inside(boxes: Boxes) -> None:
    first = boxes.start("sleep", "100")
    seen = []

    def look(_: Fd) -> None:
        with first.exec(
            "/bin/sh",
            "-c",
            "for p in /proc/[0-9]*; do test $p = /proc/1 || test $p = /proc/$$ || "
            "{ ls $p/fd; cat $p/environ; readlink $p/exe; readlink $p/root; } 2>&1; done",
        ) as stream:
            first.hear(messages.ExecStarted)
            seen.append(unframe(b"".join(iter(lambda: stream.recv(65536), b""))).decode())
            first.hear(messages.ExecExited)

    with pid_namespace_of(first) as (trees, namespaces):
        boxes.start("true", trees=trees, linux={"namespaces": namespaces}, meanwhile=look)
    assert "python" not in seen[0] and "Permission denied" in seen[0]


def _filter() -> Seccomp:
    return Seccomp(
        default_action="SCMP_ACT_ALLOW", architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"),
        syscalls=(SyscallRule(names=("mkdir", "mkdirat"), action="SCMP_ACT_ERRNO", errno_ret=1),),
    )  # fmt: skip


@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_the_filter_holds_for_the_program_and_for_execs(boxes: Boxes, no_new_privileges: bool) -> None:
    script = "exec 2>&1; grep Seccomp: /proc/self/status; mkdir /made"
    wanted = ["Seccomp:\t2", "mkdir: can't create directory '/made': Operation not permitted"]
    fields = {"linux": {"seccomp": _filter()}, "process": {"no_new_privileges": no_new_privileges}}
    assert boxes.run(script, **fields)[1].splitlines() == wanted
    assert boxes.run(script, user="ann", **fields)[1].splitlines() == wanted
    box = boxes.start("sleep", "100", **fields)
    with box.exec("/bin/sh", "-c", script) as stream:
        box.hear(messages.ExecStarted)
        assert unframe(b"".join(iter(lambda: stream.recv(65536), b""))).decode().splitlines() == wanted


def test_p17_a_filter_that_cannot_be_made_is_an_error_and_an_empty_one_a_failed_start(boxes: Boxes) -> None:
    with pytest.raises(Unsupported, match="SCMP_ACT_WHATEVER"):
        boxes.filters.compiled(Seccomp(default_action="SCMP_ACT_WHATEVER"))
    profile = Seccomp(default_action="SCMP_ACT_ALLOW")
    with boxes.filters.compiled(profile) as program:
        os.ftruncate(program.fileno(), 0)
    answer = boxes.start("true", linux={"seccomp": profile}, expect=StepFailed).answer
    assert (answer.step, "empty" in answer.text) == ("seccomp", True)


def test_a_late_attachment_sees_what_comes_after_it(boxes: Boxes) -> None:
    box = boxes.start("/bin/sh", "-c", "read x; echo got $x", stdin=True)
    ours, theirs = socket.socketpair()
    with theirs:
        box.control.send(messages.Attach(attachment=messages.Attachment(fd=0, stdin=True)), [Fd(theirs.fileno())])
    with ours:
        ours.sendall(b"it\n")
        assert unframe(b"".join(iter(lambda: ours.recv(65536), b""))) == b"got it\n"
    assert unframe(box.output()) == b"got it\n"
    assert box.exited().status == 0


def test_a_client_that_left_while_the_program_does_not_read_costs_no_time(boxes: Boxes) -> None:
    box = boxes.start("sleep", "100", stdin=True)
    assert box.stream is not None
    box.stream.setblocking(False)
    try:
        while True:
            box.stream.send(b"x" * 65536)
    except BlockingIOError:
        box.stream.close()
    box.control.send(messages.Query())
    box.hear(messages.Status)
    ticks = [int(n) for n in Path(f"/proc/{box.answer.keeper_pid}/stat").read_text().split()[13:15]]
    select.select([], [], [], 0.2)
    after = [int(n) for n in Path(f"/proc/{box.answer.keeper_pid}/stat").read_text().split()[13:15]]
    assert sum(after) - sum(ticks) <= 2


def test_requests_that_make_no_sense_are_refused_and_change_nothing(boxes: Boxes) -> None:
    box = boxes.start("sleep", "100")
    box.control.send(messages.Signal(exec_id="none", number=9))
    assert box.hear(messages.Refused).request == "Signal"
    box.control.send(messages.Attach(attachment=messages.Attachment(fd=5)))
    assert box.hear(messages.Refused).request == "Attach"
    box.control.send(messages.Signal(number=999))
    box.hear(messages.Refused)
    box.control.send(messages.Query())
    assert box.hear(messages.Status).exited is None


def test_containers_outlive_the_spawner(boxes: Boxes) -> None:
    box = boxes.start("/bin/sh", "-c", "read x; exit 7", stdin=True)
    prctl(PR.SET_CHILD_SUBREAPER, 1)  # the keeper becomes ours, to be reaped at once
    try:
        boxes.spawner.close()
        assert box.stream is not None
        box.stream.sendall(b"\n")
        assert box.exited().status == 7
        assert os.waitpid(box.answer.keeper_pid, 0)[1] == 0
    finally:
        prctl(PR.SET_CHILD_SUBREAPER, 0)


def sockets_of(pid: int) -> set[str]:
    found = (os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())
    return {name for name in found if name.startswith("socket:")}


def test_an_end_that_comes_at_once_is_told_after_ready(boxes: Boxes) -> None:
    for _ in range(60):  # the starter and the keeper are two processes that speak on one socket
        assert boxes.start("true").exited().status == 0


def test_nothing_that_was_made_ahead_outlives_the_nursery() -> None:
    spawner = start_spawner()
    nursery = Nursery(spawner.breed, Host.look())
    nursery.fill()
    nursery.close()
    assert not left_below(spawner.pid)
    spawner.close()


def test_row_18_a_keeper_and_the_spawner_hold_no_more_than_they_need(boxes: Boxes) -> None:
    boxes.run("true")
    box = boxes.start("sleep", "100")
    deadline = time.monotonic() + 10
    # stdio, the daemon, and one brood made ahead with its pidfd; while a starter lives, its socket is watched too.
    while len(os.listdir(f"/proc/{boxes.spawner.pid}/fd")) > 6:
        assert time.monotonic() < deadline
        os.sched_yield()
    assert not sockets_of(box.answer.keeper_pid) & sockets_of(boxes.spawner.pid)
    for number in range(3):
        with box.exec("true", exec_id=f"e{number}"):
            box.hear(messages.ExecStarted)
            box.fds[0].close()
            box.hear(messages.ExecExited)
        box.control.send(messages.Query())
        box.hear(messages.Status)
        box.fds[0].close()
        if number == 0:
            held = len(os.listdir(f"/proc/{box.answer.keeper_pid}/fd"))
    assert len(os.listdir(f"/proc/{box.answer.keeper_pid}/fd")) == held


def test_p17_a_label_that_cannot_be_set_is_a_failed_start(boxes: Boxes) -> None:
    assert "AppArmor" in boxes.start("true", process={"apparmor_profile": "x"}, expect=StepFailed).answer.text


@pytest.mark.parametrize("terminal", [False, True])
def test_output_is_in_the_log_when_the_exit_is_told(boxes: Boxes, terminal: bool) -> None:
    folder = boxes.place / "logs"
    folder.mkdir()
    with open_fd(folder, os.O_RDONLY | os.O_DIRECTORY) as opened:
        box = boxes.start(
            "/bin/sh",
            "-c",
            "echo one; echo two >&2; printf three",
            terminal=terminal,
            trees=(opened,),
            log=messages.LogTarget(fd=2, name="x-json.log"),
        )
    box.hear(messages.Exited)
    found = [json.loads(line) for line in (folder / "x-json.log").read_text().splitlines()]
    end = "\r\n" if terminal else "\n"
    assert sorted(entry["log"] for entry in found) == sorted([f"one{end}", f"two{end}", "three"])
    assert {entry["stream"] for entry in found} == ({"stdout"} if terminal else {"stdout", "stderr"})


def test_the_control_group_limits_is_left_by_nobody_and_goes(boxes: Boxes) -> None:
    path = f"/sampan-test-{os.getpid()}/box"
    limits = Resources(
        pids=Pids(limit=20),
        memory=Memory(limit=64 << 20),
        devices=(DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=1, minor=3)),
    )
    box = boxes.start(
        "/bin/sh",
        "-c",
        "cat /proc/self/cgroup; read x",
        stdin=True,
        linux={"cgroups_path": path, "resources": limits},
    )
    with box.exec("/bin/sh", "-c", "cat /proc/1/cgroup; head -c1 /dev/zero") as stream:
        box.hear(messages.ExecStarted)
        text = unframe(b"".join(iter(lambda: stream.recv(65536), b""))).decode()
        box.hear(messages.ExecExited)
    assert path not in text and "Operation not permitted" in text  # the cgroup namespace hides the path
    group = Hierarchy.detect().open(path)
    assert box.answer.pid in group.pids()
    assert box.stream is not None
    box.stream.sendall(b"\n")
    assert path not in unframe(box.output()).decode()
    box.exited()
    boxes.wait_gone()
    assert not any(Path(folder).exists() for folder in group.paths.values())
    Hierarchy.detect().remove_empty(path.rpartition("/")[0])


def test_a_container_out_of_memory_says_so(boxes: Boxes) -> None:
    path = f"/sampan-test-{os.getpid()}/box"
    limits = Resources(memory=Memory(limit=8 << 20, swap=8 << 20))
    box = boxes.start("/bin/sh", "-c", "x=x; while :; do x=$x$x; done", linux={"cgroups_path": path, "resources": limits})
    found = box.hear(messages.Exited)
    assert (found.status, found.oom_killed) == (137, True)
    box.control.send(messages.Release())
    boxes.wait_gone()
    Hierarchy.detect().remove_empty(path.rpartition("/")[0])


def test_a_keeper_whose_daemon_hangs_up_over_an_answer_leaves_once_the_container_has_ended(boxes: Boxes) -> None:
    box = boxes.start("true")
    box.hear(messages.Exited)
    keeper = box.answer.keeper_pid
    with pidfd_open(keeper) as pidfd:
        os.kill(keeper, signal.SIGSTOP)
        box.control.send(messages.Signal(number=signal.SIGKILL))  # it crosses the end: the answer is Refused
        box.control.send(messages.Release())
        box.control.close()  # and nobody is there to hear it
        os.kill(keeper, signal.SIGCONT)
        assert select.select([pidfd], [], [], 10)[0], "the keeper stays, with its control group"


def test_a_keeper_that_leaves_late_takes_nothing_of_its_successors(boxes: Boxes) -> None:
    path = f"/smp-late-{os.getpid()}/box"
    hierarchy = Hierarchy.detect()
    box = boxes.start("true", linux={"cgroups_path": path})
    box.hear(messages.Exited)
    assert not any(os.path.exists(folder) for folder in hierarchy.paths(path).values())  # gone before the end is told

    group = hierarchy.create(path, Resources())
    os.unlink(box.state / "keeper.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as successor:
        successor.bind(str(box.state / "keeper.sock"))
        process = subprocess.Popen(["sleep", "100"], preexec_fn=lambda: group.add(os.getpid()))
        try:
            box.control.send(messages.Release())
            boxes.wait_gone()
            assert (box.state / "keeper.sock").exists()
            assert group.pids() == [process.pid] and process.poll() is None
        finally:
            process.kill()
            process.wait()
            group.remove()
            hierarchy.remove_empty(os.path.dirname(path))


def test_the_end_is_told_before_the_mounts_are_taken_apart(boxes: Boxes) -> None:
    """Unmounting writes the file system below back, which may take seconds; nobody waits for it."""
    box = boxes.start("/bin/sh", "-c", "exit 3")
    assert box.hear(messages.Exited).status == 3
    with pidfd_open(box.answer.keeper_pid) as keeper:
        held = [os.readlink(f"/proc/{box.answer.keeper_pid}/fd/{name}") for name in os.listdir(f"/proc/{box.answer.keeper_pid}/fd")]
        assert any(name.startswith("mnt:[") for name in held)
        box.control.send(messages.Release())
        assert select.select([keeper], [], [], 10)[0]
