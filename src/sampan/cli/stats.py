"""sampan stats: what containers use, once or drawn anew each second."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType

from sampan.cli.table import show
from sampan.cli.units import binary, size
from sampan.client.errors import ApiError, ClientError

if TYPE_CHECKING:
    from sampan.cli.main import Invocation
    from sampan.client.api import Client
    from sampan.wire.stats import ContainerStats

COLUMNS = [
    ("ID", "CONTAINER ID"), ("Name", "NAME"), ("CPUPerc", "CPU %"), ("MemUsage", "MEM USAGE / LIMIT"), ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"), ("BlockIO", "BLOCK I/O"), ("PIDs", "PIDS"),
]  # fmt: skip
KIND = "*container.statsContext"
PERIOD = 1.0
AT_ONCE = 64


def run(call: Invocation) -> int:
    if call.options.no_stream:
        return _once(call)
    try:
        _follow(call)
    except KeyboardInterrupt:
        pass
    return 0


def _names(call: Invocation) -> list[str]:
    return call.arguments or [one.id for one in call.client.containers.list(all=call.options.all)]


def _once(call: Invocation) -> int:
    errors: list[str] = []

    def ask(ref: str) -> tuple[str, ContainerStats | None]:
        try:
            return ref, call.client.containers.stats(ref)
        except ApiError as error:
            if call.arguments:
                errors.append(str(error))
            return ref, None

    names = _names(call)
    with ThreadPoolExecutor(max(1, min(AT_ONCE, len(names)))) as pool:
        found = list(pool.map(ask, names))
    _show([row(ref, one, whole=call.options.no_trunc) for ref, one in found if one is not None], call.options.format)
    sys.stdout.flush()
    for text in errors:
        print(f"Error response from daemon: {text}", file=sys.stderr)
    return 1 if errors else 0


def _show(rows: list[dict[str, Any]], form: str) -> None:
    show(rows, COLUMNS, form, KIND)


class Followed:
    """One container's stream, read by a thread of its own; `latest` is its last sample."""

    def __init__(self, client: Client, ref: str) -> None:
        self.ref = ref
        self.latest: ContainerStats | None = None
        self.over = False
        self.error = ""
        threading.Thread(target=self._read, args=(client,), daemon=True).start()

    def _read(self, client: Client) -> None:
        try:
            for found in client.containers.stats_stream(self.ref):
                self.latest = found
        except ClientError as error:
            self.error = str(error)
        self.over = True


def _follow(call: Invocation) -> None:
    """Draw until interrupted, or until every container that was named is gone."""
    followed: dict[str, Followed] = {}
    form = call.options.format
    while True:
        for ref in call.arguments if followed and call.arguments else _names(call):
            if ref not in followed:
                followed[ref] = Followed(call.client, ref)
        time.sleep(PERIOD)
        for ref, one in list(followed.items()):
            if one.over and not call.arguments:
                del followed[ref]
        if call.arguments and all(one.over for one in followed.values()):
            for one in followed.values():
                if one.error:
                    print(f"Error response from daemon: {one.error}", file=sys.stderr)
            return
        running = [one for one in followed.values() if one.latest is not None and not one.over]
        print("\x1b[H\x1b[J", end="")
        _show([row(one.ref, one.latest, whole=call.options.no_trunc) for one in running], form)
        sys.stdout.flush()


def _number(value: int | UnsetType) -> int:
    return 0 if value is UNSET else value


def row(ref: str, one: ContainerStats | None, *, whole: bool) -> dict[str, Any]:
    """A line: percentages as docker works them out (engine-api 4.9)."""
    assert one is not None
    memory, limit = used(one), _number(one.memory_stats.limit)
    networks = list(one.networks.values()) if isinstance(one.networks, dict) else []
    blocks = one.blkio_stats.io_service_bytes_recursive or []
    read = sum(entry.value for entry in blocks if entry.op[:1] in ("r", "R"))
    written = sum(entry.value for entry in blocks if entry.op[:1] in ("w", "W"))
    return {
        "Container": ref, "Name": one.name.removeprefix("/"), "ID": one.id if whole else one.id[:12],
        "CPUPerc": f"{cpu(one):.2f}%", "MemUsage": f"{binary(memory)} / {binary(limit)}",
        "MemPerc": f"{memory / limit * 100 if limit else 0.0:.2f}%",
        "NetIO": f"{size(sum(n.rx_bytes for n in networks))} / {size(sum(n.tx_bytes for n in networks))}",
        "BlockIO": f"{size(read)} / {size(written)}", "PIDs": str(_number(one.pids_stats.current)),
    }  # fmt: skip


def cpu(one: ContainerStats) -> float:
    """The share of one processor in percent."""
    now, before = one.cpu_stats, one.precpu_stats
    own = now.cpu_usage.total_usage - before.cpu_usage.total_usage
    host = _number(now.system_cpu_usage) - _number(before.system_cpu_usage)
    each = now.cpu_usage.percpu_usage
    count = _number(now.online_cpus) or (len(each) if isinstance(each, list) else 0)
    return own / host * count * 100 if own > 0 and host > 0 else 0.0


def used(one: ContainerStats) -> int:
    """Memory without what the kernel would give back at once."""
    usage = _number(one.memory_stats.usage)
    stats = one.memory_stats.stats if isinstance(one.memory_stats.stats, dict) else {}
    cached = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    return usage - cached if cached < usage else usage
