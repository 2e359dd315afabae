"""The seccomp compiler, judged by an interpreter of the filters it makes."""

from __future__ import annotations

import errno
import json
import struct

import pytest

from sampan.errors import InvalidRequest, Unsupported
from sampan.kernel import seccomp
from sampan.kernel.caps import NAMES
from sampan.kernel.syscall_tables import TABLES
from sampan.oci.runtime import Seccomp, SyscallArgument, SyscallRule
from sampan.oci.seccomp_profile import default_profile, parse_profile

ALLOW, KILL = 0x7FFF0000, 0x80000000
X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


def run(program: bytes, number: int, *arguments: int, arch: int = X86_64) -> int:
    """Return what the filter says of a call, as the kernel would run it."""
    words = [number & 0xFFFFFFFF, arch, 0, 0]
    for argument in (*arguments, *(0,) * (6 - len(arguments))):
        words += [argument & 0xFFFFFFFF, argument >> 32 & 0xFFFFFFFF]
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = place = 0
    while True:
        operation, true, false, value = code[place]
        place += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            accumulator = words[value // 4]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            place += value
        else:
            taken = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[operation]
            place += true if taken else false


DEFAULT = seccomp.compile(default_profile(["CAP_CHOWN"], (6, 18), "x86_64"), "x86_64")
SYS = TABLES["SCMP_ARCH_X86_64"]


def one(rule: SyscallRule) -> bytes:
    return seccomp.compile(Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=(rule,)), "x86_64")


@pytest.mark.parametrize("arch_name, arch", [("SCMP_ARCH_X86_64", X86_64), ("SCMP_ARCH_X86", I386), ("SCMP_ARCH_X32", X86_64)])
def test_rows_97_98_sockets_of_alg_and_vsock_are_refused_in_every_abi(arch_name: str, arch: int) -> None:
    number = TABLES[arch_name]["socket"]
    for family in (38, 40, 46, 0xFFFFFFFF, 38 | 1 << 32, 40 | 1 << 32, 40 | 1 << 63):
        assert run(DEFAULT, number, family, 1, 0, arch=arch) == EPERM, family
    for family in (1, 2, 10, 16, 17, 39, 44):
        assert run(DEFAULT, number, family, 1, 0, arch=arch) == ALLOW, family


def test_row_98_dockers_own_three_rules_do_not_let_the_high_word_through() -> None:
    rules = [(38, "SCMP_CMP_LT"), (39, "SCMP_CMP_EQ"), (40, "SCMP_CMP_GT")]
    program = seccomp.compile(
        Seccomp(
            default_action="SCMP_ACT_ERRNO",
            syscalls=tuple(
                SyscallRule(names=("socket",), action="SCMP_ACT_ALLOW", args=(SyscallArgument(index=0, value=v, op=op),))
                for v, op in rules
            ),
        ),
        "x86_64",
    )

    assert run(program, 41, 40 | 1 << 32) == EPERM
    assert run(program, 41, 38 | 1 << 32) == EPERM
    assert run(program, 41, 2) == ALLOW


def test_row_99_an_unknown_architecture_kills_the_process() -> None:
    assert run(DEFAULT, 0, arch=0x12345678) == KILL
    assert run(DEFAULT, 0, arch=AARCH64) == KILL


def test_row_99_the_same_call_gets_the_same_verdict_in_every_abi() -> None:
    for name in ("keyctl", "bpf", "io_uring_setup", "userfaultfd", "mount", "unshare", "read", "openat"):
        expected = run(DEFAULT, SYS[name])
        assert run(DEFAULT, TABLES["SCMP_ARCH_X32"][name]) == expected, name
        assert run(DEFAULT, TABLES["SCMP_ARCH_X86"][name], arch=I386) == expected, name


def test_row_99_x32_is_enosys_where_the_profile_does_not_list_it() -> None:
    program = one(SyscallRule(names=("read",), action="SCMP_ACT_ALLOW"))

    assert run(program, 0) == ALLOW
    assert run(program, 0x40000000) == ENOSYS
    assert run(program, 3, arch=I386) == KILL


def test_row_100_unknown_and_newer_numbers_are_enosys() -> None:
    for number in (9999, 0xFFFFFFFF, 400, 600):
        assert run(DEFAULT, number) == ENOSYS, number
    assert run(DEFAULT, SYS["clone3"]) == ENOSYS


def test_row_102_dangerous_calls_are_refused() -> None:
    refused = (
        "io_uring_setup io_uring_enter io_uring_register userfaultfd bpf perf_event_open keyctl add_key request_key "
        "open_by_handle_at mount umount2 setns unshare pivot_root kexec_load init_module reboot swapon"
    )
    for name in refused.split():
        assert run(DEFAULT, SYS[name]) == EPERM, name


def test_clone_may_not_make_namespaces_without_sys_admin() -> None:
    for flag in (0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x02000000, 0x04000000, 0x08000000):
        assert run(DEFAULT, SYS["clone"], flag | 17) == EPERM
    assert run(DEFAULT, SYS["clone"], 0x3D0F00) == ALLOW


def test_capabilities_open_their_calls() -> None:
    program = seccomp.compile(default_profile(NAMES, (6, 18), "x86_64"), "x86_64")

    for name in ("mount", "clone3", "bpf", "open_by_handle_at", "reboot", "init_module"):
        assert run(program, SYS[name]) == ALLOW, name
    assert run(program, SYS["clone"], 0x10000000) == ALLOW
    assert run(program, SYS["keyctl"]) == EPERM


