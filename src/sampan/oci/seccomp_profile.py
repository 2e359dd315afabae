"""Seccomp profiles: the default one for a container's capabilities, and Docker's JSON format for custom ones.

Both end in the OCI form (oci/runtime.py Seccomp), which kernel/seccomp.py compiles.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sampan.errors import InvalidRequest
from sampan.oci.runtime import Seccomp, SyscallArgument, SyscallRule
from sampan.oci.seccomp_default import (
    ALWAYS,
    BY_CAPABILITY,
    BY_MACHINE,
    CLONE_NEW,
    PERSONALITIES,
    SOCKET_FAMILIES,
)

_ALLOW, _ERRNO, _EQ = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_CMP_EQ"
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_ACTIONS = frozenset(
    f"SCMP_ACT_{name}" for name in ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG")
)
_OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
MAX_PROFILE = 1 << 20  # bytes of JSON


def default_profile(capabilities: Iterable[str], kernel: tuple[int, int], machine: str) -> Seccomp:
    """Return Docker's default filter for a container with this bounding set, on this kernel and machine.

    One rule differs on purpose: `socket` is an allow-list of families (SECURITY.md row 98).
    """
    held = frozenset(capabilities)
    allowed = [*ALWAYS, *BY_MACHINE.get(machine, "").split()]
    if kernel >= (4, 8):  # before, ptrace could change a call after the filter had seen it
        allowed += ["process_vm_readv", "process_vm_writev", "ptrace"]
    for capability, names in BY_CAPABILITY.items():
        if capability in held:
            allowed += names.split()
    rules = [SyscallRule(names=tuple(dict.fromkeys(allowed)), action=_ALLOW)]
    rules += [_when("socket", SyscallArgument(index=0, value=family, op=_EQ)) for family in SOCKET_FAMILIES]
    rules += [_when("personality", SyscallArgument(index=0, value=value, op=_EQ)) for value in PERSONALITIES]
    if "CAP_SYS_ADMIN" not in held:
        rules.append(_when("clone", SyscallArgument(index=0, value=CLONE_NEW, value_two=0, op="SCMP_CMP_MASKED_EQ")))
        # The filter cannot look behind clone3's pointer; ENOSYS makes libc fall back to clone.
        rules.append(SyscallRule(names=("clone3",), action=_ERRNO, errno_ret=38))
    return Seccomp(
        default_action=_ERRNO,
        default_errno_ret=1,
        architectures=_ARCHITECTURES.get(machine, ()),
        syscalls=tuple(rules),
    )


def _when(name: str, argument: SyscallArgument) -> SyscallRule:
    return SyscallRule(names=(name,), action=_ALLOW, args=(argument,))


class _Json(msgspec.Struct, rename="camel", frozen=True):
    pass


class _Argument(_Json, frozen=True):
    index: int
    value: int
    op: str
    value_two: int | None = None


class _Filter(_Json, frozen=True):
    arches: list[str] | None = None
    caps: list[str] | None = None
    min_kernel: str = ""


class _Rule(_Json, frozen=True):
    action: str
    names: list[str] | None = None
    name: str = ""
    errno_ret: int | None = None
    args: list[_Argument] | None = None
    includes: _Filter | None = None
    excludes: _Filter | None = None


class _ArchMap(_Json, frozen=True):
    architecture: str
    sub_architectures: list[str] | None = None


class _Profile(_Json, frozen=True):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] | None = None
    arch_map: list[_ArchMap] | None = None
    flags: list[str] | None = None
    syscalls: list[_Rule] | None = None
    listener_path: str = ""


_decoder = msgspec.json.Decoder(_Profile)


def parse_profile(json_text: str, capabilities: Iterable[str], kernel: tuple[int, int], machine: str) -> Seccomp:
    """Return a custom profile in Docker's format, its conditions decided for this container and host.

    Raises InvalidRequest on anything malformed or on what the format does not have.
    """
    if len(json_text) > MAX_PROFILE:
        raise InvalidRequest(f"seccomp profile is longer than {MAX_PROFILE} characters")
    try:
        profile = _decoder.decode(json_text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidRequest(f"decoding seccomp profile failed: {error}") from None
    if profile.architectures and profile.arch_map:
        raise InvalidRequest("both 'architectures' and 'archMap' are specified in the seccomp profile, use either")
    if profile.listener_path:
        raise InvalidRequest("seccomp profile: listenerPath is not available")
    held = frozenset(capabilities)
    architectures = tuple(profile.architectures or ())
    for entry in profile.arch_map or ():
        if entry.architecture == _ARCHITECTURES.get(machine, ("",))[0]:
            architectures = (entry.architecture, *(entry.sub_architectures or ()))
            break
    return Seccomp(
        default_action=_known_action(profile.default_action),
        default_errno_ret=_errno(profile.default_errno_ret),
        architectures=architectures,
        flags=tuple(profile.flags or ()),
        syscalls=tuple(
            _rule(rule) for rule in profile.syscalls or () if _applies(rule, held, kernel, _GO_NAMES.get(machine, machine))
        ),
    )


def _rule(rule: _Rule) -> SyscallRule:
    if rule.name and rule.names:
        raise InvalidRequest("'name' and 'names' are both specified in a seccomp rule, use either")
    names = (rule.name,) if rule.name else tuple(rule.names or ())
    return SyscallRule(
        names=names,
        action=_known_action(rule.action),
        errno_ret=_errno(rule.errno_ret),
        args=tuple(_argument(argument) for argument in rule.args or ()),
    )


def _argument(argument: _Argument) -> SyscallArgument:
    second = argument.value_two or 0
    if argument.op not in _OPERATORS:
        raise InvalidRequest(f"seccomp profile: unknown operator {argument.op!r}")
    if not 0 <= argument.index <= 5:
        raise InvalidRequest(f"seccomp profile: argument index {argument.index} is not within 0..5")
    if not (0 <= argument.value < 2**64 and 0 <= second < 2**64):
        raise InvalidRequest("seccomp profile: a value is not an unsigned 64-bit number")
    return SyscallArgument(index=argument.index, value=argument.value, value_two=second, op=argument.op)


def _known_action(name: str) -> str:
    if name not in _ACTIONS:
        raise InvalidRequest(f"seccomp profile: unknown action {name!r}")
    return name


def _errno(number: int | None) -> int | None:
    if number is not None and not 0 <= number <= 4095:
        raise InvalidRequest(f"seccomp profile: errno {number} is not within 0..4095")
    return number


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    for part in (major, minor):
        if not (part.isascii() and part.isdigit() and len(part) <= 6):
            raise InvalidRequest(f"seccomp profile: bad kernel version {text!r}")
    return int(major), int(minor)


def _applies(rule: _Rule, held: frozenset[str], kernel: tuple[int, int], arch: str) -> bool:
    wanted, barred = rule.includes or _Filter(), rule.excludes or _Filter()
    if wanted.arches and arch not in wanted.arches:
        return False
    if wanted.min_kernel and kernel < _version(wanted.min_kernel):
        return False
    if not held.issuperset(wanted.caps or ()):
        return False
    if arch in (barred.arches or ()) or held.intersection(barred.caps or ()):
        return False
    return not (barred.min_kernel and kernel >= _version(barred.min_kernel))
