"""The plan of a root file system: pure data, no root needed."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidRequest
from sampan.kernel.mount import Attr, Propagation
from sampan.oci.defaults import MASKED, PROC, READONLY, SYS
from sampan.oci.runtime import Linux, Mount, Process, Root, Spec
from sampan.runtime import plan as steps
from sampan.runtime.mount_options import parse
from sampan.runtime.sysctls import file_of

DEV = Mount(destination="/dev", type="tmpfs", options=("nosuid", "mode=755"))


def planned(*mounts: Mount, **fields: object) -> tuple[steps.Step, ...]:
    root = fields.pop("root", Root())
    terminal = bool(fields.pop("terminal", False))
    return steps.plan(
        Spec(process=Process(args=("x",), terminal=terminal), mounts=mounts, root=root, linux=Linux(**fields))  # type: ignore[arg-type]
    )


def test_mounts_come_in_the_order_of_the_list_and_the_pivot_last() -> None:
    found = planned(Mount(destination="/proc", type="proc"), Mount(destination="/data", type="bind", tree=4))
    assert [type(step) for step in found] == [steps.NewMount, steps.TreeMount, steps.Pivot]


def test_devices_links_and_console_are_made_only_in_a_dev_of_our_own() -> None:
    assert len([step for step in planned(DEV) if isinstance(step, steps.Node)]) == 6
    assert steps.Console() in planned(DEV, terminal=True)
    mine = planned(Mount(destination="/dev", type="bind", tree=3), terminal=True)
    assert [type(step) for step in mine] == [steps.TreeMount, steps.Pivot]


def test_masks_and_the_read_only_root_come_after_every_mount() -> None:
    found = planned(DEV, masked_paths=("/proc/keys",), readonly_paths=("/proc/sys",), root=Root(readonly=True))
    assert [type(step) for step in found][-4:] == [steps.ReadOnly, steps.Mask, steps.ReadOnlyRoot, steps.Pivot]


def usual(*mounts: Mount, **fields: object) -> bool:
    paths = {"masked_paths": MASKED, "readonly_paths": READONLY, **fields}
    return steps.as_usual(Spec(process=Process(args=("x",)), mounts=(PROC, SYS, *mounts), linux=Linux(**paths)))  # type: ignore[arg-type]


def test_only_what_nearly_all_want_is_taken_ready_made() -> None:
    cgroup = Mount(destination="/sys/fs/cgroup", type="cgroup", options=("ro",))
    assert usual(cgroup, DEV, Mount(destination="/data", type="bind", tree=4))
    assert not usual(masked_paths=()) and not usual(readonly_paths=READONLY[1:])
    assert not usual(Mount(destination="/sys/firmware", type="tmpfs"))  # the masks come after it
    assert not usual(Mount(destination="/proc/meminfo", type="bind", tree=3))
    assert not steps.as_usual(Spec(process=Process(args=("x",)), mounts=(PROC,), linux=Linux(masked_paths=MASKED)))
    spec = Spec(process=Process(args=("x",)), mounts=(PROC, DEV, SYS), linux=Linux(masked_paths=MASKED, readonly_paths=READONLY))
    found = steps.plan(spec, ready=True)
    assert [step for step in found if isinstance(step, steps.ReadyMount)] == [steps.ReadyMount("/proc"), steps.ReadyMount("/sys")]
    assert not any(isinstance(step, steps.Mask | steps.ReadOnly) for step in found)


@pytest.mark.parametrize("target", ["/proc", "/proc/", "//proc", "/proc/self", "/./proc/sys", "/"])
def test_row_5_a_user_mount_over_proc_is_refused(target: str) -> None:
    for mount in (Mount(destination=target, type="bind", tree=3), Mount(destination=target, type="tmpfs")):
        with pytest.raises(InvalidRequest, match="cannot mount over"):
            planned(mount)


def test_row_5_files_that_lxcfs_provides_are_allowed() -> None:
    assert planned(Mount(destination="/proc/meminfo", type="bind", tree=3))


@pytest.mark.parametrize("target", ["data", "/a/../b", "/a\0b", ""])
def test_a_target_that_is_no_plain_absolute_path_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequest):
        planned(Mount(destination=target, type="tmpfs"))


def test_an_unknown_file_system_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        planned(Mount(destination="/x", type="ext4", source="/dev/vda"))


def test_the_later_word_wins() -> None:
    assert parse(["noexec", "exec"]).set_ == Attr.NONE
    assert parse(["rw", "ro"]).readonly
    assert parse(["rro"]).recursive_set == Attr.RDONLY


def test_propagation_words_and_data_are_told_apart() -> None:
    found = parse(["rslave", "size=64k", "mode=1777", "nosuid"])
    assert (found.propagation, found.recursive_propagation) == (Propagation.SLAVE, True)
    assert found.data == {"size": "64k", "mode": "1777"}


@pytest.mark.parametrize("word", ["size=1,lowerdir=/", "a\nb"])
def test_a_word_cannot_smuggle_another(word: str) -> None:
    with pytest.raises(InvalidRequest):
        parse([word])


ALL = frozenset({"ipc", "network", "uts", "user"})


@pytest.mark.parametrize(
    ("key", "path"),
    [("net.ipv4.ip_forward", "net/ipv4/ip_forward"), ("kernel.msgmax", "kernel/msgmax"),
     ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter"), ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
     ("net.ipv4.conf.eth0/7.rp_filter", "net/ipv4/conf/eth0.7/rp_filter")],
)  # fmt: skip
def test_row_11_namespaced_sysctls_are_known(key: str, path: str) -> None:
    assert file_of(key, ALL) == path


@pytest.mark.parametrize(
    "key",
    ["kernel.core_pattern", "kernel.shm_rmid_forced=1+kernel.core_pattern", "net.ipv4/../../kernel.core_pattern", "net..x",
     "net/../kernel/core_pattern", "kernel.hostname", "vm.swappiness", "net", "", "kernel.msgmax\n", "n\u0435t.ipv4.ip_forward"],
)  # fmt: skip
def test_row_11_every_other_sysctl_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest):
        file_of(key, ALL)


def test_row_11_a_sysctl_of_a_shared_namespace_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="host network"):
        file_of("net.ipv4.ip_forward", {"ipc"})
