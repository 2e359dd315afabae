"""Find the program that a process starts with, inside the container's root, without being led out of it.

The kernel resolves `#!/proc/self/exe` to what runs at that moment - Python, ours.  So the entrypoint, and the interpreter
of a script, are opened without magic links first (SECURITY.md P3, rows 16, 17).
"""

from __future__ import annotations

import errno
import os
import stat

from sampan.errors import StepFailed
from sampan.kernel.fds import Fd
from sampan.kernel.paths import open_in

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SCRIPT_HEAD = 256  # BINPRM_BUF_SIZE


def find(root: Fd, cwd: str, name: str, path: str) -> str:
    """Return the container path of program `name`.  Raises StepFailed("exec", ENOENT or EACCES) in Docker's words."""
    if not name or "\0" in name:
        raise _missing(name)
    if "/" in name:
        candidate = name if name.startswith("/") else os.path.join(cwd, name)
        _check(root, candidate, name)
        return candidate
    denied = False
    for folder in path.split(":"):
        candidate = os.path.join(folder or cwd, name)
        try:
            _check(root, candidate, name)
        except StepFailed as error:
            denied = denied or error.code == errno.EACCES
            continue
        return candidate
    raise _denied(name) if denied else _missing(name)


def _check(root: Fd, candidate: str, name: str) -> None:
    try:
        opened = open_in(root, candidate, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except PermissionError:
        opened = _path_only(root, candidate, name)
    except OSError as error:
        raise _missing(name, in_path="/" not in name) if error.errno != errno.EACCES else _denied(name) from None
    with opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
            raise _denied(name)
        try:
            head = os.pread(opened.fileno(), _SCRIPT_HEAD, 0)
        except OSError:  # opened as a path only: executable but not readable
            return
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        if words:
            try:
                open_in(root, words[0], os.O_PATH).close()
            except OSError:
                raise _missing(name, in_path=False) from None


def _path_only(root: Fd, candidate: str, name: str) -> Fd:
    try:
        return open_in(root, candidate, os.O_PATH)
    except OSError:
        raise _denied(name) from None


def _missing(name: str, *, in_path: bool = True) -> StepFailed:
    if in_path and "/" not in name:
        return StepFailed("exec", errno.ENOENT, f'exec: "{name}": executable file not found in $PATH')
    return StepFailed("exec", errno.ENOENT, f'exec: "{name}": stat {name}: no such file or directory')


def _denied(name: str) -> StepFailed:
    return StepFailed("exec", errno.EACCES, f'exec: "{name}": permission denied')
