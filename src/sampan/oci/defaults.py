"""What /proc and /sys are in every container, unless somebody asks for something else (caps.md 3, 4)."""

from __future__ import annotations

from sampan.oci.runtime import Mount

MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
PROC = Mount(destination="/proc", type="proc", options=("nosuid", "noexec", "nodev"))
SYS = Mount(destination="/sys", type="sysfs", options=("nosuid", "noexec", "nodev", "ro"))
