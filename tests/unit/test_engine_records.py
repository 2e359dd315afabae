"""Names, events, jobs, mounts, security and validation of the engine, without a kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from sampan.engine import spec, spec_resources, spec_security
from sampan.engine.containers import places, validate
from sampan.engine.containers.inspect import human
from sampan.engine.containers.signals import number_of
from sampan.engine.containers.start import exit_code_of
from sampan.engine.events import Bus, matches, moment
from sampan.engine.jobs import Jobs
from sampan.engine.names import Index
from sampan.engine.records import ContainerRecord
from sampan.errors import Conflict, InvalidRequest, NotFound
from sampan.wire import containers as c


def record(**more: object) -> ContainerRecord:
    base: dict[str, object] = {
        "id": "a" * 64, "name": "web", "created": 1, "image": "sha256:x", "image_ref": "busybox", "path": "sh", "args": (),
        "config": c.ContainerConfig(hostname="h"), "host": validate.host(c.HostConfig()), "uid_base": 1 << 20,
    }  # fmt: skip
    return ContainerRecord(**{**base, **more})  # type: ignore[arg-type]


def test_a_name_in_use_is_a_conflict_and_a_prefix_finds_its_container() -> None:
    index = Index()
    index.add("web", "abc" + "0" * 61)
    index.add("other", "abd" + "0" * 61)

    with pytest.raises(Conflict, match="already in use"):
        index.add("web", "f" * 64)
    assert index.find("abc").startswith("abc")
    assert index.find("/web").startswith("abc")
    with pytest.raises(InvalidRequest, match="multiple"):
        index.find("ab")
    with pytest.raises(NotFound):
        index.find("zz")
    assert "_" in index.generate()


def test_a_job_is_kept_with_its_end() -> None:
    jobs = Jobs()
    with jobs.open("start", {"name": "web"}):
        assert [job.result for job in jobs.shown(all=False)] == [""]
    with pytest.raises(ValueError, match="boom"), jobs.open("stop", {}):
        raise ValueError("boom")

    assert [job.result for job in jobs.shown(all=True)] == ["OK (0)", "ERR (boom)"]


def test_events_are_replayed_filtered_and_bounded() -> None:
    async def scenario() -> list[str]:
        bus = Bus()
        for number in range(300):
            bus.emit("container", "start" if number % 2 else "die", f"id{number}", {"name": "web", "image": "busybox"})
        return [event.actor.id async for event in bus.stream("1", "9999999", {"event": ("start",)})]

    found = asyncio.run(scenario())
    assert found == []  # all are later than `until`

    async def later() -> int:
        bus = Bus()
        for number in range(300):
            bus.emit("container", "die", f"id{number}", {"name": "web", "image": "busybox:1"})
        seen = [e async for e in bus.stream("1", "0000000001", {})]
        assert seen == []
        past = list(bus._ring)
        assert matches(past[0], {"container": ("web",)}) and not matches(past[0], {"container": ("db",)})
        assert matches(past[0], {"image": ("busybox",), "type": ("container",)})
        return len(past)

    assert asyncio.run(later()) == 256
    assert moment("1.5") == 1_500_000_000


def test_row_20_no_capability_is_inheritable_or_ambient() -> None:
    sets = spec.process(record()).capabilities

    assert sets.inheritable == sets.ambient == ()
    assert len(sets.bounding) == 14 and sets.bounding == sets.permitted == sets.effective


def test_capabilities_are_added_dropped_and_refused_by_name() -> None:
    assert spec_security.bounding(c.HostConfig(cap_drop=["all"], cap_add=["net_admin"])) == ("CAP_NET_ADMIN",)
    assert "CAP_CHOWN" not in spec_security.bounding(c.HostConfig(cap_drop=["CHOWN"]))
    with pytest.raises(InvalidRequest, match='unknown capability: "CAP_FOO"'):
        spec_security.bounding(c.HostConfig(cap_add=["foo"]))


def test_row_25_the_environment_is_built_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "x")

    assert spec.environment(record(config=c.ContainerConfig(hostname="h", env=["A=1"]))) == (spec.PATH, "HOSTNAME=h", "A=1")


@pytest.mark.parametrize("text", ["a\n1.2.3.4 bank", "x" * 65, "-a", "a b"])
def test_row_84_a_hostname_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        validate.config(c.ContainerConfig(hostname=text), c.HostConfig())


@pytest.mark.parametrize("text", ["..", "a/../b", "%2e%2e", "a\0b", "x" * 300, "a‮b", "-a", "a"])
def test_row_91_a_name_that_is_a_path_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        validate.name(text)


@pytest.mark.parametrize("text", ["/../../system.slice", "..", "../victim", "a/../../b", "/", "a//b", "a\nb"])
def test_row_105_a_cgroup_parent_stays_beneath(text: str) -> None:
    with pytest.raises(InvalidRequest):
        validate.host(c.HostConfig(cgroup_parent=text))


@pytest.mark.parametrize(
    ("option", "sign", "without"),
    [("apparmor=docker-default", "_APPARMOR", "apparmor=unconfined"), ("label=type:container_t", "_SELINUX", "label=disable")],
)
def test_p17_a_label_is_refused_with_the_reason_wherever_the_host_has_the_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str, sign: str, without: str
) -> None:
    for there, words in ((True, f"--security-opt {without}"), (False, "this host has no")):
        monkeypatch.setattr(spec_security, sign, tmp_path if there else tmp_path / "none")
        with pytest.raises(InvalidRequest, match=words):
            validate.host(c.HostConfig(security_opt=[option]))
        validate.host(c.HostConfig(security_opt=[without]))


@pytest.mark.parametrize(
    "host",
    [
        c.HostConfig(memory=1024), c.HostConfig(memory=8 << 20, memory_swap=7 << 20), c.HostConfig(nano_cpus=10**15),
        c.HostConfig(nano_cpus=10**9, cpu_quota=5000), c.HostConfig(cpuset_cpus="99999"), c.HostConfig(ipc_mode="x"),
        c.HostConfig(auto_remove=True, restart_policy=c.RestartPolicy(name="always")),
        c.HostConfig(restart_policy=c.RestartPolicy(name="zzz")), c.HostConfig(security_opt=["apparmor=x"]),
        c.HostConfig(sysctls={"kernel.core_pattern": "|x"}), c.HostConfig(runtime="kata"),
        c.HostConfig(port_bindings={"x/tcp": []}), c.HostConfig(log_config=c.LogConfig(type="gelf")),
        c.HostConfig(ulimits=[c.Ulimit(name="nofile", soft=5, hard=1)]), c.HostConfig(blkio_weight=5),
        c.HostConfig(network_mode="container:x1", dns=["1.1.1.1"]), c.HostConfig(devices=[c.DeviceMapping(path_on_host="/nil")]),
    ],
)  # fmt: skip
def test_what_create_must_refuse_is_refused(host: c.HostConfig) -> None:
    with pytest.raises(InvalidRequest):
        validate.host(host)


def test_binds_volumes_and_tmpfs_become_places(tmp_path: object) -> None:
    from pathlib import Path

    root = Path(str(tmp_path))
    host = c.HostConfig(binds=["/srv:/data:ro", "vol:/v"], tmpfs={"/t": "size=1m"})
    found = {place.target: place for place in places.of_body(root, c.ContainerConfig(volumes={"/anon": {}}), host)}

    assert (found["/data"].kind, found["/data"].readonly) == ("bind", True)
    assert found["/v"].source == str(root / "volumes/vol/_data")
    assert "size=1m" in found["/t"].options and found["/anon"].anonymous
    with pytest.raises(InvalidRequest, match="Duplicate"):
        places.of_body(root, c.ContainerConfig(), c.HostConfig(binds=["/a:/x", "/b:/x"]))
    for bad in ("/a:..", "/a:/", "../x:/y", "/a:/b:zz", "a:b:c:d"):
        with pytest.raises(InvalidRequest):
            places.bind(root, bad)


def test_memory_and_cpus_become_limits() -> None:
    made = spec_resources.resources(validate.host(c.HostConfig(memory=64 << 20, nano_cpus=5 * 10**8, pids_limit=9)), ())

    assert made.memory is not None and (made.memory.limit, made.memory.swap) == (64 << 20, 128 << 20)
    assert made.cpu is not None and (made.cpu.quota, made.cpu.period) == (50_000, 100_000)
    assert made.pids is not None and made.pids.limit == 9


def test_a_container_has_its_own_user_namespace_unless_its_flags_imply_the_hosts() -> None:
    assert not spec.shares_host(record())
    for host in (c.HostConfig(privileged=True), c.HostConfig(userns_mode="host"), c.HostConfig(pid_mode="host"),
                 c.HostConfig(network_mode="host")):  # fmt: skip
        assert spec.shares_host(record(host=validate.host(host)))


def test_signals_by_name_and_number() -> None:
    assert [number_of(text) for text in ("SIGTERM", "kill", "15", "RTMIN+3", "SIGRTMAX")] == [15, 9, 15, 37, 64]
    for bad in ("FOO", "0", "99", "RTMIN+99", "", "١"):
        with pytest.raises(InvalidRequest):
            number_of(bad)


def test_exit_codes_of_failed_starts_and_durations_are_dockers() -> None:
    assert [exit_code_of("exec", code, "") for code in (2, 13, 8)] == [127, 126, 126]
    assert exit_code_of("mount /proc", 2, "") == 128
    assert [human(s) for s in (0, 1, 59, 60, 3600, 86400 * 3)] == [
        "Less than a second", "1 second", "59 seconds", "About a minute", "About an hour", "3 days",
    ]  # fmt: skip


def test_a_stream_hears_what_happens_before_its_first_item_is_asked_for_and_is_forgotten_with_its_reader() -> None:
    async def listen() -> tuple[str, int, int]:
        bus = Bus()
        stream = bus.stream("", "", {})
        unread = bus.stream("", "", {})
        bus.emit("container", "start", "early", {})
        heard = await anext(stream)
        before = bus.listeners
        del unread
        assert bus.listeners == 1
        assert isinstance(stream, AsyncGenerator)
        await stream.aclose()
        return heard.actor.id, before, bus.listeners

    assert asyncio.run(listen()) == ("early", 2, 0)
