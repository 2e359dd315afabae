"""The eBPF program of a cgroup v2 device list: assembled, attached, and asked for again.

Sources: bpf(2), include/uapi/linux/bpf.h (union bpf_attr, struct bpf_cgroup_dev_ctx), Linux 4.15; needs CAP_SYS_ADMIN or
CAP_BPF with CAP_NET_ADMIN.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence

from sampan.kernel.calls import bind
from sampan.kernel.fds import Fd
from sampan.oci.runtime import DeviceRule

_bpf = bind("bpf", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 5, 8, 9, 13, 15, 16
_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_MAX_PROGRAMS = 64  # BPF_CGROUP_MAX_PROGS
_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_INSTRUCTION = struct.Struct("=BBhi")


class _Load(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32), ("insn_cnt", ctypes.c_uint32), ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64), ("log_level", ctypes.c_uint32), ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64), ("kern_version", ctypes.c_uint32), ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16), ("prog_ifindex", ctypes.c_uint32), ("expected_attach_type", ctypes.c_uint32),
    )  # fmt: skip


class _Attach(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32), ("attach_bpf_fd", ctypes.c_uint32), ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32), ("replace_bpf_fd", ctypes.c_uint32),
    )  # fmt: skip


class _Query(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32), ("attach_type", ctypes.c_uint32), ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32), ("prog_ids", ctypes.c_uint64), ("prog_cnt", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )  # fmt: skip


class _Info(ctypes.Structure):
    _fields_ = (("bpf_fd", ctypes.c_uint32), ("info_len", ctypes.c_uint32), ("info", ctypes.c_uint64))


if (ctypes.sizeof(_Load), ctypes.sizeof(_Attach), ctypes.sizeof(_Query), ctypes.sizeof(_Info)) != (72, 20, 32, 16):
    raise ImportError("a part of union bpf_attr has the wrong size")


def access_mask(access: str) -> int:
    """Return BPF_DEVCG_ACC_* of "rwm" letters.  Raises ValueError on others."""
    if not access or set(access) - set("rwm"):
        raise ValueError(f"bad device access: {access!r}")
    return sum(_ACCESS[letter] for letter in set(access))


def device_program(rules: Sequence[DeviceRule]) -> bytes:
    """Assemble the program for `rules`: the last that matches wins, nothing matching is refused.

    An allow rule matches when it holds every access asked for, a deny rule when it holds any: never looser than v1.
    Raises ValueError on a malformed rule.
    """
    code = [
        (0x61, 2 | 1 << 4, 0, 0),  # r2 = access << 16 | type
        (0x61, 4 | 1 << 4, 4, 0),  # r4 = major
        (0x61, 5 | 1 << 4, 8, 0),  # r5 = minor
        (0xBF, 3 | 2 << 4, 0, 0),
        (0x77, 3, 0, 16),  # r3 = access
        (0x57, 2, 0, 0xFFFF),  # r2 = type
    ]
    for rule in reversed(rules):
        code += _rule(rule)
        if rule.type == "a" and access_mask(rule.access) == 7:
            break  # matches everything: earlier rules cannot be reached, and the verifier refuses dead code
    else:
        code += [(0xB7, 0, 0, 0), (0x95, 0, 0, 0)]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def _rule(rule: DeviceRule) -> list[tuple[int, int, int, int]]:
    access = access_mask(rule.access)
    tests: list[tuple[int, int, int, int]] = []  # each pair jumps over the rest of the rule when it fails
    if rule.type != "a":
        if rule.type not in _TYPES:
            raise ValueError(f"bad device type: {rule.type!r}")
        tests.append((0x55, 2, 0, _TYPES[rule.type]))
    if access != 7:
        tests.append((0xBF, 1 | 3 << 4, 0, 0))  # r1, the context, is not needed any more
        tests.append((0x57, 1, 0, 7 & ~access if rule.allow else access))
        tests.append((0x55 if rule.allow else 0x15, 1, 0, 0))
    for register, number in ((4, rule.major), (5, rule.minor)):
        if number is not None and number != -1 and rule.type != "a":
            if not 0 <= number < 2**31:
                raise ValueError(f"bad device number: {number}")
            tests.append((0x55, register, 0, number))
    whole = [*tests, (0xB7, 0, 0, int(rule.allow)), (0x95, 0, 0, 0)]
    return [
        (code, registers, len(whole) - place - 1 if code in (0x55, 0x15) else offset, value)
        for place, (code, registers, offset, value) in enumerate(whole)
    ]


def attach_device_program(cgroup: int | Fd, program: bytes) -> None:
    """Load `program`, attach it to the cgroup v2 folder `cgroup`, and detach what was there before.

    Raises OSError when the kernel refuses it, or does not list it afterwards (SECURITY.md row 103).
    """
    before = attached(cgroup)
    with _load(program) as loaded:
        identity = _identity(loaded)
        attach = _Attach(int(cgroup), int(loaded), _CGROUP_DEVICE, _ALLOW_MULTI, 0)
        _bpf(_PROG_ATTACH, ctypes.byref(attach), ctypes.sizeof(attach), subject="device program")
    for old in before:
        number = ctypes.c_uint32(old)
        with Fd(_bpf(_PROG_GET_FD_BY_ID, ctypes.byref(number), 4, subject=f"program {old}")) as held:
            detach = _Attach(int(cgroup), int(held), _CGROUP_DEVICE, 0, 0)
            _bpf(_PROG_DETACH, ctypes.byref(detach), ctypes.sizeof(detach), subject=f"program {old}")
    if attached(cgroup) != [identity]:
        raise OSError(errno.EPERM, "the kernel does not list the device program", "device program")


def attached(cgroup: int | Fd) -> list[int]:
    """Return the ids of the device programs attached to the folder itself."""
    numbers = (ctypes.c_uint32 * _MAX_PROGRAMS)()
    query = _Query(int(cgroup), _CGROUP_DEVICE, 0, 0, ctypes.addressof(numbers), _MAX_PROGRAMS, 0)
    _bpf(_PROG_QUERY, ctypes.byref(query), ctypes.sizeof(query), subject="device programs")
    return list(numbers[: query.prog_cnt])


def _load(program: bytes) -> Fd:
    content = ctypes.create_string_buffer(program, len(program))
    terms = ctypes.create_string_buffer(b"Apache-2.0")
    load = _Load(
        prog_type=_TYPE_CGROUP_DEVICE,
        insn_cnt=len(program) // _INSTRUCTION.size,
        insns=ctypes.addressof(content),
        license=ctypes.addressof(terms),
        prog_name=b"sampan_devices",
        expected_attach_type=_CGROUP_DEVICE,
    )
    return Fd(_bpf(_PROG_LOAD, ctypes.byref(load), ctypes.sizeof(load), subject="device program"))


def _identity(program: Fd) -> int:
    found = (ctypes.c_uint32 * 2)()  # the head of struct bpf_prog_info: type, id
    info = _Info(int(program), ctypes.sizeof(found), ctypes.addressof(found))
    _bpf(_OBJ_GET_INFO_BY_FD, ctypes.byref(info), ctypes.sizeof(info), subject="device program")
    return int(found[1])
