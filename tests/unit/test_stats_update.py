"""Statistics and updates: the bytes, docker's percentages, what an update changes, and limits that go back together."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from api_support import Api

from sampan.cgroups.group import GroupV1, GroupV2
from sampan.cgroups.numbers import stats_v1, stats_v2
from sampan.cgroups.update import update
from sampan.cli.main import main
from sampan.cli.stats import row
from sampan.engine.containers import stats as stats_module
from sampan.engine.containers.container import Container
from sampan.engine.containers.stats import Collector
from sampan.engine.containers.update import difference, judge, merged
from sampan.errors import Conflict, InvalidRequest
from sampan.oci.runtime import Cpu, Memory, Pids, Resources
from sampan.wire import containers as c
from sampan.wire import resources as r
from sampan.wire import stats as st

MIB = 1 << 20


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


def container(host: c.HostConfig) -> Container:
    return cast(Container, SimpleNamespace(id="a" * 64, record=SimpleNamespace(host=host)))


class Stand:
    """A container as the collector sees one."""

    id = "a" * 64
    record = SimpleNamespace(running=True, name="web")
    removed = False


def stat(**more: Any) -> st.ContainerStats:
    return st.ContainerStats(name="/web", id="f" * 64, **more)


def cpu(total: int, system: int) -> st.CpuStats:
    return st.CpuStats(cpu_usage=st.CpuUsage(total_usage=total), system_cpu_usage=system, online_cpus=4)


def test_percentages_are_dockers() -> None:
    blocks = [st.BlkioEntry(major=8, minor=0, op=op, value=value) for op, value in (("Read", 1500), ("Write", 2500), ("Total", 9))]
    found = row("web", stat(
        cpu_stats=cpu(3_000, 30_000), precpu_stats=cpu(1_000, 10_000), pids_stats=st.PidsStats(current=7),
        memory_stats=st.MemoryStats(usage=30 * MIB, limit=100 * MIB, stats={"total_inactive_file": 5 * MIB, "inactive_file": MIB}),
        networks={"eth0": st.NetworkStats(rx_bytes=1000, tx_bytes=5), "eth1": st.NetworkStats(rx_bytes=500)},
        blkio_stats=st.BlkioStats(io_service_bytes_recursive=blocks),
    ), whole=False)  # fmt: skip

    assert found == {
        "Container": "web", "Name": "web", "ID": "f" * 12, "CPUPerc": "40.00%", "MemUsage": "25MiB / 100MiB", "MemPerc": "25.00%",
        "NetIO": "1.5kB / 5B", "BlockIO": "1.5kB / 2.5kB", "PIDs": "7",
    }  # fmt: skip
    nothing = row("web", stat(), whole=True)
    assert (nothing["CPUPerc"], nothing["MemUsage"], nothing["MemPerc"], nothing["PIDs"]) == ("0.00%", "0B / 0B", "0.00%", "0")


def test_of_a_container_that_does_not_run_only_zeroes_are_told() -> None:
    blkio = ("io_service_bytes", "io_serviced", "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time", "sectors")
    nothing = {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }
    assert json.loads(msgspec.json.encode(stat())) == {
        "read": "0001-01-01T00:00:00Z", "preread": "0001-01-01T00:00:00Z", "pids_stats": {}, "num_procs": 0, "storage_stats": {},
        "blkio_stats": {f"{key}_recursive": None for key in blkio}, "cpu_stats": nothing, "precpu_stats": nothing,
        "memory_stats": {}, "name": "/web", "id": "f" * 64,
    }  # fmt: skip


def test_v1_and_v2_files_become_the_same_numbers(tmp_path: Path) -> None:
    one, two = tmp_path / "v1", tmp_path / "v2"
    one.mkdir()
    two.mkdir()
    for folder, files in (
        (one, {"cpuacct.stat": "user 3\nsystem 4\n", "cpuacct.usage": "70", "cpuacct.usage_percpu": "30 40", "pids.current": "2",
               "memory.stat": "cache 5\ntotal_inactive_file 6\n", "memory.usage_in_bytes": "99", "memory.limit_in_bytes": "200",
               "blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
               "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\nTotal 3\n"}),
        (two, {"cpu.stat": "usage_usec 7\nuser_usec 3\nsystem_usec 4\nnr_periods 1\n", "memory.current": "99", "memory.max": "200",
               "memory.stat": "inactive_file 6\n", "pids.current": "2", "pids.max": "max",
               "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2"}),
    ):  # fmt: skip
        for name, text in files.items():
            (folder / name).write_text(text)
    v1, v2 = stats_v1(dict.fromkeys(("cpu", "cpuacct", "memory", "pids", "blkio"), str(one))), stats_v2(str(two))

    assert (v1.version, v2.version) == (1, 2) and v1.cpu_each == (30, 40) and v2.cpu_each == ()
    assert v1.io == ((8, 0, "Read", 10, 1), (8, 0, "Write", 20, 2)) and v2.io == ((8, 0, "read", 10, 1), (8, 0, "write", 20, 2))
    assert (v1.memory_usage, v1.memory_limit, v1.pids) == (v2.memory_usage, v2.memory_limit, v2.pids) == (99, 200, 2)
    assert stats_v1({"memory": "/no/such", "cpuacct": "/no/such"}).version == stats_v2("/no/such").version == 0


def test_one_round_serves_every_listener_and_ends_with_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []

    async def scenario() -> None:
        collector = Collector()
        monkeypatch.setattr(stats_module, "PERIOD", 0.01)
        monkeypatch.setattr(stats_module, "Host", lambda: rounds.append(1))
        monkeypatch.setattr(stats_module, "sample", lambda one, host, before: stat(
            read="r", preread=before.read if before is not None else "0001-01-01T00:00:00Z"))  # fmt: skip
        watched = cast(Container, Stand())
        other = cast(Container, Stand())
        streams = [collector.stream(watched) for _ in range(20)] + [collector.stream(other) for _ in range(20)]
        first = await asyncio.gather(*(anext(stream) for stream in streams))
        assert len(rounds) == 1 and collector.watched == 2 and all(one.preread != "r" for one in first)
        assert (await collector.second(watched)).preread == "r"
        watched.removed = True
        with pytest.raises(StopAsyncIteration):
            for _ in range(9):
                await anext(streams[0])
        for stream in streams:
            await stream.aclose()
        assert collector.watched == 0

    asyncio.run(scenario())


def test_a_round_that_fails_ends_the_streams_and_the_next_listener_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        collector, watched = Collector(), cast(Container, Stand())
        monkeypatch.setattr(stats_module, "Host", lambda: None)
        monkeypatch.setattr(stats_module, "sample", lambda one, host, before: 1 / 0)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(collector.stream(watched)), 10)
        monkeypatch.setattr(stats_module, "sample", lambda one, host, before: stat(read="r"))
        stream = collector.stream(watched)
        assert (await asyncio.wait_for(anext(stream), 10)).read == "r"
        await stream.aclose()
        collector.close()

    asyncio.run(scenario())


def test_the_bytes_of_stats_and_update(api: Api) -> None:
    status, headers, body = api.ask("GET", "/containers/web/stats?stream=0")
    assert (status, json.loads(body)["cpu_stats"]["online_cpus"]) == (200, 2) and "content-length" in headers
    assert b'"num_procs":1' in api.ask("GET", "/containers/web/stats")[2]
    assert api.ask("GET", "/containers/nope/stats")[0] == 404
    api.ask("GET", "/v1.40/containers/web/stats?stream=false&one-shot=1")
    api.ask("GET", "/v1.41/containers/web/stats?stream=false&one-shot=1")
    assert [call[1] for call in api.engine.containers.calls if call[0] == "stats"] == [False, False, True]
    body = b'{"Memory":67108864,"PidsLimit":-1,"RestartPolicy":{"Name":"always"}}'
    assert api.ask("POST", "/containers/web/update", body)[::2] == (200, b'{"Warnings":null}\n')
    api.ask("POST", "/v1.39/containers/web/update", body)
    first, old = [call[1] for call in api.engine.containers.calls if call[0] == "update"]
    assert (first.memory, first.pids_limit, first.restart_policy.name, old.pids_limit) == (67108864, -1, "always", None)
    assert api.ask("POST", "/containers/nope/update", b"{}")[0] == 404 and api.ask("POST", "/containers/web/update", b"")[0] == 400


def test_the_commands(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    def sampan(*words: str) -> tuple[int, str]:
        code = main(["-H", f"unix://{api.path}", *words])
        return code, capsys.readouterr().out

    code, out = sampan("stats", "--no-stream", "web")
    assert code == 0 and out.splitlines()[0].split("  ")[0] == "CONTAINER ID" and out.splitlines()[1].startswith("f" * 12)
    assert sampan("stats", "--no-stream", "--format", "{{.Container}} {{.PIDs}}", "web") == (0, "web 0\n")
    assert sampan("stats", "--no-stream", "nope")[0] == 1
    assert sampan("update", "-m", "64m", "--memory-swap", "-1", "--cpus", "1.5", "--restart", "on-failure:3", "web") == (0, "web\n")
    body = api.engine.containers.calls[-1][1]
    assert (body.memory, body.memory_swap, body.nano_cpus, body.restart_policy.maximum_retry_count) == (64 * MIB, -1, 1500000000, 3)
    assert sampan("update", "web")[0] == 1 and sampan("update", "--pids-limit", "5", "nope")[0] == 1


def test_an_update_is_judged_by_itself_in_dockers_words() -> None:
    for body, words in (
        (r.UpdateBody(memory=1), "Minimum memory limit allowed is 6MB"),
        (r.UpdateBody(cpu_period=10), "CPU cfs period can not be less than 1ms"),
        (r.UpdateBody(cpuset_cpus="9999"), "Requested CPUs are not available - requested 9999"),
        (r.UpdateBody(restart_policy=r.RestartPolicy(name="bogus")), "unknown policy 'bogus'"),
        (r.UpdateBody(nano_cpus=99 * 10**12), "range of CPUs is from 0.01"),
        (r.UpdateBody(cpu_shares=-5), "shares"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            judge(body)
    judge(r.UpdateBody(memory_swap=64 * MIB))  # alone it says nothing about the limit that is set


def test_what_contradicts_the_containers_own_is_a_conflict() -> None:
    for old, body, words in (
        (c.HostConfig(), r.UpdateBody(memory=64 * MIB), "Memory limit should be smaller than already set memoryswap limit"),
        (c.HostConfig(nano_cpus=10**9), r.UpdateBody(cpu_quota=20000), "CPU Quota cannot be updated as NanoCPUs"),
        (c.HostConfig(nano_cpus=10**9), r.UpdateBody(cpu_period=20000), "CPU Period cannot be updated as NanoCPUs"),
        (c.HostConfig(cpu_quota=20000), r.UpdateBody(nano_cpus=10**9), "Nano CPUs cannot be updated as CPU Quota"),
        (c.HostConfig(auto_remove=True), r.UpdateBody(restart_policy=r.RestartPolicy(name="always")), "AutoRemove is enabled"),
    ):
        with pytest.raises(Conflict, match=f"Cannot update container {'a' * 64}: .*{words}"):
            merged(container(old), body)


def test_zero_means_as_it_is_and_no_process_limit_is_written_as_such() -> None:
    old = c.HostConfig(memory=64 * MIB, memory_swap=128 * MIB, pids_limit=9, cpu_shares=512, cpu_quota=50000, cpu_period=100000)
    same = merged(container(old), r.UpdateBody())
    assert same == old and difference(old, same) == Resources()

    new = merged(container(old), r.UpdateBody(pids_limit=0, memory=32 * MIB, cpu_quota=20000))
    assert (new.pids_limit, new.memory, new.memory_swap, new.cpu_shares) == (None, 32 * MIB, 128 * MIB, 512)
    assert difference(old, new) == Resources(
        pids=Pids(limit=-1), memory=Memory(limit=32 * MIB, swap=128 * MIB), cpu=Cpu(quota=20000, period=100000)
    )


def test_limits_go_back_together_when_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sampan.cgroups import files

    for name, value in (("memory.limit_in_bytes", "900"), ("memory.memsw.limit_in_bytes", "900"), ("cpu.shares", "1024"),
                        ("cpuset.cpus", "0-1"), ("pids.max", "max")):  # fmt: skip
        (tmp_path / name).write_text(value)
    group = GroupV1(dict.fromkeys(("memory", "cpu", "cpuset", "pids"), str(tmp_path)))
    real = files.write

    def write(path: str, value: str) -> None:
        if path.endswith("pids.max") and value == "5":
            raise OSError(22, "Invalid argument", path)
        Path(path).write_text("")
        real(path, value)

    monkeypatch.setattr(files, "write", write)
    wanted = Resources(memory=Memory(limit=100, swap=200), cpu=Cpu(shares=2, cpus="0"), pids=Pids(limit=5))
    with pytest.raises(InvalidRequest, match=r"pids.max: the kernel refuses '5'"):
        update(group, wanted)

    left = {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)}
    assert left == {"memory.limit_in_bytes": "900", "memory.memsw.limit_in_bytes": "900", "cpu.shares": "1024",
                    "cpuset.cpus": "0-1", "pids.max": "max"}  # fmt: skip
    wanted = Resources(memory=Memory(limit=100, swap=200), pids=Pids(limit=6))
    update(group, wanted)
    assert (tmp_path / "memory.limit_in_bytes").read_text() == "100" and (tmp_path / "pids.max").read_text() == "6"


def test_on_v2_an_empty_processor_list_goes_back_as_empty(tmp_path: Path) -> None:
    (tmp_path / "cpuset.cpus").write_text("\n")
    group = GroupV2({"": str(tmp_path)})
    with pytest.raises(Exception, match=r"pids.max"):
        update(group, Resources(cpu=Cpu(cpus="0"), pids=Pids(limit=5)))

    assert (tmp_path / "cpuset.cpus").read_text().strip() == ""


def test_tops_arguments_are_ps_s_or_refused() -> None:
    from sampan.engine.containers.top import columns

    def titles(text: str) -> list[str]:
        return [title for _, title in columns(text)]

    assert titles("-ef") == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert titles("aux") == ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]
    assert titles("-e") == ["PID", "TTY", "TIME", "CMD"] and titles("ax") == ["PID", "TTY", "STAT", "TIME", "COMMAND"]
    assert titles("-o pid,args") == titles("-eo pid,args") == titles("-opid,args") == ["PID", "COMMAND"]
    assert titles("axo pid -o comm") == ["PID", "COMMAND"]
    for bad, words in (
        ("-o args", "Couldn't find PID field"), ("-o pid,nope", "unknown user-defined format specifier"), ("-o", "must follow -o"),
        ("-Z", "not understood"), ("--forest", "not understood"), ("-o user=PID", "unknown"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match=words):
            columns(bad)
