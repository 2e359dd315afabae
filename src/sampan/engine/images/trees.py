"""Comparing two unpacked layers: the same names, kinds, owners, modes and content."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from sampan.files.whiteouts import OPAQUE_XATTR

_CHUNK = 1 << 20


def differences(one: Path, other: Path, *, most: int = 5) -> list[str]:
    """Return what differs, at most `most` words; empty when the trees are the same.  Times do not count."""
    found: list[str] = []
    waiting = [""]
    while waiting and len(found) < most:
        folder = waiting.pop()
        names = [set(_names(root / folder)) for root in (one, other)]
        found += [f"{folder}{name} is missing" for name in sorted(names[1] - names[0])]
        found += [f"{folder}{name} should not be there" for name in sorted(names[0] - names[1])]
        for name in sorted(names[0] & names[1]):
            path = folder + name
            what = _difference(one / path, other / path)
            if what:
                found.append(f"{path}: {what}")
            elif stat.S_ISDIR((one / path).lstat().st_mode):
                waiting.append(path + "/")
    return found[:most]


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _difference(one: Path, other: Path) -> str:
    first, second = one.lstat(), other.lstat()
    if first.st_mode != second.st_mode:
        return f"its mode is {first.st_mode:o}, not {second.st_mode:o}"
    if (first.st_uid, first.st_gid) != (second.st_uid, second.st_gid):
        return f"it belongs to {first.st_uid}:{first.st_gid}, not to {second.st_uid}:{second.st_gid}"
    if stat.S_ISREG(first.st_mode):
        return "its content is another" if first.st_size != second.st_size or _hash(one) != _hash(other) else ""
    if stat.S_ISLNK(first.st_mode):
        return "it points elsewhere" if os.readlink(one) != os.readlink(other) else ""
    if stat.S_ISDIR(first.st_mode):
        return "it hides other things" if _opaque(one) != _opaque(other) else ""
    return "it is another device" if first.st_rdev != second.st_rdev else ""


def _hash(path: Path) -> bytes:
    hashing = hashlib.sha256()
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
        while data := file.read(_CHUNK):
            hashing.update(data)
    return hashing.digest()


def _opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError:
        return False
