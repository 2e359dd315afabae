"""Who `--user` means, from the container's own passwd and group files, read by a parser of our own.

libc's name service would load libraries named by the container (SECURITY.md P5, row 19).  Numbers are ASCII digits in
range and never fall back to names (rows 21, 22); the files are regular, read without blocking, at most 1 MiB (row 56).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.errors import InvalidRequest
from sampan.kernel.fds import Fd
from sampan.kernel.paths import open_in

LARGEST_ID = 2**31 - 1
_FILE_LIMIT = 1 << 20
_LINE_LIMIT = 64 * 1024
_NO_FILE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV))  # missing, or no plain file


@dataclass(frozen=True)
class Identity:
    """Numbers as the container sees them; groups includes the primary one."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(root: Fd, user: str, group_add: tuple[str, ...]) -> Identity:
    """Return the identity of `user` ("", "name", "uid", "name:group", ...).  Raises InvalidRequest when it means nothing."""
    name, colon, group = user.partition(":")
    if ":" in group or (colon and not group and not name) or any(ord(c) < 33 for c in user):
        raise InvalidRequest(f"invalid user {user!r}")
    entry = _find_user(root, name)
    if group:
        gid, extra = _find_group(root, group), []
    else:
        gid = entry.gid
        extra = [g for g, members in _groups(root) if entry.name and entry.name in members]
    for more in group_add:
        extra.append(_find_group(root, more))
    groups = tuple(dict.fromkeys([gid, *extra]))
    return Identity(entry.uid, gid, groups, entry.home)


def home_of(root: Fd, uid: int) -> str:
    """Return the home of a number from the container's passwd file, else /root for 0 and / for others."""
    return _find_user(root, str(uid)).home


@dataclass(frozen=True)
class _User:
    name: str
    uid: int
    gid: int
    home: str


def _number(text: str, what: str) -> int | None:
    """Return the id that `text` spells, None when it is no number; InvalidRequest when it is out of range."""
    if not (text.isascii() and text.isdigit()):
        return None
    value = int(text) if len(text) <= 10 else LARGEST_ID + 1
    if value > LARGEST_ID:
        raise InvalidRequest(f"{what} {text} is out of range 0-{LARGEST_ID}")
    return value


def _find_user(root: Fd, name: str) -> _User:
    wanted = _number(name, "uid") if name else 0
    for fields in _lines(root, "/etc/passwd", 6):
        if fields[0] == name if wanted is None else fields[2] == str(wanted):
            uid, gid = _number(fields[2], "uid"), _number(fields[3], "gid")
            if uid is not None and gid is not None:
                return _User(fields[0], uid, gid, fields[5] or "/")
    if wanted is None:
        raise InvalidRequest(f"unable to find user {name}: no matching entries in passwd file")
    return _User("", wanted, 0, "/root" if wanted == 0 else "/")


def _find_group(root: Fd, name: str) -> int:
    wanted = _number(name, "gid")
    if wanted is not None:
        return wanted
    for fields in _lines(root, "/etc/group", 3):
        if fields[0] == name:
            gid = _number(fields[2], "gid")
            if gid is not None:
                return gid
    raise InvalidRequest(f"unable to find group {name}: no matching entries in group file")


def _groups(root: Fd) -> Iterator[tuple[int, list[str]]]:
    for fields in _lines(root, "/etc/group", 4):
        if fields[2].isascii() and fields[2].isdigit() and len(fields[2]) <= 10 and int(fields[2]) <= LARGEST_ID:
            yield int(fields[2]), fields[3].split(",")


def _lines(root: Fd, path: str, columns: int) -> Iterator[list[str]]:
    """Yield the well-formed lines' fields; nothing when the file is missing or is no small regular file.

    Raises OSError when it cannot be told: without its group file a process would lack groups that deny it something (row 23).
    """
    try:
        file = open_in(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in _NO_FILE:
            return
        raise
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _FILE_LIMIT:
            return
        content = os.pread(file.fileno(), _FILE_LIMIT, 0)
    for line in content.split(b"\n"):
        if len(line) > _LINE_LIMIT or line.startswith(b"#"):
            continue
        fields = os.fsdecode(line).strip().split(":")
        if len(fields) >= columns:
            yield fields
