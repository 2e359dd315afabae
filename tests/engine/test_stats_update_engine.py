"""What running containers use and may use: numbers of a known load, limits that change, memory that runs out."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from support.daemon import Daemon, UnixHttp

MIB = 1 << 20


def started(daemon: Daemon, *command: str, **body: Any) -> str:
    container = daemon.create(*command, **body)
    daemon.ok("POST", f"/containers/{container}/start")
    return container


def limit(daemon: Daemon, container: str, controller: str, name: str) -> str:
    """Return what the kernel holds."""
    for top in (Path("/sys/fs/cgroup") / controller, Path("/sys/fs/cgroup")):
        path = top / daemon.cgroup_parent.strip("/") / container / name
        if path.exists():
            return path.read_text().strip()
    raise AssertionError(f"no {controller} {name}")


def v1() -> bool:
    return Path("/sys/fs/cgroup/memory").exists()


def events(daemon: Daemon, container: str) -> list[dict[str, Any]]:
    body = daemon.call("GET", f'/events?since=1&until={time.time():.6f}&filters={{"container":["{container}"]}}').body
    return [json.loads(line) for line in body.splitlines()]


def test_a_second_sample_tells_what_a_busy_container_used_in_between(daemon: Daemon) -> None:
    container = started(daemon, "sh", "-c", "while :; do :; done", HostConfig={"Memory": 64 * MIB, "PidsLimit": 50})
    found = daemon.ok("GET", f"/containers/{container}/stats?stream=0")

    assert found["id"] == container and found["read"] > found["preread"] > "2020"
    own = found["cpu_stats"]["cpu_usage"]["total_usage"] - found["precpu_stats"]["cpu_usage"]["total_usage"]
    host = found["cpu_stats"]["system_cpu_usage"] - found["precpu_stats"]["system_cpu_usage"]
    assert own > 10**7 and host >= own * 0.9
    assert found["cpu_stats"]["online_cpus"] == os.cpu_count()
    assert 0 < found["memory_stats"]["usage"] < found["memory_stats"]["limit"] == 64 * MIB
    assert ("total_inactive_file" if v1() else "inactive_file") in found["memory_stats"]["stats"]
    assert found["pids_stats"] == {"current": 1, "limit": 50}


def test_one_shot_comes_at_once_and_without_the_sample_before(daemon: Daemon) -> None:
    container = started(daemon, "sleep", "600")
    begin = time.monotonic()
    found = daemon.ok("GET", f"/containers/{container}/stats?stream=0&one-shot=1")

    assert time.monotonic() - begin < 0.9
    assert found["preread"] == "0001-01-01T00:00:00Z" and found["precpu_stats"]["cpu_usage"]["total_usage"] == 0


def test_traffic_is_counted_by_interface_and_hosts_is_not_shown(daemon: Daemon) -> None:
    gateway = daemon.subnet.partition("/")[0]
    container = started(daemon, "sh", "-c", f"ping -c 3 -i 0.1 -s 1000 {gateway} >/dev/null; exec sleep 600")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = daemon.ok("GET", f"/containers/{container}/stats?stream=0&one-shot=1")["networks"]
        if min(found["eth0"]["tx_bytes"], found["eth0"]["rx_bytes"]) >= 3000:
            break
    assert list(found) == ["eth0"] and found["eth0"]["tx_packets"] >= 3 and found["eth0"]["rx_packets"] >= 3
    for mode in ("host", "none"):
        other = started(daemon, "sleep", "600", HostConfig={"NetworkMode": mode})
        assert "networks" not in daemon.ok("GET", f"/containers/{other}/stats?stream=0&one-shot=1")
    joined = started(daemon, "sleep", "600", HostConfig={"NetworkMode": f"container:{container}"})
    assert "eth0" in daemon.ok("GET", f"/containers/{joined}/stats?stream=0&one-shot=1")["networks"]


def stream(daemon: Daemon, container: str) -> tuple[UnixHttp, http.client.HTTPResponse]:
    connection = UnixHttp(daemon.sock, 30)
    connection.request("GET", f"/containers/{container}/stats")
    return connection, connection.getresponse()


def test_a_stream_goes_on_through_a_stop_and_ends_with_the_removal(daemon: Daemon) -> None:
    container = started(daemon, "sleep", "600")
    connection, response = stream(daemon, container)
    first, second = (json.loads(response.readline()) for _ in range(2))
    assert first["preread"] == "0001-01-01T00:00:00Z" and second["preread"] == first["read"]
    daemon.ok("POST", f"/containers/{container}/stop?t=0")
    while json.loads(response.readline())["read"] != "0001-01-01T00:00:00Z":
        pass
    daemon.ok("DELETE", f"/containers/{container}")
    while response.readline():
        pass
    connection.close()


def test_stats_of_a_stopped_container_are_zeroes_at_once(daemon: Daemon) -> None:
    container = daemon.create("true", name="still")
    begin = time.monotonic()
    found = daemon.ok("GET", f"/containers/{container}/stats?stream=0")

    assert time.monotonic() - begin < 0.9 and found["memory_stats"] == {} and found["name"] == "/still"


def test_many_onlookers_of_many_containers_cost_one_round_a_second(daemon: Daemon) -> None:
    containers = [started(daemon, "sleep", "600", HostConfig={"NetworkMode": "none"}) for _ in range(8)]
    open_streams = [stream(daemon, container) for container in containers for _ in range(5)]
    for _, response in open_streams:
        response.readline()
    begin, before = time.monotonic(), _cpu_time(daemon.pid)
    for _ in range(2):
        for _, response in open_streams:
            assert json.loads(response.readline())["read"] > "2020"
    spent, passed = _cpu_time(daemon.pid) - before, time.monotonic() - begin
    for connection, _ in open_streams:
        connection.close()
    assert passed > 0.9 and spent < 0.5, f"{spent} s of processor in {passed} s"


def _cpu_time(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_an_update_reaches_the_kernel_and_the_record_and_outlives_both(daemon: Daemon) -> None:
    container = started(daemon, "sleep", "600", HostConfig={"Memory": 64 * MIB, "PidsLimit": 50})
    body = {"Memory": 32 * MIB, "MemorySwap": 48 * MIB, "CpuShares": 512, "NanoCpus": 5 * 10**8, "CpusetCpus": "0",
            "PidsLimit": -1, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}  # fmt: skip
    assert daemon.ok("POST", f"/containers/{container}/update", body) == {"Warnings": None}

    def held() -> list[str]:
        if v1():
            names = (("memory", "memory.limit_in_bytes"), ("cpu", "cpu.shares"), ("cpu", "cpu.cfs_quota_us"),
                     ("cpuset", "cpuset.cpus"), ("pids", "pids.max"))  # fmt: skip
        else:
            names = (("", "memory.max"), ("", "cpu.weight"), ("", "cpu.max"), ("", "cpuset.cpus"), ("", "pids.max"))
        return [limit(daemon, container, controller, name) for controller, name in names]

    wanted = [str(32 * MIB), "512", "50000", "0", "max"] if v1() else [str(32 * MIB), "59", "50000 100000", "0", "max"]
    assert held() == wanted
    daemon.restart()
    host = daemon.ok("GET", f"/containers/{container}/json")["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"], host["NanoCpus"]) == (32 * MIB, 48 * MIB, None, 5 * 10**8)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    daemon.ok("POST", f"/containers/{container}/restart?t=0")
    assert held() == wanted


def test_an_update_that_is_refused_changes_nothing(daemon: Daemon) -> None:
    container = started(daemon, "sleep", "600", HostConfig={"Memory": 64 * MIB})
    before = daemon.ok("GET", f"/containers/{container}/json")["HostConfig"]
    name = ("pids", "pids.max") if v1() else ("", "pids.max")
    kernel = limit(daemon, container, *name)
    for body, status in (
        ({"PidsLimit": 9, "Memory": 512 * MIB}, 409), ({"PidsLimit": 9, "CpusetCpus": "999"}, 400),
        ({"PidsLimit": 9, "Memory": 1}, 400),
        ({"PidsLimit": 9, "CpusetMems": "1000"}, 400), ({"PidsLimit": 9, "RestartPolicy": {"Name": "no-such"}}, 400),
        ({"PidsLimit": 9, "CpuRealtimeRuntime": 99999999}, 400),
    ):  # fmt: skip
        answer = daemon.call("POST", f"/containers/{container}/update", body)
        assert answer.status == status, (body, answer)
        assert limit(daemon, container, *name) == kernel
    assert daemon.ok("GET", f"/containers/{container}/json")["HostConfig"] == before
    assert [one["Action"] for one in events(daemon, container)].count("update") == 0


def test_an_update_of_a_stopped_container_waits_for_its_start(daemon: Daemon) -> None:
    container = daemon.create("sleep", "600")
    daemon.ok("POST", f"/containers/{container}/update", {"PidsLimit": 7})
    daemon.ok("POST", f"/containers/{container}/start")

    assert limit(daemon, container, "pids", "pids.max") == "7"


def test_memory_that_runs_out_is_told_when_it_happens(daemon: Daemon) -> None:
    script = "sh -c 'tail /dev/zero'; read line; exit 5"
    container = started(daemon, "sh", "-c", script, OpenStdin=True, HostConfig={"Memory": 16 * MIB, "MemorySwap": 16 * MIB})
    heard = threading.Event()

    def listen() -> None:
        connection = UnixHttp(daemon.sock, 30)
        connection.request("GET", f'/events?since=1&filters={{"container":["{container}"],"event":["oom"]}}')
        if b'"oom"' in connection.getresponse().readline():
            heard.set()
        connection.close()

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join(30)
    assert heard.is_set()
    state = daemon.ok("GET", f"/containers/{container}/json")["State"]
    assert state["Running"] and state["OOMKilled"]
    daemon.restart()
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["OOMKilled"]
    daemon.ok("POST", f"/containers/{container}/stop?t=0")
    assert daemon.ok("GET", f"/containers/{container}/json")["State"]["OOMKilled"]
    assert [one["Action"] for one in events(daemon, container)].count("oom") <= 1


def test_a_container_that_was_killed_for_memory_says_so_until_its_next_start(daemon: Daemon) -> None:
    container = started(daemon, "sh", "-c", "exec tail /dev/zero", HostConfig={"Memory": 16 * MIB, "MemorySwap": 16 * MIB})
    assert daemon.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 137
    state = daemon.ok("GET", f"/containers/{container}/json")["State"]
    told = [one["Action"] for one in events(daemon, container)]

    assert state["OOMKilled"] and state["ExitCode"] == 137
    assert told.count("oom") >= 1 and told.index("oom") < told.index("die")


def test_killing_is_not_running_out_of_memory(daemon: Daemon) -> None:
    container = started(daemon, "sleep", "600", HostConfig={"Memory": 16 * MIB})
    daemon.ok("POST", f"/containers/{container}/kill")

    assert not daemon.ok("GET", f"/containers/{container}/json")["State"]["OOMKilled"]
    assert "oom" not in [one["Action"] for one in events(daemon, container)]
