"""Control groups without a kernel: paths, plans, the device program judged by an interpreter."""

from __future__ import annotations

import struct

import pytest

from sampan.cgroups import Hierarchy, checked_path
from sampan.cgroups.plan import device_line, plan_v1, plan_v2, weight_of_shares
from sampan.errors import InvalidRequest, Unsupported
from sampan.kernel import bpf
from sampan.oci.runtime import BlockIo, Cpu, DeviceRule, Memory, Pids, Resources, ThrottleDevice


@pytest.mark.parametrize(
    "path", ["", "/", "..", "/sampan/..", "../../system.slice", "/a/../b", "./a", "a/\nb", "a\0", "x" * 256, "a/" * 40]
)
def test_row_105_a_path_that_leaves_the_hierarchy_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest):
        checked_path(path)


@pytest.mark.parametrize("path", ["/sampan", "/sampan2/x", "/other/sampan/x"])
def test_row_105_a_path_beside_its_parent_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest):
        checked_path(path, beneath="/sampan")


def test_row_105_a_path_is_normalised() -> None:
    assert checked_path("//sampan///x/", beneath="sampan") == "sampan/x"


V1 = """31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
37 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
"""
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


def test_v1_is_used_where_both_exist() -> None:
    found = Hierarchy.detect(V1 + UNIFIED)

    assert found.version == 1
    assert found.paths("a/b")["cpu"] == found.paths("a/b")["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct/a/b"
    assert found.paths("a/b")["name=systemd"] == "/sys/fs/cgroup/systemd/a/b"


def test_v2_is_used_alone_and_nothing_at_all_is_unsupported() -> None:
    assert Hierarchy.detect(UNIFIED) == Hierarchy(2, {"": "/sys/fs/cgroup/unified"})
    with pytest.raises(Unsupported):
        Hierarchy.detect("")


def test_v1_limits_are_v1_files() -> None:
    plan = plan_v1(
        Resources(
            memory=Memory(limit=64, swap=128, reservation=32, swappiness=0),
            cpu=Cpu(shares=512, quota=50000, period=100000, cpus="0-1", mems="0"),
            pids=Pids(limit=-1),
            block_io=BlockIo(weight=100, throttle_read_bps_device=(ThrottleDevice(major=8, minor=0, rate=1000),)),
            devices=(DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=1, minor=3, access="rw")),
        )
    )

    assert plan.memory == (64, 128)
    assert plan.writes == [
        ("memory", "memory.soft_limit_in_bytes", "32"),
        ("cpu", "cpu.shares", "512"), ("cpu", "cpu.cfs_period_us", "100000"), ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpuset", "cpuset.cpus", "0-1"), ("cpuset", "cpuset.mems", "0"), ("pids", "pids.max", "max"),
        ("blkio", "blkio.throttle.read_bps_device", "8:0 1000"),
        ("devices", "devices.deny", "a"), ("devices", "devices.allow", "c 1:3 rw"),
    ]  # fmt: skip
    assert [name for _, name, _, _ in plan.optional] == ["memory.swappiness", "blkio.bfq.weight"]


def test_v2_limits_are_v2_files_and_swap_is_without_memory() -> None:
    plan = plan_v2(
        Resources(
            memory=Memory(limit=64, swap=96, reservation=32, kernel=1, swappiness=60, disable_oom_killer=True),
            cpu=Cpu(shares=1024, quota=-1),
            pids=Pids(limit=7),
            block_io=BlockIo(weight=500, throttle_write_iops_device=(ThrottleDevice(major=8, minor=0, rate=9),)),
        )
    )

    assert plan.writes == [
        ("memory", "memory.max", "64"), ("memory", "memory.low", "32"), ("cpu", "cpu.weight", "100"),
        ("cpu", "cpu.max", "max 100000"), ("pids", "pids.max", "7"), ("io", "io.max", "8:0 wiops=9"),
    ]  # fmt: skip
    assert [(name, value) for _, name, value, _ in plan.optional] == [("memory.swap.max", "32"), ("io.weight", "default 4950")]
    assert len(plan.warnings) == 3


