"""The same load on both, and what the docker client makes of their statistics."""

from __future__ import annotations

import json
from typing import Any

from support.daemon import Daemon
from support.oracle import Oracle

MIB = 1 << 20


def load(daemon: Daemon | Oracle) -> dict[str, Any]:
    """A fifth of a processor, 20 MiB of memory, three processes."""
    script = "sleep 600 & dd if=/dev/zero of=/dev/shm/fill bs=1M count=20 2>/dev/null; while :; do :; done"
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"Memory": 64 * MIB, "NanoCpus": 2 * 10**8}}
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    assert daemon.call("POST", "/v1.41/containers/create?name=load", data, headers=headers).status == 201
    assert daemon.call("POST", "/v1.41/containers/load/start").status == 204
    try:
        for _ in range(20):  # until the memory is filled
            raw = daemon.call("GET", "/v1.41/containers/load/stats?stream=0").json
            if raw["memory_stats"]["usage"] > 20 * MIB and raw["cpu_stats"]["throttling_data"]["throttled_periods"] > 2:
                break
        shown = json.loads(daemon.docker("stats", "--no-stream", "--format", "{{json .}}", "load").stdout)
        return {"raw": raw, "shown": shown}
    finally:
        daemon.call("DELETE", "/v1.41/containers/load?force=1")


def percent(text: str) -> float:
    return float(text.removesuffix("%"))


def test_docker_stats_shows_the_same_for_the_same_load(sampan: Daemon, oracle: Oracle) -> None:
    ours, theirs = load(sampan), load(oracle)

    assert abs(percent(ours["shown"]["CPUPerc"]) - percent(theirs["shown"]["CPUPerc"])) < 6, (ours["shown"], theirs["shown"])
    assert abs(percent(ours["shown"]["MemPerc"]) - percent(theirs["shown"]["MemPerc"])) < 3
    assert ours["shown"]["MemUsage"].endswith(" / 64MiB") and ours["shown"]["PIDs"] == theirs["shown"]["PIDs"] == "2"
    a, b = ours["raw"], theirs["raw"]
    assert set(a) == set(b) and set(a["cpu_stats"]) == set(b["cpu_stats"]) and set(a["memory_stats"]) == set(b["memory_stats"])
    assert set(b["memory_stats"]["stats"]) <= set(a["memory_stats"]["stats"])
    assert set(a["networks"]) == set(b["networks"]) == {"eth0"} and set(a["networks"]["eth0"]) == set(b["networks"]["eth0"])
    assert set(a["blkio_stats"]) == set(b["blkio_stats"])
    assert a["precpu_stats"]["system_cpu_usage"] < a["cpu_stats"]["system_cpu_usage"]
