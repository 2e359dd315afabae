"""Top: the container's processes, read from /proc by the engine itself."""

from __future__ import annotations

import os
import pwd
import time

from sampan.cgroups import Hierarchy
from sampan.engine.containers.container import Container
from sampan.engine.containers.exits import group_path
from sampan.errors import Conflict, InvalidRequest
from sampan.wire import system as s

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_TICK = os.sysconf("SC_CLK_TCK")
_COLUMNS = {"pid", "ppid", "user", "uid", "comm", "cmd", "args", "stime", "time", "tty", "etime", "group", "gid"}


def top(container: Container, ps_args: str) -> s.Top:
    """Return the table.  ps's options are understood for -o with the columns above; others show the full format.

    Blocks.  Raises Conflict, InvalidRequest.
    """
    record = container.record
    if not record.running:
        raise Conflict(f"container {record.id} is not running")
    rows = [row for pid in Hierarchy.detect().open(group_path(container)).pids() if (row := _row(pid)) is not None]
    words = ps_args.replace(",", " ").split()
    if "-o" in words or any(word == "o" for word in words):
        chosen = [word.lower() for word in words[words.index("-o" if "-o" in words else "o") + 1 :]]
        if not chosen or not set(chosen) <= _COLUMNS or "pid" not in chosen:
            raise InvalidRequest(f"ps columns must be of {', '.join(sorted(_COLUMNS))} and include pid")
        return s.Top(titles=[_TITLE.get(word, word.upper()) for word in chosen], processes=[[r[w] for w in chosen] for r in rows])
    keys = ("user", "pid", "ppid", "c", "stime", "tty", "time", "args")
    return s.Top(titles=TITLES, processes=[[row[key] for key in keys] for row in rows])


_TITLE = {"args": "COMMAND", "comm": "COMMAND", "cmd": "CMD"}


def _row(pid: int) -> dict[str, str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode(errors="replace")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
        owner = os.stat(f"/proc/{pid}")
        with open("/proc/uptime") as file:
            uptime = float(file.read().split()[0])
    except (OSError, ValueError):
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    used = (int(fields[11]) + int(fields[12])) // _TICK
    begun = time.time() - uptime + int(fields[19]) / _TICK
    terminal = int(fields[4])
    try:
        user = pwd.getpwuid(owner.st_uid).pw_name
    except KeyError:
        user = str(owner.st_uid)
    command = b" ".join(words).decode(errors="replace") or f"[{name}]"
    return {
        "uid": str(owner.st_uid), "user": user, "pid": str(pid), "ppid": fields[1], "c": "0", "comm": name, "cmd": command,
        "args": command, "gid": str(owner.st_gid), "group": str(owner.st_gid),
        "stime": time.strftime("%H:%M", time.localtime(begun)), "etime": f"{int(time.time() - begun)}",
        "tty": "?" if not terminal else f"pts/{terminal & 0xFF}",
        "time": f"{used // 3600:02d}:{used // 60 % 60:02d}:{used % 60:02d}",
    }  # fmt: skip
