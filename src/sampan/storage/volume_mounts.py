"""What the local driver mounts on a volume's folder: its options type, device and o, in mount(8)'s words.

Mounted on the host while a running container uses the volume, as Docker does: every container then sees the same file
system (a tmpfs would otherwise be a new one for each), and a daemon that was killed finds it still there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sampan.errors import Broken, InvalidRequest, Unsupported
from sampan.kernel.mount import MS, mount, unmount

KNOWN = ("type", "device", "o", "size")
_REC = 16384
# mount(2)'s flags by mount(8)'s word: (bit, whether the word clears it); include/uapi/linux/mount.h.
_WORDS: dict[str, tuple[int, bool]] = {
    "ro": (1, False), "rw": (1, True), "nosuid": (2, False), "suid": (2, True), "nodev": (4, False), "dev": (4, True),
    "noexec": (8, False), "exec": (8, True), "sync": (16, False), "async": (16, True), "remount": (32, False),
    "dirsync": (128, False), "noatime": (1024, False), "atime": (1024, True), "nodiratime": (2048, False),
    "diratime": (2048, True), "bind": (4096, False), "rbind": (4096 | _REC, False), "relatime": (1 << 21, False),
    "norelatime": (1 << 21, True), "strictatime": (1 << 24, False), "nostrictatime": (1 << 24, True), "defaults": (0, False),
}  # fmt: skip
_ADDRESSED = ("nfs", "nfs4", "cifs")


@dataclass(frozen=True)
class Local:
    """One mount(2) call."""

    kind: str
    device: str
    flags: int
    data: str


def check(name: str, options: Mapping[str, str]) -> None:
    """Judge a new volume's options.  Raises InvalidRequest in docker's words, Unsupported for a size."""
    for key, value in options.items():
        if key not in KNOWN:
            raise InvalidRequest(f'create {name}: invalid option: "{key[:64]}"')
        if any(ord(sign) < 32 for sign in value) or len(value) > 3500:
            raise InvalidRequest(f'create {name}: invalid value of option "{key}"')
    if options.get("size"):
        raise InvalidRequest(f"create {name}: quota size requested but no quota support")
    for key in ("device", "type"):
        if any(options.get(other) for other in ("type", "device", "o")) and not options.get(key):
            raise InvalidRequest(f'create {name}: missing required option: "{key}"')


def parse(options: Mapping[str, str]) -> Local:
    """Return the call that the options ask for; a host name in addr= is looked up (blocks).  Raises Unsupported."""
    flags, data = 0, []
    kind = options.get("type", "")
    for word in options.get("o", "").split(","):
        bit, clears = _WORDS.get(word, (-1, False))
        if bit < 0:
            if word.startswith("addr=") and kind in _ADDRESSED:
                word = f"addr={_address(word.removeprefix('addr='))}"
            data += [word] if word else []
        elif clears:
            flags &= ~bit
        else:
            flags |= bit
    return Local(kind, options.get("device", ""), flags, ",".join(data))


def _address(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise Unsupported(f"error resolving passed in network volume address: {host[:128]}: {error.strerror}") from None


def is_mounted(folder: Path) -> bool:
    """Return whether something is mounted on the folder itself."""
    wanted = str(folder)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ", 5)[4].replace("\\040", " ") == wanted for line in table)


def attach(options: Mapping[str, str], folder: Path) -> None:
    """Mount what the options name on the folder.  Raises Broken in docker's words; nothing stays mounted then."""
    local = parse(options)
    try:
        mount(local.device, str(folder), local.kind, local.flags, local.data or None)
    except OSError as error:
        flags = f", flags: {local.flags:#x}" if local.flags else ""
        data = f", data: {local.data}" if local.data else ""
        reason = (error.strerror or "failed").lower()
        raise Broken(
            f"error while mounting volume '{folder}': failed to mount local volume: "
            f"mount {local.device}:{folder}{flags}{data}: {reason}"
        ) from None
    try:
        if local.flags & MS.BIND and local.flags & ~(MS.BIND | MS.REC):  # a bind takes its attributes only afterwards
            mount(None, str(folder), None, local.flags & ~_REC | MS.REMOUNT)
        mount(None, str(folder), None, MS.PRIVATE | MS.REC)
    except BaseException:
        unmount(str(folder), detach=True)
        raise


def detach(folder: Path) -> None:
    """Take away whatever is mounted on the folder."""
    while is_mounted(folder):
        unmount(str(folder), detach=True)


def data_folder(volume: Path) -> Path:
    """Return the folder of a volume's files, made when a power cut lost it."""
    folder = volume / "_data"
    volume.mkdir(mode=0o700, exist_ok=True)
    try:
        folder.mkdir(mode=0o755)
        os.chmod(folder, 0o755)
    except FileExistsError:
        pass
    return folder
