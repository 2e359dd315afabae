"""Where a group lies: paths that cannot leave the hierarchy (SECURITY.md row 105)."""

from __future__ import annotations

from sampan.errors import InvalidRequest


def checked_path(path: str, *, beneath: str = "") -> str:
    """Return `path` without leading, trailing or doubled slashes.

    Raises InvalidRequest when it is empty, has `.` or `..`, unprintable characters or names over 255 bytes, or does not lie
    strictly beneath `beneath`.
    """
    parts = [part for part in path.split("/") if part]
    if not parts:
        raise InvalidRequest(f"cgroup path {path!r} names no group")
    for part in parts:
        if part in (".", "..") or not part.isprintable() or len(part.encode()) > 255:
            raise InvalidRequest(f"cgroup path {path!r} has a part that is not allowed: {part[:80]!r}")
    if len(parts) > 32:
        raise InvalidRequest(f"cgroup path {path[:80]!r} is too deep")
    parent = [part for part in beneath.split("/") if part]
    if parts[: len(parent)] != parent or (parent and len(parts) == len(parent)):
        raise InvalidRequest(f"cgroup path {path!r} does not lie beneath {beneath!r}")
    return "/".join(parts)
