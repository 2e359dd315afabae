"""The command becomes the daemon: the same interpreter, from a file that nobody can open for writing (SECURITY.md P1, P3, 16).

The daemon's rooms are imported by what it becomes, and by that alone: twice would double the time of a start.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sampan.kernel.fds import memfd
from sampan.launch.sealed import sealed_interpreter

_CODE = "from sampan.daemon import entry; entry()"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


def daemon(settings: dict[str, Any]) -> int:
    """Run the daemon with the settings of daemon.json's keys; returns only when it cannot be run."""
    if os.geteuid() != 0:
        sys.stderr.write("sampan: the daemon needs to be run as root\n")
        return 1
    proxies = {name: os.environ.get(name.upper(), "") or os.environ.get(name, "") for name in _PROXIES}
    keep = {name: os.environ[name] for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID") if name in os.environ}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2", **keep}  # mallopt(3): one
    # arena for each of our threads would grow for hours, holes and all, and one thread at a time works anyway.
    try:
        told = memfd("sampan-options", json.dumps({**proxies, **settings}).encode())
        program = sealed_interpreter()
        os.set_inheritable(told.fileno(), True)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(program.path, [sys.executable, "-I", "-B", "-X", "utf8", "-c", _CODE, str(told.fileno())], environment)
    except OSError as error:
        sys.stderr.write(f"sampan: {error}\n")
    return 1
