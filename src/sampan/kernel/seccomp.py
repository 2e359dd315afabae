"""Seccomp: an assembler of our own for the filters of containers, and the call that installs them.

Sources: seccomp(2), Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/{seccomp,audit,bpf_common}.h.
Why not libseccomp: docs/decisions/0001-seccomp.md.

What a compiled filter does, in this order:

    architecture unknown or not listed                  -> the process is killed
    x32 numbers (nr | 0x40000000), x32 not listed       -> ENOSYS
    number above the highest the profile names          -> ENOSYS, so that libc tries the older call (row 100)
    number of no system call known to us                -> ENOSYS
    else, of the rules that match                       -> the strictest; none: the default action

The numbers are found by a binary search over runs of equal verdicts: some eight jumps for any call.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence

from sampan.errors import InvalidRequest, Unsupported
from sampan.kernel.calls import MACHINE, bind
from sampan.kernel.syscall_tables import TABLES, X32_BIT
from sampan.oci.runtime import Seccomp, SyscallArgument, SyscallRule

_seccomp = bind("seccomp", ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)
_SET_MODE_FILTER = 1
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# AUDIT_ARCH_*, include/uapi/linux/audit.h: the ELF machine, 64-bit and little-endian flags.
_AUDIT = {
    "SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X32": 0xC000003E, "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_AARCH64": 0xC00000B7, "SCMP_ARCH_ARM": 0x40000028,
}  # fmt: skip
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_FAMILY = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}

# SECCOMP_RET_*; strictest first, as the kernel ranks them.
_ACTIONS = {
    "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_KILL": 0x00000000, "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
_KILL_PROCESS = 0x80000000
_ENOSYS = 0x00050000 | errno.ENOSYS
_LAX = (0x7FF00000, 0x7FFC0000, 0x7FFF0000)

# Arguments the kernel declares int or unsigned int: it looks at the low word only, so a comparison of 64 bits would let
# `40 | 1 << 32` through where 40 is refused (row 98).  Name -> indexes.
_INT_ARGUMENTS = {
    "socket": (0, 1, 2), "socketpair": (0, 1, 2), "personality": (0,), "ioctl": (0, 1), "fcntl": (0, 1), "prctl": (0,),
    "keyctl": (0,), "setns": (0, 1), "bpf": (0, 2), "seccomp": (0, 1), "futex": (1, 2), "kcmp": (0, 1, 2),
    "kill": (0, 1), "tkill": (0, 1), "tgkill": (0, 1, 2), "open": (1,), "openat": (0, 2), "setsockopt": (0, 1, 2),
    "getsockopt": (0, 1, 2), "madvise": (2,), "quotactl": (0,), "setpriority": (0, 1, 2),
}  # fmt: skip

# TSYNC has no second thread to reach; LOG only asks for audit lines; SPEC_ALLOW is the kernel's own default since 5.16.
_HARMLESS_FLAGS = frozenset(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "SPEC_ALLOW", "LOG"))

_LD, _JEQ, _JGT, _JGE, _JSET, _JA, _AND, _RET = 0x20, 0x15, 0x25, 0x35, 0x45, 0x05, 0x54, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_FILTER = struct.Struct("=HBBI")  # struct sock_filter, 8 bytes

Condition = tuple[SyscallArgument, bool]  # whether only the low word counts
Verdict = tuple[tuple[tuple[tuple[Condition, ...], int], ...], int]  # (conditions, action) in order, and what is left


class _Assembler:
    """Emits a program from its end: every jump goes to code already there, so distances are known."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []  # last instruction first
        self._returns: dict[int, int] = {}

    def _put(self, code: int, value: int, true: int = 0, false: int = 0) -> int:
        self._code.append((code, true, false, value))
        return len(self._code) - 1

    def give(self, value: int) -> int:
        """Return the place of a `return value`."""
        place = self._returns.get(value, -1)
        if place < 0 or len(self._code) - place > 200:
            place = self._returns[value] = self._put(_RET, value)
        return place

    def jump(self, code: int, value: int, true: int, false: int) -> int:
        """Compare the accumulator; go on at either place, through a long jump where it is too far for 8 bits."""
        for _ in range(2):
            here = len(self._code)
            if here - 1 - true > 254:
                true = self._put(_JA, here - 1 - true)
            here = len(self._code)
            if here - 1 - false > 254:
                false = self._put(_JA, here - 1 - false)
        here = len(self._code)
        return self._put(code, value, here - 1 - true, here - 1 - false)

    def then(self, code: int, value: int, following: int) -> int:
        """Put an instruction that runs into `following`."""
        if following != len(self._code) - 1:
            self._put(_JA, len(self._code) - 1 - following)
        return self._put(code, value)

    def finish(self, start: int) -> bytes:
        if start != len(self._code) - 1:
            self._put(_JA, len(self._code) - 1 - start)
        if len(self._code) > MAX_INSTRUCTIONS:
            raise InvalidRequest(f"seccomp profile makes {len(self._code)} instructions, at most {MAX_INSTRUCTIONS}")
        return b"".join(_FILTER.pack(*instruction) for instruction in reversed(self._code))