@pytest.mark.parametrize("op", ["EQ", "NE", "LT", "LE", "GT", "GE"])
def test_comparisons_are_right_on_both_words(op: str) -> None:
    import operator

    plain = {
        "EQ": operator.eq,
        "NE": operator.ne,
        "LT": operator.lt,
        "LE": operator.le,
        "GT": operator.gt,
        "GE": operator.ge,
    }
    edges = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 5 << 32 | 7, 5 << 32 | 8, 6 << 32, 2**64 - 1]
    for value in edges:
        argument = SyscallArgument(index=2, value=value, op=f"SCMP_CMP_{op}")
        program = one(SyscallRule(names=("write",), action="SCMP_ACT_ALLOW", args=(argument,)))
        for given in edges:
            assert (run(program, 1, 0, 0, given) == ALLOW) is plain[op](given, value), (given, value)


def test_masked_comparison_is_right_on_both_words() -> None:
    argument = SyscallArgument(index=1, value=0xF0_0000_000F, value_two=0x10_0000_0001, op="SCMP_CMP_MASKED_EQ")
    program = one(SyscallRule(names=("write",), action="SCMP_ACT_ALLOW", args=(argument,)))

    assert run(program, 1, 0, 0xFF1F_0000_00F1 & ~0xE0_0000_0000) == ALLOW
    assert run(program, 1, 0, 0x10_0000_0002) == EPERM
    assert run(program, 1, 0, 0x20_0000_0001) == EPERM


def test_of_the_rules_that_match_the_strictest_wins() -> None:
    setuid = SyscallArgument(index=1, value=0o4755, op="SCMP_CMP_EQ")
    both = Seccomp(
        default_action="SCMP_ACT_ALLOW",
        syscalls=(
            SyscallRule(names=("chmod",), action="SCMP_ACT_ALLOW"),
            SyscallRule(names=("chmod",), action="SCMP_ACT_ERRNO", errno_ret=13),
            SyscallRule(names=("chmod",), action="SCMP_ACT_KILL_PROCESS", args=(setuid,)),
        ),
    )  # fmt: skip
    program = seccomp.compile(both, "x86_64")

    assert run(program, SYS["chmod"], 0, 0o755) == 0x50000 | 13
    assert run(program, SYS["chmod"], 0, 0o4755) == KILL
    assert run(program, 9999) == ALLOW


def test_a_long_program_jumps_over_any_distance() -> None:
    rules = tuple(
        SyscallRule(names=(name,), action="SCMP_ACT_ERRNO", errno_ret=10 + i % 90,
                    args=(SyscallArgument(index=3, value=i + (i << 33), op="SCMP_CMP_EQ"),))
        for i, name in enumerate(list(SYS)[:300])
    )  # fmt: skip
    program = seccomp.compile(Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=rules), "x86_64")

    for i, name in enumerate(list(SYS)[:300]):
        assert run(program, SYS[name], 0, 0, 0, i + (i << 33)) == 0x50000 | 10 + i % 90
        assert run(program, SYS[name], 0, 0, 0, i + 1 + (i << 33)) == ALLOW


def test_the_default_profile_is_made_for_arm64_too() -> None:
    program = seccomp.compile(default_profile([], (6, 18), "aarch64"), "aarch64")

    assert run(program, TABLES["SCMP_ARCH_AARCH64"]["socket"], 40 | 1 << 32, arch=AARCH64) == EPERM
    assert run(program, TABLES["SCMP_ARCH_AARCH64"]["openat"], arch=AARCH64) == ALLOW
    assert run(program, TABLES["SCMP_ARCH_ARM"]["set_tls"], arch=0x40000028) == ALLOW
    assert run(program, 0, arch=X86_64) == KILL


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(Unsupported):
        seccomp.compile(Seccomp(default_action="SCMP_ACT_NOTIFY"), "x86_64")
    with pytest.raises(Unsupported):
        seccomp.compile(Seccomp(default_action="SCMP_ACT_ERRNO"), "riscv64")
    with pytest.raises(Unsupported):
        seccomp.compile(Seccomp(default_action="SCMP_ACT_ERRNO", flags=("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",)), "x86_64")


def parse(profile: object, capabilities: list[str] | None = None) -> Seccomp:
    return parse_profile(json.dumps(profile), capabilities or [], (5, 10), "x86_64")


def test_a_custom_profile_decides_its_conditions() -> None:
    rules = [
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
        {"name": "write", "action": "SCMP_ACT_ALLOW", "args": None, "comment": "", "includes": {}, "excludes": {}},
    ]
    arches = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    document = {"defaultAction": "SCMP_ACT_ERRNO", "archMap": arches, "syscalls": rules}

    assert [rule.names[0] for rule in parse(document).syscalls] == ["ptrace", "write"]
    assert [rule.names[0] for rule in parse(document, ["CAP_SYS_ADMIN"]).syscalls] == ["mount", "ptrace", "write"]
    assert parse(document).architectures == ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"defaultAction": 1}', '{"defaultAction": "SCMP_ACT_NICE"}', "[" * 100_000,
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"X"}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":4096}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":-1,"op":"SCMP_CMP_EQ"}]}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":0,"op":"LIKE"}]}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"name":"b","action":"SCMP_ACT_LOG"}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_LOG","includes":{"minKernel":"²"}}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}',
    ],
)  # fmt: skip
def test_a_malformed_profile_is_an_invalid_request(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_profile(text, [], (6, 1), "x86_64")
