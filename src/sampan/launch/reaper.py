"""`--init`: the program that is process 1 when the user's own is not fit for it - a few hundred bytes of machine code.

It is no file of the host and no interpreter: an ELF file made here, kept in a sealed memfd by the daemon, handed down with the
launch, and executed by descriptor once init has given up its privileges (docs/decisions/reaper.md).  What it does, on every
machine:

    name, subreaper; block every signal; fork
    child:  its own process group, the terminal's foreground one; unblock; execve(argv[1], argv + 2, envp), else exit 127 or 126
    parent: wait for any signal.  SIGCHLD: reap all there are, and end as the child ended (128 + n for signal n);
            any other: send it on to the child
"""

from __future__ import annotations

import fcntl
import platform
import struct

from sampan.errors import Unsupported
from sampan.kernel.fds import Fd, memfd
from sampan.launch.reaper_code import AARCH64, X86_64

NAME = b"sampan-init"
_BASE = 0x400000  # where the file is mapped
_HEADERS = 64 + 56
_SEALS = 0x0F  # F_SEAL_SEAL, SHRINK, GROW, WRITE; include/uapi/linux/fcntl.h
_ADD_SEALS = 1033
_MACHINES = {"x86_64": (62, X86_64), "aarch64": (183, AARCH64)}  # EM_X86_64, EM_AARCH64


def assemble(listing: str, *, words: bool) -> bytes:
    """Turn a listing into bytes: `name:` is a label, `;` begins a comment, the rest is hex.

    words: arm64's, and `XXXXXXXX>name/shift/bits` is one whose field gets the distance to the label in words.  Otherwise x86's
    bytes, and `XX>>name` or `XX>name` end with the distance in one or four bytes, counted from their end.
    """
    code, labels, distances = bytearray(), dict[str, int](), list[tuple[int, str, int]]()
    for line in listing.splitlines():
        text = line.partition(";")[0].strip()
        if text.endswith(":"):
            labels[text[:-1]] = len(code)
            continue
        digits, arrow, target = text.partition(">")
        code += bytes.fromhex(digits)[:: -1 if words else 1]
        if arrow and words:
            distances.append((len(code) - 4, target, 0))
        elif arrow:
            size = 1 if target.startswith(">") else 4
            distances.append((len(code), target.lstrip(">"), size))
            code += bytes(size)
    labels["name"] = len(code)
    for at, target, size in distances:
        name, _, field = target.partition("/")
        if size:
            code[at : at + size] = (labels[name] - at - size).to_bytes(size, "little", signed=True)
        else:
            shift, _, bits = field.partition("/")
            distance = (labels[name] - at) // 4 & (1 << int(bits)) - 1
            code[at : at + 4] = (int.from_bytes(code[at : at + 4], "little") | distance << int(shift)).to_bytes(4, "little")
    return bytes(code) + NAME + b"\0"


def program(machine: str) -> bytes:
    """Return the ELF file for a machine (elf(5)): one segment, read and execute, that is the whole file.  Raises Unsupported."""
    if machine not in _MACHINES:
        raise Unsupported(f"--init: no init program for {machine}")
    number, listing = _MACHINES[machine]
    code = assemble(listing, words=machine == "aarch64")
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64-bit, little-endian, version 1
    head = ident + struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)  # PT_LOAD, R+X
    return head + segment + code


def sealed() -> Fd:
    """Return this machine's program in a memfd that nobody can change any more.  Raises Unsupported, OSError."""
    made = memfd(NAME.decode(), program(platform.machine()), executable=True)
    try:
        fcntl.fcntl(made.fileno(), _ADD_SEALS, _SEALS)
    except BaseException:
        made.close()
        raise
    return made
