"""Disk usage and pruning: the bytes, docker's sums, and what the commands ask before they delete."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_support import Api

from sampan.cli.main import main
from sampan.cli.usage import rows
from sampan.wire import containers as c
from sampan.wire import images as i
from sampan.wire import usage as u
from sampan.wire import volumes as v


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with Api(tmp_path) as running:
        yield running


def image(size: int, shared: int, containers: int) -> i.ImageSummary:
    return i.ImageSummary(created=1, id="sha256:x", size=size, shared_size=shared, containers=containers)


def container(state: str, size: int) -> c.ContainerSummary:
    return c.ContainerSummary(
        id="f" * 64, names=["/web"], image="busybox", image_id="", command="sh", created=1, state=state, status="",
        host_config=c.SummaryHostConfig(), network_settings=c.SummaryNetworks(), size_rw=size,
    )  # fmt: skip


def volume(size: int, users: int) -> v.Volume:
    return v.Volume(name="data", usage_data=v.UsageData(size=size, ref_count=users))


def test_the_sums_are_dockers() -> None:
    found = rows(u.DiskUsage(
        layers_size=10_000, images=[image(4000, 1000, 2), image(5000, 1000, 0)],
        containers=[container("running", 100), container("exited", 300), container("paused", 0)],
        volumes=[volume(2000, 1), volume(6000, 0), volume(-1, 0)],
    ))  # fmt: skip

    assert [tuple(row.values()) for row in found] == [
        ("Images", "2", "1", "10kB", "7kB (70%)"), ("Containers", "3", "2", "400B", "300B (75%)"),
        ("Local Volumes", "3", "1", "8kB", "6kB (75%)"), ("Build Cache", "0", "0", "0B", "0B"),
    ]  # fmt: skip


def test_the_bytes_of_df(api: Api) -> None:
    status, _, body = api.ask("GET", "/v1.50/system/df?type=image&type=volume")
    assert status == 200 and api.engine.system.kinds == ("image", "volume")
    assert list(json.loads(body)) == ["LayersSize", "Images", "Containers", "Volumes", "BuildCache"]
    assert json.loads(body)["Volumes"][0]["UsageData"] == {"Size": 1500000, "RefCount": 0}
    api.ask("GET", "/v1.41/system/df?type=image")
    assert api.engine.system.kinds == ()
    assert api.ask("GET", "/system/df?type=nonsense")[::2] == (400, b'{"message":"unknown object type: nonsense"}\n')


def test_the_commands(api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def sampan(*words: str) -> tuple[int, str]:
        return main(["-H", f"unix://{api.path}", *words]), capsys.readouterr().out

    assert sampan("system", "df")[1].splitlines() == [
        "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE", "Images          1         1         2kB       500B (25%)",
        "Containers      0         0         0B        0B", "Local Volumes   1         0         1.5MB     1.5MB (100%)",
        "Build Cache     1         0         1kB       1kB (100%)",
    ]  # fmt: skip
    assert sampan("system", "df", "--format", "{{.Type}}: {{.Reclaimable}}")[1].splitlines()[0] == "Images: 500B (25%)"
    shown = sampan("system", "df", "-v")[1]
    assert (
        "Images space usage:\n\nREPOSITORY" in shown
        and "data          0         1.5MB" in shown
        and "Build cache usage: 1kB" in shown
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, out = sampan("system", "prune", "-a", "--volumes", "--filter", "label=x")
    assert (
        code == 0 and api.engine.volumes.calls == [] and out.startswith("WARNING! This will remove:\n  - all stopped containers\n")
    )
    assert "  - all anonymous volumes not used" in out and "filtered with:\n  - label=x\n" in out
    assert sampan("system", "prune", "--volumes", "--filter", "until=1h")[0] == 1


def test_system_prune_tells_what_went(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-H", f"unix://{api.path}", "system", "prune", "-f", "--volumes"]) == 0
    assert capsys.readouterr().out == "Deleted Networks:\nold\n\nDeleted Volumes:\ndata\n\nTotal reclaimed space: 5B\n"
