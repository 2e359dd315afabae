"""Top: the container's processes, read from /proc by the engine itself, in the forms of ps(1) that people use.

Understood: -e, -A, -f and -o LIST in any combination, and BSD's letters a, u, x and o; what else is asked is refused.
"""

from __future__ import annotations

from sampan.engine.containers.container import Container
from sampan.engine.containers.groups import group_of
from sampan.engine.containers.processes import row
from sampan.errors import Conflict, InvalidRequest
from sampan.wire import system as s

# ps's column names with their headings; several names may mean one value.
_COLUMNS = {
    "pid": ("pid", "PID"), "ppid": ("ppid", "PPID"), "pgid": ("pgid", "PGID"), "pgrp": ("pgid", "PGRP"), "sid": ("sid", "SID"),
    "sess": ("sid", "SESS"), "user": ("user", "USER"), "euser": ("user", "EUSER"), "uid": ("uid", "UID"), "euid": ("uid", "EUID"),
    "group": ("group", "GROUP"), "egroup": ("group", "EGROUP"), "gid": ("gid", "GID"), "egid": ("gid", "EGID"),
    "comm": ("comm", "COMMAND"), "ucmd": ("comm", "CMD"), "cmd": ("args", "CMD"), "args": ("args", "COMMAND"),
    "command": ("args", "COMMAND"), "stime": ("stime", "STIME"), "start": ("stime", "STARTED"), "bsdstart": ("stime", "START"),
    "time": ("time", "TIME"), "cputime": ("time", "TIME"), "etime": ("etime", "ELAPSED"), "etimes": ("etimes", "ELAPSED"),
    "tty": ("tty", "TT"), "tt": ("tty", "TT"), "tname": ("tty", "TTY"), "c": ("c", "C"), "pcpu": ("pcpu", "%CPU"),
    "%cpu": ("pcpu", "%CPU"), "pmem": ("pmem", "%MEM"), "%mem": ("pmem", "%MEM"), "vsz": ("vsz", "VSZ"), "vsize": ("vsz", "VSZ"),
    "rss": ("rss", "RSS"), "rssize": ("rss", "RSS"), "stat": ("stat", "STAT"), "s": ("state", "S"), "state": ("state", "S"),
    "ni": ("ni", "NI"), "nice": ("ni", "NI"), "nlwp": ("nlwp", "NLWP"), "thcount": ("nlwp", "THCNT"),
}  # fmt: skip
_FORMS = {
    "": (("pid", "PID"), ("tty", "TTY"), ("time", "TIME"), ("comm", "CMD")),
    "f": (("user", "UID"), ("pid", "PID"), ("ppid", "PPID"), ("c", "C"), ("stime", "STIME"), ("tty", "TTY"), ("time", "TIME"),
          ("args", "CMD")),
    "x": (("pid", "PID"), ("tty", "TTY"), ("stat", "STAT"), ("time", "TIME"), ("args", "COMMAND")),
    "u": (("user", "USER"), ("pid", "PID"), ("pcpu", "%CPU"), ("pmem", "%MEM"), ("vsz", "VSZ"), ("rss", "RSS"), ("tty", "TTY"),
          ("stat", "STAT"), ("stime", "START"), ("time", "TIME"), ("args", "COMMAND")),
}  # fmt: skip
Columns = tuple[tuple[str, str], ...]


def top(container: Container, ps_args: str) -> s.Top:
    """Return the table.  Blocks.  Raises Conflict when it does not run, InvalidRequest for arguments that are not understood."""
    record = container.record
    if not record.running:
        raise Conflict(f"container {record.id} is not running")
    chosen = columns(ps_args)
    rows = [found for pid in group_of(container).pids() if (found := row(pid)) is not None]
    return s.Top(titles=[title for _, title in chosen], processes=[[one[key] for key, _ in chosen] for one in rows])


def columns(ps_args: str) -> Columns:
    """Return (value, heading) of each column that ps's arguments ask for.  Raises InvalidRequest."""
    form, made = "", []
    words = ps_args.split()
    while words:
        word = words.pop(0)
        letters, dash = word.removeprefix("-"), word.startswith("-")
        for at, letter in enumerate(letters):
            if letter == "o":
                made += _listed(letters[at + 1 :] or (words.pop(0) if words else ""))
                break
            if (letter in "eA" and dash) or letter in "ax":
                form = form or ("x" if not dash else "")
            elif letter == "f" and dash:
                form = "f"
            elif letter == "u":
                form = "u"
            else:
                raise InvalidRequest(f"ps: option {word[:32]!r} is not understood; use -e, -f, -o LIST, or a, u, x")
    if made and not any(key == "pid" for key, _ in made):
        raise InvalidRequest("Couldn't find PID field in ps output")
    return tuple(made) or _FORMS[form]


def _listed(text: str) -> list[tuple[str, str]]:
    if not text:
        raise InvalidRequest("ps: error: format specification must follow -o")
    made = []
    for name in text.split(","):
        if name.lower() not in _COLUMNS:  # NAME=HEADING could call another column PID
            raise InvalidRequest(f'ps: error: unknown user-defined format specifier "{name[:32]}"')
        made.append(_COLUMNS[name.lower()])
    return made
