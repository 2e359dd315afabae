"""One process as ps(1) shows it, from /proc/<pid> (proc(5))."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import time

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MEMORY = _PAGE * os.sysconf("SC_PHYS_PAGES")


@functools.lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@functools.lru_cache(maxsize=256)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def row(pid: int) -> dict[str, str] | None:
    """Return every value that top can show; None when the process has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode(errors="replace")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
        owner = os.stat(f"/proc/{pid}")
        with open("/proc/uptime", "rb") as file:
            uptime = float(file.read().split()[0])
        name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        n = [int(word) for word in fields[1:22]]
    except (OSError, ValueError, IndexError):
        return None
    ticks, age = n[10] + n[11], max(0.0, uptime - n[18] / _TICK)
    used, begun, terminal = ticks // _TICK, time.time() - age, n[3]
    share = ticks / _TICK / age * 100 if age > 0 else 0.0
    command = b" ".join(words).decode(errors="replace") or f"[{name}]"
    return {
        "uid": str(owner.st_uid), "user": _user(owner.st_uid), "gid": str(owner.st_gid), "group": _group(owner.st_gid),
        "pid": str(pid), "ppid": str(n[0]), "pgid": str(n[1]), "sid": str(n[2]), "comm": name, "args": command,
        "c": str(min(99, int(share))), "pcpu": f"{share:.1f}", "pmem": f"{n[20] * _PAGE * 100 / _MEMORY:.1f}",
        "vsz": str(n[19] // 1024), "rss": str(n[20] * _PAGE // 1024), "state": fields[0],
        "stat": fields[0] + ("s" if n[2] == pid else "") + ("l" if n[16] > 1 else ""), "ni": str(n[15]), "nlwp": str(n[16]),
        "stime": time.strftime("%H:%M" if age < 86400 else "%b%d", time.localtime(begun)), "etime": _elapsed(int(age)),
        "etimes": str(int(age)), "tty": "?" if not terminal else f"pts/{terminal & 0xFF}",
        "time": f"{used // 3600:02d}:{used // 60 % 60:02d}:{used % 60:02d}",
    }  # fmt: skip


def _elapsed(seconds: int) -> str:
    """[[DD-]hh:]mm:ss, as ps writes it."""
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    text = f"{minutes:02d}:{seconds % 60:02d}"
    if hours or days:
        text = f"{hours:02d}:{text}"
    return f"{days}-{text}" if days else text
