"""Volumes: the store's records and users, filters, a body's mounts as places, and the bytes of the endpoints."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api

from sampan.cli.main import main
from sampan.engine.containers import places
from sampan.engine.containers.place_options import mode_of
from sampan.engine.volumes.listing import selected
from sampan.engine.volumes.prune import prune
from sampan.errors import Conflict, InvalidRequest, NotFound, Unsupported
from sampan.state import State
from sampan.storage import volume_mounts
from sampan.storage.volumes import Volumes
from sampan.wire import containers as c


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path)
    yield made
    made.close()


@pytest.fixture
def volumes(state: State, tmp_path: Path) -> Iterator[Volumes]:
    made = Volumes(tmp_path, state)
    yield made
    made.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


def test_a_volume_is_made_once_and_found_as_it_is(volumes: Volumes) -> None:
    first, new = volumes.create("data", {"a": "b"}, {"type": "tmpfs", "device": "tmpfs"})
    again, newer = volumes.create("data", {"other": "label"})

    assert (new, newer, first) == (True, False, again)
    assert volumes.folder("data").stat().st_mode & 0o777 == 0o755
    assert volumes.root.stat().st_mode & 0o777 == 0o700


def test_a_volume_outlives_the_store(state: State, tmp_path: Path, volumes: Volumes) -> None:
    volumes.create("data", {"a": "b"})
    (volumes.folder("data") / "file").write_text("kept")

    later = Volumes(tmp_path, state)
    later.sweep()

    assert later.get("data").labels == {"a": "b"} and (later.folder("data") / "file").read_text() == "kept"
    later.close()


def test_row_91_names_never_leave_the_folder(volumes: Volumes) -> None:
    for name in ("..", "a/b", "../x", ".trash", "", "-a", "a", "ä1", "x" * 300, "a\0b", "a\nb"):
        with pytest.raises(InvalidRequest):
            volumes.create(name)
        with pytest.raises(InvalidRequest):
            volumes.folder(name)


def test_a_volume_in_use_is_not_removed_and_docker_is_quoted(volumes: Volumes) -> None:
    volumes.create("data", user="c2")
    volumes.use("data", "c1")

    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1, c2\]"):
        volumes.remove("data")
    volumes.leave(["data"], "c1")
    volumes.leave(["data"], "c2")
    volumes.remove("data")
    with pytest.raises(NotFound, match="get data: no such volume"):
        volumes.get("data")
    assert not volumes.folder("data").exists()


def test_a_batch_that_fails_leaves_no_record(state: State, volumes: Volumes) -> None:
    with pytest.raises(RuntimeError), state.batch():
        volumes.create("data")
        raise RuntimeError

    assert volumes.find("data") is None
    assert volumes.sweep() == ["volume data that was never finished"]
    assert not volumes.folder("data").exists()


def test_batches_and_removals_of_two_threads_do_not_wait_for_each_other(state: State, volumes: Volumes) -> None:
    volumes.create("other")

    def remove() -> None:
        for _ in range(50):
            volumes.create("other")
            volumes.remove("other")

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    for number in range(50):
        with state.batch():
            volumes.create(f"v{number}")
    thread.join(30)

    assert not thread.is_alive()


def test_volumes_of_an_older_daemon_get_a_record_unless_they_are_empty(volumes: Volumes) -> None:
    for name in ("old", "empty", "used"):
        (volumes.root / name / "_data").mkdir(parents=True)
    (volumes.root / "old/_data/file").write_text("kept")
    volumes.use("used", "c1")

    volumes.sweep()

    assert set(volumes.all()) == {"old", "used"} and (volumes.root / "old/_data/file").exists()


def test_an_unreadable_record_keeps_its_files(state: State, volumes: Volumes) -> None:
    volumes.create("data")
    (volumes.folder("data") / "file").write_text("kept")
    state.write("UPDATE records SET body = ? WHERE kind = 'volume'", b"{nonsense")

    assert volumes.sweep() == ["record of volume data cannot be read"]
    assert (volumes.folder("data") / "file").exists()


def test_options_are_judged_in_dockers_words(volumes: Volumes) -> None:
    for options, words in (
        ({"zzz": "1"}, 'create v1: invalid option: "zzz"'),
        ({"type": "tmpfs"}, 'create v1: missing required option: "device"'),
        ({"device": "tmpfs"}, 'create v1: missing required option: "type"'),
        ({"o": "ro"}, 'create v1: missing required option: "device"'),
        ({"size": "1g"}, "create v1: quota size requested but no quota support"),
        ({"type": "tmpfs", "device": "a\nb"}, "create v1: invalid value"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            volumes.create("v1", None, options)
    assert volumes.all() == {}


def test_mount_words_become_flags_and_data() -> None:
    local = volume_mounts.parse({"type": "tmpfs", "device": "tmpfs", "o": "ro,noexec,size=64m,exec,uid=1000"})
    assert (local.flags, local.data) == (1, "size=64m,uid=1000")
    bound = volume_mounts.parse({"type": "none", "device": "/srv", "o": "rbind"})
    assert (bound.flags, bound.data) == (0x5000, "")
    nfs = volume_mounts.parse({"type": "nfs", "device": ":/x", "o": "addr=127.0.0.1,nolock"})
    assert nfs.data == "addr=127.0.0.1,nolock"
    with pytest.raises(Unsupported, match="error resolving passed in network volume address"):
        volume_mounts.parse({"type": "nfs", "device": ":/x", "o": "addr=no.such.host.invalid"})


def test_filters_of_the_list(volumes: Volumes) -> None:
    volumes.create("web-data", {"tier": "web"}, user="c1")
    volumes.create("db-data", {"tier": "db", "x": ""})

    def found(**filters: tuple[str, ...]) -> list[str]:
        return sorted(selected(volumes, filters))

    assert found(name=("^web",)) == ["web-data"] and found(name=("data$",)) == ["db-data", "web-data"]
    assert found(label=("tier=db",)) == ["db-data"] and found(label=("tier", "x")) == ["db-data"]
    assert found(dangling=("true",)) == ["db-data"] and found(dangling=("0",)) == ["web-data"]
    assert found(driver=("local",)) == ["db-data", "web-data"] and found(driver=("nfs",)) == []
    assert sorted(selected(volumes, {"label!": ("x",)})) == ["web-data"]


def test_prune_takes_anonymous_ones_and_with_all_named_ones_but_none_with_options(volumes: Volumes) -> None:
    volumes.create("f" * 64, {"com.docker.volume.anonymous": ""})
    volumes.create("used", {"com.docker.volume.anonymous": ""}, user="c1")
    volumes.create("named")
    volumes.create("mounted", None, {"type": "tmpfs", "device": "tmpfs"})
    (volumes.folder("f" * 64) / "file").write_bytes(b"x" * 100)

    assert prune(volumes, {}) == (["f" * 64], 100)
    assert prune(volumes, {"all": ("true",), "label": ("no",)}) == ([], 0)
    assert prune(volumes, {"all": ("1",)}) == (["named"], 0)
    assert set(volumes.all()) == {"used", "mounted"}


def test_row_96_nothing_is_pruned_while_a_containers_record_cannot_be_read(volumes: Volumes) -> None:
    volumes.create("f" * 64, {"com.docker.volume.anonymous": ""})
    volumes.unknown = {"c" * 64}

    with pytest.raises(Conflict, match="the record of container cccccccccccc cannot be read"):
        prune(volumes, {})
    assert len(volumes.all()) == 1


def test_a_mount_that_hangs_holds_nobody_elses_exit_up(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    hang, hanging, gone = threading.Event(), threading.Event(), threading.Event()
    for name in ("slow", "fast"):
        volumes.create(name, None, {"type": "nfs", "device": ":/x", "o": "addr=127.0.0.1"})
    monkeypatch.setattr(volume_mounts, "is_mounted", lambda folder: False)
    monkeypatch.setattr(volume_mounts, "detach", lambda folder: gone.set())

    def attach(options: object, folder: Path) -> None:
        if "slow" in str(folder):
            hanging.set()
            assert hang.wait(30)

    monkeypatch.setattr(volume_mounts, "attach", attach)
    volumes.mounted("slow", "c0")
    starting = threading.Thread(target=volumes.open, args=("slow", "c1"))
    starting.start()
    assert hanging.wait(10)
    volumes.close_use(["slow"], "c0")  # returns although the other start still waits for its server
    assert starting.is_alive() and volumes.create("new")[1]
    hang.set()
    starting.join(10)
    volumes.close_use(["slow"], "c1")
    assert gone.wait(10)


def of(**host: object) -> dict[str, object]:
    found = places.of_body(Path("/data"), c.ContainerConfig(), c.HostConfig(**host))  # type: ignore[arg-type]
    return {place.target: place for place in found}


def test_mounts_are_refused_in_dockers_words() -> None:
    m = c.Mount
    for mount, words in (
        (m(type="volume", target="/x", read_only=True), "must not set ReadOnly mode when using anonymous volumes"),
        (m(type="volume", source="vv", target="x"), "invalid mount path: 'x' mount path must be absolute"),
        (m(type="volume", source="vv", target="/.."), "invalid specification: destination can't be '/'"),
        (m(type="volume", source="a/b", target="/x"), "includes invalid characters for a local volume name"),
        (m(type="bind", target="/x"), "field Source must not be empty"),
        (m(type="bind", source="etc", target="/x"), "mount path must be absolute"),
        (m(type="bind", source="/no/such", target="/x"), "bind source path does not exist: /no/such"),
        (m(type="bind", source="/", target="/x", bind_options=c.BindOptions(propagation="zz")), "invalid propagation mode: zz"),
        (m(type="bind", source="/", target="/x", bind_options=c.BindOptions(read_only_force_recursive=True)), "!ReadOnly"),
        (m(type="tmpfs", source="/etc", target="/x"), "field Source must not be specified"),
        (m(type="tmpfs", target="/x", volume_options=c.VolumeOptions()), "VolumeOptions must not be specified"),
        (m(type="volume", source="vv", target="/x", volume_options=c.VolumeOptions(subpath="../x")), "subpath must be"),
        (m(type="what", target="/x"), "mount type unknown"),
    ):
        with pytest.raises(InvalidRequest, match=words.replace("(", r"\(")):
            of(mounts=[mount])
    driver = c.VolumeOptions(driver_config=c.DriverConfig(name="nope"))
    with pytest.raises(NotFound, match='plugin "nope" not found'):
        of(mounts=[m(type="volume", source="vv", target="/x", volume_options=driver)])
    with pytest.raises(InvalidRequest, match="field BindOptions must not be specified"):
        of(binds=["vv:/x:shared"])


def test_of_each_kind_of_word_one_may_be_given() -> None:
    assert mode_of("ro,z,nocopy").readonly and mode_of("rw,rslave").propagation == "rslave"
    for bad in ("ro,rw", "ro,ro", "z,Z", "shared,slave", "bogus", "ro,"):
        with pytest.raises(InvalidRequest, match="invalid mode"):
            mode_of(bad)


def test_what_holds_the_daemons_root_is_a_slave_by_default() -> None:
    assert of(binds=["/:/host"])["/host"].propagation == "rslave"  # type: ignore[attr-defined]
    assert of(binds=["/srv:/host"])["/host"].propagation == ""  # type: ignore[attr-defined]


def test_own_mounts_win_over_those_of_other_containers() -> None:
    others = tuple(of(binds=["/srv:/a", "/opt:/b"]).values())
    found = places.of_body(
        Path("/data"),
        c.ContainerConfig(volumes={"/b": {}}),
        c.HostConfig(binds=["mine:/a"]),
        others,  # type: ignore[arg-type]
    )

    assert [(place.kind, place.target) for place in found] == [("bind", "/b"), ("volume", "/a")]


def test_the_bytes_of_the_endpoints(api: Api) -> None:
    status, _, body = api.ask("POST", "/v1.50/volumes/create", b'{"Name":"data","DriverOpts":{"type":"tmpfs"}}')
    assert status == 201
    assert json.loads(body) == {
        "Driver": "local", "Labels": None, "Mountpoint": "", "Name": "data", "Options": {"type": "tmpfs"}, "Scope": "local",
    }  # fmt: skip
    assert json.loads(api.ask("GET", "/volumes")[2])["Volumes"][0]["CreatedAt"] == "2026-11-24T02:00:54Z"
    assert api.ask("GET", "/volumes/nope")[::2] == (404, b'{"message":"get nope: no such volume"}\n')
    assert api.ask("DELETE", "/volumes/data")[0] == 409 and api.ask("DELETE", "/volumes/data?force=1")[0] == 204
    assert api.ask("PUT", "/volumes/data?version=1", b"{}")[0] == 503
    assert json.loads(api.ask("POST", "/volumes/prune", b"")[2]) == {"VolumesDeleted": ["data"], "SpaceReclaimed": 5}
    for bad in ("%7B%22until%22%3A%5B%221h%22%5D%7D", "%7B%22all%22%3A%5B%22maybe%22%5D%7D"):
        assert api.ask("POST", f"/volumes/prune?filters={bad}", b"")[0] == 400


def test_before_1_42_prune_takes_named_volumes_too(api: Api) -> None:
    api.ask("POST", "/v1.41/volumes/prune", b"")
    api.ask("POST", "/v1.42/volumes/prune", b"")

    assert [call[1] for call in api.engine.volumes.calls] == [{"all": ("true",)}, {}]


def test_the_command_prints_as_dockers(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    def sampan(*words: str) -> tuple[int, str]:
        return main(["-H", f"unix://{api.path}", "volume", *words]), capsys.readouterr().out

    assert sampan("create", "--label", "a=b", "-o", "type=tmpfs", "data") == (0, "data\n")
    assert api.engine.volumes.calls[-1][1].labels == {"a": "b"}
    assert sampan("ls") == (0, "DRIVER    VOLUME NAME\nlocal     data\n")
    assert sampan("ls", "-q") == (0, "data\n") and sampan("ls", "--format", "{{.Name}} {{.Links}}") == (0, "data N/A\n")
    assert sampan("rm", "-f", "data") == (0, "data\n") and sampan("rm", "data")[0] == 1
    assert sampan("prune", "-a", "-f") == (0, "Deleted Volumes:\ndata\n\nTotal reclaimed space: 5B\n")
    assert json.loads(sampan("inspect", "data")[1])[0]["Name"] == "data" and sampan("inspect", "nope")[0] == 1