@pytest.mark.parametrize("shares, weight", [(2, 1), (1024, 100), (262144, 10000), (0, 1), (10**9, 10000)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


@pytest.mark.parametrize(
    "resources",
    [
        Resources(memory=Memory(limit=100, swap=50)),
        Resources(memory=Memory(limit=-5)),
        Resources(memory=Memory(swap=50)),
        Resources(cpu=Cpu(cpus="0-1\n")),
        Resources(cpu=Cpu(mems="x")),
    ],
)
def test_limits_that_contradict_themselves_are_refused(resources: Resources) -> None:
    for plan in (plan_v1, plan_v2):
        with pytest.raises(InvalidRequest):
            plan(resources)


def test_malformed_device_rules_are_refused() -> None:
    for rule in (
        DeviceRule(allow=True, type="x"), DeviceRule(allow=True, type="c", access="rx"), DeviceRule(allow=True, access=""),
        DeviceRule(allow=True, type="a", major=1),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest):
            device_line(rule)
    for rule in (
        DeviceRule(allow=True, type="x"),
        DeviceRule(allow=True, type="c", access=""),
        DeviceRule(allow=True, type="c", major=2**31),
    ):
        with pytest.raises(ValueError, match="bad device"):
            bpf.device_program([rule])


def judge(program: bytes, kind: int, major: int, minor: int, access: int) -> bool:
    """Run the device program as the kernel would."""
    registers = [0] * 11
    context = {0: access << 16 | kind, 4: major, 8: minor}
    code = list(struct.iter_unpack("=BBhi", program))
    place = 0
    while True:
        operation, both, offset, value = code[place]
        to, source = both & 15, both >> 4
        place += 1
        if operation == 0x95:
            return registers[0] != 0
        if operation == 0x61:
            registers[to] = context[offset]
        elif operation == 0xBF:
            registers[to] = registers[source]
        elif operation == 0xB7:
            registers[to] = value
        elif operation == 0x77:
            registers[to] >>= value
        elif operation == 0x57:
            registers[to] &= value
        elif operation == 0x55:
            place += offset if registers[to] != value else 0
        elif operation == 0x15:
            place += offset if registers[to] == value else 0
        else:
            raise AssertionError(hex(operation))


BLOCK, CHAR, MKNOD, READ, WRITE = 1, 2, 1, 2, 4
DOCKERS = [
    DeviceRule(allow=False),
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    DeviceRule(allow=True, type="c", major=1, minor=3),
    DeviceRule(allow=True, type="c", major=136),
    DeviceRule(allow=False, type="c", major=10, minor=229, access="rw"),
]


@pytest.mark.parametrize(
    "kind, major, minor, access, allowed",
    [
        (CHAR, 1, 3, READ | WRITE, True), (CHAR, 1, 1, READ, False), (CHAR, 1, 1, MKNOD, True), (BLOCK, 8, 0, READ, False),
        (BLOCK, 8, 0, MKNOD, True), (BLOCK, 8, 0, MKNOD | READ, False), (CHAR, 136, 77, WRITE, True),
        (CHAR, 10, 229, READ, False), (CHAR, 10, 229, MKNOD, True), (CHAR, 10, 200, WRITE, False), (BLOCK, 1, 3, READ, False),
    ],
)  # fmt: skip
def test_row_103_the_device_program_decides_as_the_rules_say(kind: int, major: int, minor: int, access: int, allowed: bool) -> None:
    assert judge(bpf.device_program(DOCKERS), kind, major, minor, access) is allowed


def test_row_103_no_rule_at_all_refuses_and_the_last_match_wins() -> None:
    assert not judge(bpf.device_program([]), CHAR, 1, 3, READ)
    everything = [*DOCKERS, DeviceRule(allow=True)]
    assert judge(bpf.device_program(everything), BLOCK, 8, 0, READ | WRITE | MKNOD)
    assert not judge(
        bpf.device_program([*everything, DeviceRule(allow=False, type="b", major=8, access="w")]), BLOCK, 8, 0, READ | WRITE
    )


def test_p21_kernel_structures_have_the_kernels_sizes() -> None:
    import ctypes

    from sampan.kernel import caps

    sizes = {bpf._Load: 72, bpf._Attach: 20, bpf._Query: 32, bpf._Info: 16, caps._Header: 8, caps._Data: 24}

    assert {kind: ctypes.sizeof(kind) for kind in sizes} == sizes
