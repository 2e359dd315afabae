"""Which extended attributes travel in archives, and setting them."""

from __future__ import annotations

import errno
import os

_OVERLAY = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.")
_LABELS = "security."
CAPABILITY = "security.capability"
_NOT_TAKEN = (errno.ENOTSUP, errno.EPERM, errno.EACCES)


def allowed(name: str) -> bool:
    """Return whether an archive may set the attribute.

    overlayfs's own would bring in files from elsewhere (SECURITY.md row 45); labels of security modules are the host's
    to give, except file capabilities.
    """
    if name.startswith(_OVERLAY):
        return False
    return not name.startswith(_LABELS) or name == CAPABILITY


def set_xattrs(target: int | str, attributes: dict[str, bytes]) -> int:
    """Set those that are allowed on a descriptor, or on a /proc/self/fd name; return how many were not taken.

    Not taken means that the file system has none of that kind or that we may not: the file is then less privileged than
    told, never more.
    """
    skipped = 0
    for name, value in attributes.items():
        if not allowed(name):
            continue
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            if error.errno not in _NOT_TAKEN:
                raise
            skipped += 1
    return skipped