def compile(profile: Seccomp, machine: str = MACHINE) -> bytes:
    """Return the filter as an array of struct sock_filter.

    Raises Unsupported for a machine, an action or a flag Sampan has no filter for, InvalidRequest for a malformed rule.
    """
    if machine not in NATIVE:
        raise Unsupported(f"seccomp filters for {machine}")
    if unknown := set(profile.flags) - _HARMLESS_FLAGS:
        raise Unsupported(f"seccomp flags {sorted(unknown)}")
    listed = profile.architectures or (NATIVE[machine],)
    arches = [arch for arch in _FAMILY[machine] if arch in listed or arch == NATIVE[machine]]
    default = _action(profile.default_action, profile.default_errno_ret)
    code = _Assembler()
    starts: dict[int, int] = {}
    for arch in reversed(arches):
        tree = _tree(code, _verdicts(profile, arch, default), default)
        audit = _AUDIT[arch]
        if arch == "SCMP_ARCH_X86_64":
            other = starts.pop(audit, None)  # x32 shares the audit architecture; its numbers carry a bit
            tree = code.jump(_JGE, X32_BIT, code.give(_ENOSYS) if other is None else other, tree)
        starts[audit] = tree
    entry = code.give(_KILL_PROCESS)
    for audit, tree in starts.items():
        loaded = code.then(_LD, _NUMBER, tree)
        entry = code.jump(_JEQ, audit, loaded, entry)
    return code.finish(code.then(_LD, _ARCH, entry))


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(program: bytes) -> None:
    """Put the calling thread, and all it will fork or execute, under the filter; there is no way back.

    Needs no_new_privs or CAP_SYS_ADMIN in the user namespace (EACCES).  Linux 3.17.
    """
    if not program or len(program) % _FILTER.size:
        raise ValueError("not an array of struct sock_filter")
    head = _Program(len(program) // _FILTER.size, program)
    _seccomp(_SET_MODE_FILTER, 0, ctypes.byref(head), subject="seccomp filter")


def _action(name: str, code: int | None) -> int:
    if name not in _ACTIONS:
        raise Unsupported(f"seccomp action {name}")
    base = _ACTIONS[name]
    if base not in (0x00050000, 0x7FF00000):
        return base
    number = errno.EPERM if code is None else code
    if not 0 <= number <= 4095:
        raise InvalidRequest(f"seccomp errnoRet {number} is not within 0..4095")
    return base | number


def _rank(action: int) -> int:
    base = action & 0xFFFF0000
    return -1 if base == _KILL_PROCESS else base


def _alternatives(rule: SyscallRule) -> list[tuple[SyscallArgument, ...]]:
    """Return the rule's conditions: all must hold; but when an index comes twice, each alone suffices (as runc does)."""
    for argument in rule.args:
        if not 0 <= argument.index <= 5 or not 0 <= argument.value < 2**64 or not 0 <= argument.value_two < 2**64:
            raise InvalidRequest(f"seccomp rule for {', '.join(rule.names[:3])}: argument out of range")
    indexes = [argument.index for argument in rule.args]
    if len(set(indexes)) == len(indexes):
        return [rule.args]
    return [(argument,) for argument in rule.args]


def _verdicts(profile: Seccomp, arch: str, default: int) -> dict[int, Verdict]:
    """Return what becomes of each known number of `arch` up to the highest that the profile names."""
    table = TABLES[arch]
    found: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    for rule in profile.syscalls:
        action = _action(rule.action, rule.errno_ret)
        alternatives = _alternatives(rule)
        for name in rule.names:
            if name in table:
                narrow = _INT_ARGUMENTS.get(name, ())
                found.setdefault(table[name], []).extend(
                    (
                        tuple((a, a.index in narrow and a.value < 2**32 and a.value_two < 2**32) for a in alternative),
                        action,
                    )
                    for alternative in alternatives
                )
    whole = (default & 0xFFFF0000) in _LAX
    top = max(table.values()) if whole else max(found, default=-1)
    return {number: _verdict(found.get(number, []), default) for number in table.values() if number <= top}


def _verdict(rules: Sequence[tuple[tuple[Condition, ...], int]], default: int) -> Verdict:
    plain = [action for conditions, action in rules if not conditions]
    rest = min(plain, key=_rank) if plain else default
    ordered = sorted((rule for rule in rules if rule[0]), key=lambda rule: _rank(rule[1]))
    if plain:
        ordered = [rule for rule in ordered if _rank(rule[1]) < _rank(rest)]
    return tuple(dict.fromkeys(ordered)), rest


def _tree(code: _Assembler, verdicts: dict[int, Verdict], default: int) -> int:
    """Emit the search; the accumulator holds the number."""
    unknown: Verdict = ((), default if (default & 0xFFFF0000) in _LAX else _ENOSYS)
    runs: list[tuple[int, Verdict]] = []
    following = 0
    for number in sorted(verdicts):
        if number != following and (not runs or runs[-1][1] != unknown):
            runs.append((following, unknown))
        if not runs or runs[-1][1] != verdicts[number]:
            runs.append((number, verdicts[number]))
        following = number + 1
    if not runs or runs[-1][1] != unknown:
        runs.append((following, unknown))
    places = {verdict: _emit_verdict(code, verdict) for _, verdict in runs if verdict[0]}

    def search(low: int, high: int) -> int:
        if high - low == 1:
            verdict = runs[low][1]
            return places[verdict] if verdict[0] else code.give(verdict[1])
        middle = (low + high) // 2
        right = search(middle, high)
        left = search(low, middle)
        return code.jump(_JGE, runs[middle][0], right, left)

    return search(0, len(runs))


def _emit_verdict(code: _Assembler, verdict: Verdict) -> int:
    place = code.give(verdict[1])
    for conditions, action in reversed(verdict[0]):
        matched = code.give(action)
        for condition in reversed(conditions):
            matched = _emit_condition(code, condition, matched, place)
        place = matched
    return place


def _emit_condition(code: _Assembler, condition: Condition, yes: int, no: int) -> int:
    """Emit one comparison of an unsigned argument: the high word first, where it counts."""
    argument, only_low = condition
    op, value = argument.op, argument.value
    high_at = _ARGUMENTS + 8 * argument.index + 4  # little-endian: the low word lies first
    low_at = high_at - 4
    negated = {"SCMP_CMP_NE": "SCMP_CMP_EQ", "SCMP_CMP_LT": "SCMP_CMP_GE", "SCMP_CMP_LE": "SCMP_CMP_GT"}
    if op in negated:
        op, yes, no = negated[op], no, yes
    high, low = value >> 32, value & 0xFFFFFFFF
    if op == "SCMP_CMP_MASKED_EQ":
        wanted = argument.value_two
        at_low = code.then(_LD, low_at, code.then(_AND, low, code.jump(_JEQ, wanted & 0xFFFFFFFF, yes, no)))
        if only_low or (high == 0 and wanted >> 32 == 0):
            return at_low
        return code.then(_LD, high_at, code.then(_AND, high, code.jump(_JEQ, wanted >> 32, at_low, no)))
    compare = {"SCMP_CMP_EQ": _JEQ, "SCMP_CMP_GE": _JGE, "SCMP_CMP_GT": _JGT}.get(op)
    if compare is None:
        raise InvalidRequest(f"seccomp operator {op!r}")
    at_low = code.then(_LD, low_at, code.jump(compare, low, yes, no))
    if only_low:
        return at_low
    same = code.jump(_JEQ, high, at_low, no)
    if compare == _JEQ:
        return code.then(_LD, high_at, same)
    return code.then(_LD, high_at, code.jump(_JGT, high, yes, same))
