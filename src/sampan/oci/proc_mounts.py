"""What may be mounted over a container's /proc: almost nothing (SECURITY.md row 5)."""

from __future__ import annotations

from sampan.errors import InvalidRequest

# What may be mounted inside /proc (LXCFS and the like); anything else there could fake what the engine reads.
ALLOWED = frozenset(
    "/proc/" + name for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo",
                                 "net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled")
)  # fmt: skip


def refuse_over_proc(target: str) -> None:
    """Raise InvalidRequest for a mount over the root or in /proc, but for the few files that LXCFS provides (row 5)."""
    clean = "/" + "/".join(part for part in target.split("/") if part not in ("", "."))
    if clean == "/" or ((clean == "/proc" or clean.startswith("/proc/")) and clean not in ALLOWED):
        raise InvalidRequest(f"cannot mount over {clean}: the engine itself relies on what is there")
