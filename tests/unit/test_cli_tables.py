"""Tables, cells and exit codes of commands, against the API server with a fake engine behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api

from sampan.cli import events, images, ps
from sampan.cli.main import main
from sampan.cli.table import align, short
from sampan.wire import containers as c
from sampan.wire import images as i
from sampan.wire import registry as r
from sampan.wire import system as s

ID = "f" * 64


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


def sampan(api: Api, *words: str) -> int:
    return main(["-H", f"unix://{api.path}", *words])


def summary(**more: object) -> c.ContainerSummary:
    base: dict[str, object] = {
        "id": ID, "names": ["/web"], "image": "busybox", "image_id": "", "command": "sh -c 'while true; do echo hello'",
        "created": 1000, "state": "running", "status": "Up 3 seconds", "host_config": c.SummaryHostConfig(),
        "network_settings": c.SummaryNetworks(),
    }  # fmt: skip
    return c.ContainerSummary(**{**base, **more})  # type: ignore[arg-type]


def test_columns_are_ten_wide_or_three_beyond_the_widest() -> None:
    assert align([["REPOSITORY", "TAG", "SIZE"], ["busybox", "latest", "1.98MB"]]) == (
        "REPOSITORY   TAG       SIZE\nbusybox      latest    1.98MB\n"
    )


def test_a_cut_cell_ends_in_an_ellipsis() -> None:
    assert short("sh -c 'while true; do", 20) == "sh -c 'while true; …"
    assert short("short", 20) == "short"


def test_ps_cells_are_dockers() -> None:
    row = ps.row(summary(names=["/web", "/other/alias"], labels={"b": "2", "a": "1"}, size_rw=5, size_root_fs=7_800_005), 1003)

    assert row["ID"] == "f" * 12
    assert row["Command"] == '"sh -c \'while true; …"'
    assert row["RunningFor"] == "3 seconds ago"
    assert row["Names"] == "web"
    assert row["Labels"] == "a=1,b=2"
    assert row["Size"] == "5B (virtual 7.8MB)"
    assert ps.row(summary(), 1003, whole=True)["ID"] == ID


PORTS = [
    ([("", 443, 0)], "443/tcp"),
    ([("0.0.0.0", 80, 8080), ("::", 80, 8080)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
    ([("127.0.0.1", n, n) for n in (8001, 8002, 8003)] + [("0.0.0.0", 9000, 9000)],
     "127.0.0.1:8001-8003->8001-8003/tcp, 0.0.0.0:9000->9000/tcp"),
    ([("", 8000, 0), ("", 8001, 0), ("", 8002, 0)], "8000-8002/tcp"),
    ([("0.0.0.0", 80, 8080), ("0.0.0.0", 81, 8081)], "0.0.0.0:8080->80/tcp, 0.0.0.0:8081->81/tcp"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "wanted"), PORTS)
def test_consecutive_ports_are_merged(found: list[tuple[str, int, int]], wanted: str) -> None:
    made = [
        c.PortSummary(private_port=private, type="tcp", **({"ip": ip, "public_port": public} if public else {}))
        for ip, private, public in found
    ]
    assert ps.ports(made) == wanted


def test_image_rows_are_tags_digests_or_none() -> None:
    one = i.ImageSummary(created=1, id="sha256:" + "a" * 64, repo_tags=["r:5000/a:1", "b:2"], repo_digests=["b@sha256:c"], size=5)

    assert [(r["Repository"], r["Tag"]) for r in images._rows(one, False, False)] == [("r:5000/a", "1"), ("b", "2")]
    assert [r["Digest"] for r in images._rows(one, False, True)] == ["<none>", "sha256:c"]
    bare = i.ImageSummary(created=1, id="sha256:" + "a" * 64)
    assert [(r["Repository"], r["Tag"], r["ID"]) for r in images._rows(bare, False, False)] == [("<none>", "<none>", "a" * 12)]


def test_images_are_drawn_as_a_tree(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = i.ManifestSummary(
        id="sha256:" + "b" * 64, descriptor=r.OfDescriptor(media_type="m", digest="sha256:" + "b" * 64, size=1),
        size=i.ContentSize(total=3000, content=1000),
        image_data=i.ImageData(platform=r.OfPlatform(architecture="arm", os="linux", variant="v7"), containers=["c"],
                               size=i.UnpackedSize(unpacked=2000)),
    )  # fmt: skip
    one = i.ImageSummary(created=1, id="sha256:" + "a" * 64, repo_tags=["a:1", "a:2"], manifests=[manifest])
    images._tree([one, i.ImageSummary(created=1, id="sha256:" + "c" * 64, manifests=[])])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "IN", "USE"],
        ["a:1", "a" * 12, "3kB", "1kB", "U"], ["a:2"], ["\u2514\u2500", "linux/arm/v7", "b" * 12, "3kB", "1kB", "U"],
        ["<untagged>", "c" * 12, "0B", "0B"],
    ]  # fmt: skip


def test_an_event_is_a_line_with_sorted_attributes() -> None:
    event = s.EventMessage(
        type="container", action="start", actor=s.Actor(id="abc", attributes={"name": "web", "image": "busybox"}),
        time=1, time_nano=1_000_000_005
    )  # fmt: skip
    assert re.fullmatch(
        r"1970-01-01T\d\d:\d\d:01\.000000005(Z|[+-]\d\d:\d\d) container start abc \(image=busybox, name=web\)", events.line(event)
    )


def test_ps_prints_dockers_table(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert sampan(api, "ps") == 0
    head, line = capsys.readouterr().out.splitlines()
    assert re.split(r" {3,}", head) == ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert line.startswith('ffffffffffff   busybox   "sh"      ')
    assert line.endswith(" ago   Up 5 seconds             web")


def test_ps_formats_tables_json_and_ids(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        sampan(api, "ps", "--format", r"table {{.ID}}\t{{.Names | upper}}\t{{.Label \"x\"}}") == 1
    )  # an escaped quote is no template
    capsys.readouterr()
    assert sampan(api, "ps", "--format", r'table {{.ID}}\t{{.Names}}\t{{.Label "a.some-key"}}') == 0
    assert capsys.readouterr().out == "CONTAINER ID   NAMES     some key\nffffffffffff   web       \n"
    assert sampan(api, "ps", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["Names"] == "web"
    assert sampan(api, "ps", "-q") == 0
    assert capsys.readouterr().out == "ffffffffffff\n"
    assert sampan(api, "ps", "--format", "{{.Nope}}") == 1
    assert "can't evaluate field Nope in type *formatter.ContainerContext" in capsys.readouterr().err


def test_inspect_finds_containers_images_networks_and_says_what_is_missing(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert sampan(api, "inspect", "-f", "{{.Id}} {{.State.Running}}", "web") == 0
    assert capsys.readouterr().out == f"{ID} true\n"
    assert sampan(api, "inspect", "busybox", "nothing", "bridge") == 1
    shown = capsys.readouterr()
    assert [one.get("Id") for one in json.loads(shown.out)] == ["sha256:" + "a" * 64, ID]
    assert shown.err == "Error: No such object: nothing\n"
    assert sampan(api, "inspect", "-f", "{{.Id", "web") == 64
    assert capsys.readouterr().err == "template parsing error: template: :1: unclosed action\n"


def test_errors_of_some_do_not_stop_the_others(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert sampan(api, "stop", "-t", "3", "nothing", "web") == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("web\n", "Error response from daemon: No such container: nothing\n")
    assert ("stop", (3, "")) in api.engine.containers.calls


def test_rm_force_of_a_missing_container_is_told_and_no_failure(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert sampan(api, "rm", "nothing") == 1
    capsys.readouterr()
    assert sampan(api, "rm", "-f", "nothing") == 0
    assert "No such container: nothing" in capsys.readouterr().err


def test_run_of_a_missing_image_is_125_and_names_it(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert sampan(api, "run", "--pull", "never", "missing") == 125
    assert capsys.readouterr().err == (
        "sampan: Error response from daemon: No such image: missing:latest\n\nRun 'sampan run --help' for more information\n"
    )


def test_no_daemon_is_told_with_its_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = f"unix://{tmp_path}/none.sock"
    assert main(["-H", host, "ps"]) == 1
    assert capsys.readouterr().err == f"Cannot connect to the Sampan daemon at {host}. Is the sampan daemon running?\n"
    assert main(["-H", host, "run", "busybox"]) == 125
    assert main(["-H", "nonsense://x", "ps"]) == 1


def test_version_client_asks_no_daemon(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-H", "unix:///none", "version", "--client"]) == 0
    assert "Client: Sampan" in capsys.readouterr().out


def test_the_other_listings_print(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    for words, wanted in (
        (["images"], "busybox      latest"),
        (["network", "ls"], "bridge"),
        (["version"], "Server: Sampan"),
        (["info"], " Server Version: 0.1.0"),
        (["doctor"], "ok       kernel  fine"),
        (["jobs"], "JOB ID"),
        (["explain", "web"], "web  " + ID),
        (["history", "busybox"], "<missing>"),
        (["events", "--until", "0s"], "container start " + ID),
        (["image", "bootstrap", "busybox"], "done"),
        (["rmi", "busybox"], "Untagged: busybox"),
        (["container", "ls", "-a"], "CONTAINER ID"),
    ):
        assert sampan(api, *words) == 0, words
        assert wanted in capsys.readouterr().out
