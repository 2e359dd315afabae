"""Reading and writing cgroup files: one open, one call, one close; errors name the file."""

from __future__ import annotations

import os

from sampan.errors import Unsupported


def write(path: str, value: str) -> None:
    """Write a value in one write(2).  Raises OSError with the path and value in its text."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)}, writing {value!r}", path) from None
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Return a file's content (up to 1 MiB)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.read(fd, 1 << 20).decode()
    finally:
        os.close(fd)


def read_or(path: str, default: str) -> str:
    """Return a file's content, or `default` where there is none or the group has gone."""
    try:
        return read(path)
    except OSError:
        return default


def number(path: str) -> int:
    """Return a file's number; "max" and a missing file are -1."""
    text = read_or(path, "max").strip()
    return int(text) if text.isascii() and text.isdigit() else -1


def table(path: str) -> dict[str, int]:
    """Return "name number" lines as a dictionary; empty where there is no such file."""
    found: dict[str, int] = {}
    for line in read_or(path, "").splitlines():
        name, _, value = line.rpartition(" ")
        if value.isascii() and value.isdigit():
            found[name] = int(value)
    return found


def set_limit(path: str, value: str, what: str) -> None:
    """Write a limit; a file the host does not have is Unsupported."""
    try:
        write(path, value)
    except FileNotFoundError:
        raise Unsupported(f"{what}: this host has no {path}") from None
