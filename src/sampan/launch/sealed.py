"""The interpreter from a place where nobody can write to it (CVE-2019-5736, SECURITY.md P1, P3)."""

from __future__ import annotations

import os
import sys

from sampan.kernel.fds import Fd
from sampan.kernel.mount import Attr, clone_tree, set_attributes


def sealed_interpreter() -> Fd:
    """Return the Python interpreter's file through a read-only mount of its own.

    What runs from it shows this mount as /proc/self/exe: nobody can open it for writing.  Needs CAP_SYS_ADMIN.
    """
    tree = clone_tree(os.path.realpath(sys.executable))
    try:
        set_attributes(tree, set_=Attr.RDONLY | Attr.NOSUID | Attr.NODEV)
    except BaseException:
        tree.close()
        raise
    return tree
